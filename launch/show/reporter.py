"""What a run tells whoever started it: lines, a table, and the progress of its search.

Nothing in ``launch.runs`` prints; it is given a reporter. Commands give it one on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.console import Console

from launch.show.console import console as terminal
from launch.show.progress import Progress
from launch.show.tables import front_of, print_trials, shortened
from nas.ledger.table import Legend


class Reporter:
    """Prints what it is told.

    Args:
        console: where to; None is the terminal.
        say: takes the lines, instead of the console.
    """

    def __init__(
        self, console: Console | None = None, *, say: Callable[[str], None] | None = None
    ) -> None:
        self._console = terminal if console is None else console
        self._say = say
        self.progress = Progress(self._console)

    def say(self, text: str) -> None:
        """Print a line as it is: not wrapped, not marked up."""
        if self._say is not None:
            self._say(text)
            return
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def table(self, table: pd.DataFrame, legend: Legend, run: Path) -> None:
        """Print a trial table: of a long one the best rows, and where the rest is."""
        best, rest = shortened(table, legend, run)
        print_trials(self._console, best, legend, front_of(table, legend))
        if rest is not None:
            self.say(rest)
