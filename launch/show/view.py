"""What an analysis leaves: its table, what it prints, and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from launch.show.outputs import check_file
from nas.errors import InputError
from nas.files import write_whole


@dataclass(frozen=True)
class View:
    """What was found, as a table, as lines to print, and as a picture."""

    table: pd.DataFrame
    lines: list[str]
    figure: Figure


def write_view(directory: Path, name: str, view: View) -> tuple[Path, Path]:
    """Write ``NAME.csv`` and ``NAME.png`` to a directory, each whole; return the paths."""
    table, picture = directory / f"{name}.csv", directory / f"{name}.png"
    write_whole(table, lambda p: view.table.to_csv(p, index=False))
    write_whole(picture, lambda p: view.figure.savefig(p, format="png", dpi=150))
    return table, picture


def check_csv(out: Path, *, other_than: Path) -> None:
    """Refuse a file that cannot be written, is no CSV or is the input, before the work.

    Raises:
        InputError: such a file.
    """
    if out.suffix != ".csv":
        raise InputError(f"--out: expected a file that ends in .csv, got {out}")
    if out.resolve() == other_than.resolve():
        raise InputError(f"--out: expected another file than the table, got {out}")
    check_file(out)
    picture = out.with_suffix(".png")
    if picture.is_dir() or (picture.exists() and not out.exists()):
        raise InputError(
            f"--out: expected no {picture.name} without its table where a picture is to go, got "
            f"{picture}: give another name"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe = out.with_name(f".{out.name}.probe")
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: expected a file to write, got {out}: {error}") from error
