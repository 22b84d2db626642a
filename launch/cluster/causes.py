"""What Ray says of a worker that is gone, as a line for people."""

from __future__ import annotations

import re
from pathlib import Path

from nas.errors import cut, one_line, said

NODE_GONE = ("node has died", "node was terminated", "node died", "owner died", "preempted")
LOW_MEMORY = "low on memory"  # of the node, as Ray's monitor says it


class Lost(Exception):
    """A worker that is gone, and nobody knows why."""


def exit_of(error: BaseException | None) -> str:
    """Return in a line what a worker died of."""
    text = said(error) if error is not None else ""
    for pattern in (
        r"Worker exit detail: (.*?)(?:\. Some|\n|$)",
        r"(\d+ worker\(s\) were killed.*)",
    ):
        if found := re.search(pattern, text):
            return cut(found[1].strip())
    return "unknown" if error is None else one_line(error)


def innermost(trace: str) -> str:
    """Return the innermost frame of the last thread of a trace by faulthandler, the main one."""
    frames = re.findall(r'File "(.*?)", line (\d+) in (\S+)', trace.rpartition("read 0x")[2])
    if not frames:
        return "an unknown place"
    path, line, function = frames[0]
    return f"{Path(path).name}:{line} in {function}"


def raised_in(error: BaseException | None) -> str:
    """Return in a line what a worker raised while it was made."""
    raised = re.search(r"(\w+(?:Error|Exception|Lost)\b.*)\s*$", said(error) if error else "")
    return cut(raised[1]) if raised else exit_of(error)


def other_versions(error: BaseException) -> str | None:
    """Return in a line which versions Ray refuses to connect; None of another error."""
    text = said(error)
    found = re.findall(r"^\s*(Ray|Python): (\S+)", text, re.MULTILINE)
    if not text.startswith("Version mismatch") or len(found) != 4:
        return None
    theirs, ours = (" and ".join(map(" ".join, pair)) for pair in (found[:2], found[2:]))
    return f"it was started with {theirs}, this process has {ours}: install the same in both"
