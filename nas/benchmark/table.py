"""A table of architectures that somebody has trained: read, checked, and asked for a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.errors import InputError
from nas.ledger.table import read_csv
from nas.names import known_names
from nas.samplers.decisions import Decisions
from nas.types import FloatArray
from search_spaces import Architecture, SearchSpace


@dataclass(frozen=True)
class Table:
    """Scores of architectures that somebody has trained.

    Attributes:
        space: that the architectures are of.
        objectives: column -> ``max`` or ``min``.
        scores: ``(rows, objectives)``; NaN where a row has none.
        exact: choices, as a tuple -> row.
        classes: ``SearchSpace.table_key`` -> row.
    """

    space: SearchSpace
    objectives: Mapping[str, str]
    scores: FloatArray
    exact: Mapping[tuple[Any, ...], int]
    classes: Mapping[str, int]

    def row(self, choices: Mapping[str, Any]) -> int | None:
        """Return the row of an architecture: its own, else one of an isomorphic architecture."""
        found = self.exact.get(tuple(choices.values()))
        return found if found is not None else self.classes.get(self.space.table_key(choices))

    @cached_property
    def decisions(self) -> Decisions:
        """What samplers are asked; two architectures of one row are the same."""
        return Decisions(
            self.space.decisions(),
            key=self.key,
            features=self.space.features,
        )

    def key(self, params: Mapping[str, Any]) -> str:
        """Return what two architectures share that one row answers for."""
        choices = {name: params[name] for name in self.space.decisions()}
        row = self.row(choices)
        return f"row {row}" if row is not None else f"no row {self.space.table_key(choices)}"

    def trial(self, params: Mapping[str, Any]) -> TableTrial:
        """Return the trial of one answer to every decision."""
        choices = {name: params[name] for name in self.space.decisions()}
        key = self.decisions.key(params)
        return TableTrial(self.space.architecture(choices), key, self.row(choices))

    @property
    def signs(self) -> FloatArray:
        """``(objectives,)``: 1 where larger is better, else -1."""
        return np.array([1.0 if d == "max" else -1.0 for d in self.objectives.values()])

    @property
    def gains(self) -> FloatArray:
        """``(rows, objectives)``, larger is better."""
        return self.scores * self.signs


def read_table(
    path: Path, space: SearchSpace, objectives: Mapping[str, str], *, column: str | None = None
) -> Table:
    """Read a CSV file of one row an architecture.

    Architectures stand in a column of the space's string form, or in one column a decision. Rows of
    one and the same architecture (several seeds, say) are averaged.

    Args:
        path: of the file.
        space: that the architectures are of.
        objectives: column -> ``max`` or ``min``.
        column: of the string form; None finds it.

    Raises:
        InputError: no such file or column, or a row that is not an architecture of the space.
    """
    frame = read_csv(path)
    if frame.empty:
        raise InputError(f"{path}: expected one or more rows, got none")
    numeric = list(frame.select_dtypes("number").columns)
    for name in objectives:
        if name not in numeric:
            raise InputError(
                f"--objective: expected a column of numbers ({known_names(name, numeric)}), "
                f"got {name!r}"
            )
    architectures = _architectures(frame, space, column, path)
    choices = [tuple(value for _, value in a.choices) for a in architectures]
    exact: dict[tuple[Any, ...], int] = {}
    rows = [exact.setdefault(answers, len(exact)) for answers in choices]
    means = frame[list(objectives)].astype(float).groupby(np.array(rows)).mean()
    values = means.to_numpy(dtype=float, copy=True)
    values[~np.isfinite(values)] = math.nan
    if np.isnan(values).any(axis=1).all():
        raise InputError(f"{path}: expected a finite {', '.join(objectives)} in some row, got none")
    if len(objectives) > 1:
        whole = values[~np.isnan(values).any(axis=1)]
        for name, column_values in zip(objectives, whole.T, strict=True):
            if np.ptp(column_values) == 0:
                raise InputError(
                    f"--objective {name}: expected different values for a hypervolume, got "
                    f"{column_values[0]:g} alone"
                )
    names = list(space.decisions())
    classes: dict[str, int] = {}
    for answers, row in exact.items():
        classes.setdefault(space.table_key(dict(zip(names, answers, strict=True))), row)
    return Table(space, dict(objectives), values, exact, classes)


def _architectures(
    frame: pd.DataFrame, space: SearchSpace, column: str | None, path: Path
) -> list[Architecture]:
    """Return the architecture of every row."""
    decisions = space.decisions()
    if column is None and set(decisions) <= set(frame.columns):
        return [_of_choices(space, row, i) for i, row in enumerate(_rows(frame, list(decisions)))]
    name = column if column is not None else _string_column(frame, space)
    if name is None or name not in frame.columns:
        raise InputError(
            f"{path}: expected a column of architectures of {space.full_name()} such as "
            f"{space.to_string(next(iter(space)))!r}, or the columns {', '.join(decisions)}; "
            f"got {', '.join(map(str, frame.columns)) if column is None else repr(column)}"
        )
    found = []
    for row, text in enumerate(frame[name]):
        try:
            found.append(space.from_string(str(text)))
        except ValueError as error:
            raise InputError(f"{path}, row {row + 1}, column {name}: {error}") from error
    return found


def _rows(frame: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in frame[names].astype(object).to_numpy()]


def _of_choices(space: SearchSpace, row: Mapping[str, Any], number: int) -> Architecture:
    try:
        return space.architecture(row)
    except ValueError as error:
        raise InputError(f"row {number + 1}: {error}") from error


def _string_column(frame: pd.DataFrame, space: SearchSpace) -> str | None:
    """Return the first column whose first entry is an architecture of the space."""
    for name in frame.columns:
        try:
            space.from_string(str(frame[name].iloc[0]))
        except ValueError:
            continue
        return str(name)
    return None


@dataclass(frozen=True)
class TableTrial:
    """An architecture and the row that answers for it."""

    architecture: Architecture
    key: str
    row: int | None
    seed: int = 0
