"""Where the command line prints."""

from __future__ import annotations

import io
import sys

from rich.console import Console

console = Console(emoji=False)  # ``sp:M:`` is a name and no picture
errors = Console(stderr=True, emoji=False)


def print_anything() -> None:
    """Let a terminal or a file that is not in UTF-8 get ``\\xb1`` for what it cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a line as it is: not wrapped, not marked up."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
