"""The page's figures, small, and its numbers as Markdown: a copy that is committed."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from launch.papers.entries import Entry, entries
from launch.papers.page import made, summary
from nas.errors import InputError
from nas.files import write_whole

FILE = "gallery.md"
PICTURE, ALL = 60_000, 1_200_000  # bytes of a picture, and of all
WIDTH, SHARES, COLOURS = 1100, (1, 0.8, 0.65, 0.5, 0.35, 0.2), (64, 16)  # tried in turn
MOST = 8  # numbers of one reproduction; the others are in the page


def write_gallery(base: Path, directory: Path, *, quick: bool) -> Path:
    """Write every reproduction's picture that is there, small, and ``gallery.md``; return that.

    Args:
        base: where run directories are.
        directory: where to; it is made.
        quick: look for the small ones where it was not noted which was made.

    Raises:
        InputError: a directory that cannot be written.
    """
    found = [entry for entry in entries(base, quick=quick) if entry.there]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        left, shown = ALL, set()
        for entry in found:
            assert entry.plan is not None
            small = shrunk(entry.plan.picture)
            if len(small) <= left:
                left -= len(small)
                shown.add(entry.name)
                target = directory / f"{entry.name}.png"
                write_whole(target, lambda partial, small=small: partial.write_bytes(small))  # type: ignore[misc]
        text = markdown(found, shown)
        target = directory / FILE
        write_whole(target, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--gallery: expected a directory to write: {error}") from error
    return target


def shrunk(picture: Path, most: int = PICTURE) -> bytes:
    """Return a picture as PNG of few colours, of the first size that is small enough."""
    from PIL import Image

    with Image.open(picture) as opened:
        whole = opened.convert("RGB")
    for share in SHARES:
        scale = share * min(1.0, WIDTH / whole.width)
        size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
        small = whole.resize(size)
        for colours in COLOURS:
            buffer = io.BytesIO()
            small.quantize(colours).save(buffer, "PNG", optimize=True)
            if buffer.tell() <= most:
                break
        else:
            continue
        break
    return buffer.getvalue()


def markdown(found: Sequence[Entry], shown: set[str]) -> str:
    """Return the numbers, and the pictures that are there, as Markdown."""
    lines = ["# Papers' tables and figures beside ours", "", plain(summary(found)), ""]
    lines += [f"- {plain(line)}" for line in made(found)]
    lines += ["", "| reproduction | what | numbers | seconds |", "|---|---|---|---|"]
    for entry in found:
        seconds = f"{entry.outcome.seconds:.0f}" if entry.outcome else ""
        name = f"[{entry.name}](#{entry.name})"
        lines.append(f"| {name} | {plain(entry.about)} | {plain(entry.verdict)} | {seconds} |")
    for entry in found:
        lines += ["", f"## {entry.name}", "", f"{plain(entry.about)}. {plain(entry.verdict)}.", ""]
        if entry.comparisons:
            lines += ["| number | the paper | ours [95 %] | ours / paper | agrees |",
                      "|---|---|---|---|---|"]  # fmt: skip
        for row in entry.comparisons[:MOST]:
            ratio = f"{row.ratio:.3g}" if row.ratio == row.ratio else ""
            agrees = "" if row.agrees is None else "yes" if row.agrees else "no"
            why = entry.why(row)
            note = f" ({why})" if why else ""
            cells = (row.what + note, row.printed, row.measured, ratio, agrees)
            lines.append(f"| {' | '.join(map(plain, cells))} |")
        if more := len(entry.comparisons) - MOST:
            lines += ["", f"And {more} more on the page."] if more > 0 else []
        if entry.name in shown:
            lines += ["", f"![{plain(entry.about)}]({entry.name}.png)"]
        if entry.differences:
            lines += ["", plain(f"Not as in full: {'; '.join(entry.differences)}.")]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown and HTML leave as it is, on one line."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", " ".join(escaped.split()))
