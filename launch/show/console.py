"""Where the command line prints."""

from __future__ import annotations

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def say(text: str) -> None:
    """Print a line as it is: not wrapped, not marked up."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
