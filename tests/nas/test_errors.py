"""What somebody else's exception says becomes a line that any file can hold."""

from __future__ import annotations

import pytest

from nas.errors import LONGEST, first_line, one_line, writable


class Loud(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("one\ntwo"), "RuntimeError: one"),
        (RuntimeError("\n\n  two"), "RuntimeError: two"),
        (RuntimeError("10%\r100%"), "RuntimeError: 10%\r100%"),
        (RuntimeError("caf\udce9.png"), "RuntimeError: caf\\udce9.png"),
        (RuntimeError(), "RuntimeError"),
        (Loud(), "Loud"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line


def test_a_line_is_cut():
    line = first_line(RuntimeError("x" * 10**6))
    assert line == "x" * (LONGEST - 3) + "..."


def test_text_is_utf8():
    assert writable("a\ud800b").encode() == b"a\\ud800b"
    assert writable("é🙂") == "é🙂"
