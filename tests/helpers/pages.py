"""Run a page of the documentation: its files are written, its commands and its Python executed."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of every block of a page, in order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """Return the command lines of a block, without comments."""
    joined = text.replace("\\\n", " ")
    return [line for line in map(_bare, joined.splitlines()) if line]


def _bare(line: str) -> str:
    return re.sub(r"\s+# .*$", "", line).strip() if not line.startswith("#") else ""


def run_page(
    page: Path,
    psinas,
    skipped: Mapping[str, str],
    then: Callable[[str], object] = lambda line: None,
) -> list[str]:
    """Run every block of a page in the current directory; return what ``psinas`` printed.

    A block whose first line is ``# NAME.py`` or ``# NAME.yaml`` is written to that file.
    ``skipped`` has the lines that are not run, each with the reason; a line that is neither run
    nor there is an error. ``then`` hears of every command that has run.
    """
    names: dict[str, object] = {}
    printed, left = [], dict(skipped)
    for kind, text in blocks(page):
        if found := FILE.match(text):
            Path(found[1]).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, str(page), "exec"), names)
        elif kind == "bash":
            for line in commands(text):
                if line in left:
                    del left[line]
                    continue
                program, *arguments = shlex.split(line)
                if program == "python":
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(sys, "argv", arguments)
                        try:
                            runpy.run_path(arguments[0], run_name="__main__")
                        except SystemExit as end:
                            if end.code:
                                raise AssertionError(line) from end
                    continue
                assert program == "psinas", line
                code, out, err = psinas(*arguments)
                assert code == 0, (line, out[-500:], err)
                printed.append(out)
                then(line)
    assert not left, f"not on the page: {list(left)}"
    return printed
