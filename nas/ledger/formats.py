"""A trial table as text that comes back: every double to its last digit, every text as it was.

JSON and parquet give each value again with its type. CSV has no types: whoever reads it decides
whether ``1`` was text, and whether an empty cell was an empty text or nothing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

EXACT = 2**53  # integers up to which a double holds each
INFINITE = "1e999"  # what every reader of JSON takes for infinity, which JSON has no word for


def column_of(values: Sequence[Any]) -> pd.Series:
    """Return the column of a decision's answers, None where a trial has none.

    Answers of several types, numbers aside, stand as JSON: no file could hold them. Integers beside
    None are doubles where those hold them, and nullable integers elsewhere.
    """
    kinds = {type(value) for value in values if value is not None}
    missing = any(value is None for value in values)
    if kinds == {int} and missing:
        exact = all(abs(value) <= EXACT for value in values if value is not None)
        return pd.Series(values, dtype="float64" if exact else "Int64")
    if len(kinds) > 1 and not kinds <= {int, float}:
        return pd.Series([None if v is None else json.dumps(v) for v in values], dtype=object)
    if kinds <= {int, float} and kinds:
        return pd.Series(values, dtype="int64" if kinds == {int} else "float64")
    if kinds == {bool} and not missing:
        return pd.Series(values, dtype=bool)
    return pd.Series(values, dtype=object)


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV, in which a carriage return in a text is quoted too."""
    text = table.select_dtypes(["object", "string"])
    quoted = any("\r" in value for name in text for value in text[name] if isinstance(value, str))
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL)


def json_text(table: pd.DataFrame) -> str:
    """Return a table as a JSON list of objects, one a row; missing numbers are null."""
    names = [json.dumps(str(name)) for name in table.columns]
    columns = [[_json(value) for value in table[name]] for name in table.columns]
    rows = (
        ",\n".join(f"    {name}: {value}" for name, value in zip(names, row, strict=True))
        for row in zip(*columns, strict=True)
    )
    objects = ",\n".join(f"  {{\n{row}\n  }}" for row in rows)
    return f"[\n{objects}\n]\n" if objects else "[]\n"


def writable(text: str) -> str:
    """Return a text that any file can hold: NUL and half surrogates as ``\\x00``, ``\\ud800``."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _json(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT:
        return "null"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return "null"
        if math.isinf(number):
            return INFINITE if number > 0 else f"-{INFINITE}"
        return repr(number)
    return json.dumps(value)
