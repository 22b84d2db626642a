"""A table that a command prints: for a person as lines, for a program as JSON or CSV."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from enum import StrEnum

import pandas as pd

from launch.show.console import say
from nas.ledger.formats import csv_text, json_text


class Format(StrEnum):
    """How a command prints."""

    table = "table"
    json = "json"
    csv = "csv"


def print_as(format: Format, table: pd.DataFrame, lines: Iterable[str]) -> None:
    """Print lines for a person, or the table for a program: UTF-8, whatever the locale."""
    if format is Format.table:
        for line in lines:
            say(line)
        return
    text = json_text(table) if format is Format.json else csv_text(table)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def short(value: float) -> str:
    """Return a number of four digits, or a dash for none."""
    return "-" if math.isnan(value) else f"{value:.4g}"
