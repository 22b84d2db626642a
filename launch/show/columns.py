"""Columns of text under their names, laid out by rich, for which wide characters count right."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.table import Table

BETWEEN = 2  # spaces
EVERYTHING = 100_000  # characters: nothing is cut or wrapped


def aligned(columns: Mapping[str, Sequence[str]], right: Collection[str] = ()) -> list[str]:
    """Return the lines of a table: its head, then one a row.

    Args:
        columns: name -> cells, all of one length.
        right: the names of the columns that are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console = Console(width=EVERYTHING, color_system=None, markup=False, highlight=False)
    with console.capture() as written:
        console.print(table)
    return [line.rstrip() for line in written.get().splitlines()]


def beside(rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one line a row: its name, then its cells, under no head."""
    width = max(map(len, rows.values()), default=0)
    cells = [[*row, *[""] * (width - len(row))] for row in rows.values()]
    columns = {str(i): [row[i] for row in cells] for i in range(width)}
    return aligned({"": list(rows), **columns})[1:]
