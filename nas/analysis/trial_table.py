"""One tidy table of one or several runs, as notebooks, reports and comparisons read it.

``nas.load_table`` shows one run as its files ``trials.csv`` and ``trials.parquet`` do: whole, with
the types that happened. Here the columns stand in a fixed order and each has a type that does not
depend on what the trials gave, so that tables of several runs go below one another; what the
columns are travels along in ``attrs``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nas.errors import InputError
from nas.ledger.records import Record, read_records, standing
from nas.ledger.results import JOURNAL, MEMORY_STEPS, REUSED_FROM, RUN_ID, STUDY
from nas.ledger.table import LEADING, Legend, table_of

CONFIG = "config.yaml"
STATUSES = (
    "complete",
    "stopped",
    "diverged",
    "oom",
    "invalid",
    "timeout",
    "error",
    "device",
    "running",
)
"""The categories of ``status``, in this order; one that is not known yet comes behind them."""

BOOKKEEPING: Mapping[str, str] = {
    "epochs": "Int64",
    "rung": "Int64",
    "seconds": "float64",
    "peak_memory_bytes": "Int64",
    "micro_batch": "Int64",
    "architecture": "string",
    MEMORY_STEPS: "string",
    REUSED_FROM: "string",
    "repeat_of": "Int64",
}
"""What stands behind the scores, in this order, where a trial has it: column -> its type."""

SURE = ("epochs", "seconds", "architecture")
"""Those of them that every table has."""


def load_table(*runs: str | Path, repeats: bool = False) -> pd.DataFrame:
    """Return one tidy table of all trials of some run directories, one row a trial.

    The columns, in this order: ``run`` (the directory's name, with as many of the folders above it
    as tell the runs apart), ``number``, ``status`` and ``reason``; the decisions, as the runs asked
    them; the objectives, which are there even where no trial has one; the other scores, as their
    metrics stand in the configuration; ``BOOKKEEPING``. What a run does not have is missing.

    Types: ``run``, ``reason`` and other text are ``string``, ``status`` is a category of
    ``STATUSES``, ``number`` is ``int64``, every score and ``seconds`` ``float64``, counts
    ``Int64``. A decision is ``Int64``, ``float64`` or ``boolean`` where all its choices are such,
    ``string`` otherwise; choices of several types, or lists, stand as JSON.

    ``attrs`` holds, as plain values that parquet keeps: ``objectives`` (score -> ``max`` or
    ``min``), ``decisions`` (their names), ``choices`` (decision -> its choices, as the table has
    them), ``directions`` (score -> ``max`` or ``min``, of every score) and ``runs`` (run -> its
    ``name``, ``seed`` and ``sampler``).

    10,000 trials are read in about two seconds, also while they are being searched. A trial
    that a killed driver left behind is ``running``.

    Args:
        runs: run directories.
        repeats: also show proposals of a known architecture, answered from the ledger.

    Raises:
        InputError: no run, no ledger there, runs that want opposite things of one score, or a
            decision with the name of another column.
    """
    if not runs:
        raise InputError("expected at least one run directory, got none")
    paths = [Path(run) for run in runs]
    read = [_read(path, repeats=repeats) for path in paths]
    objectives: dict[str, str] = {}
    choices: dict[str, list[Any]] = {}
    for path, one in zip(paths, read, strict=True):
        for score, way in one.objectives.items():
            if objectives.setdefault(score, way) != way:
                raise InputError(
                    f"expected runs with the same objectives, got {score}: {objectives[score]} and "
                    f"{way} in {path}: load them apart"
                )
        for decision, own in one.choices.items():
            known = choices.setdefault(decision, [])
            known += [choice for choice in own if not _among(choice, known)]
    names = unique_names(paths)
    named = dict(zip(names, read, strict=True))
    return _tidy(named, objectives, choices)


def runs_in(place: str | Path) -> list[Path]:
    """Return a run directory itself, or the run directories in a folder, sorted by name.

    Raises:
        InputError: it is neither.
    """
    path = Path(place)
    if _is_run(path):
        return [path]
    inside = sorted(child for child in path.iterdir() if _is_run(child)) if path.is_dir() else []
    if not inside:
        raise InputError(f"expected a run directory, or a folder of such, got {path}")
    return inside


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each directory: its own, with as many above it as tell them apart.

    The same directory given twice has its place in the list behind its name.
    """
    parts = [path.resolve().parts for path in paths]
    names = [""] * len(parts)
    for i, own in enumerate(parts):
        others = {other for other in parts if other != own}
        depth = next(
            n
            for n in range(1, len(own) + 1)
            if all(o[-n:] != own[-n:] for o in others) or n == len(own)
        )
        twice = f" ({parts[: i + 1].count(own)})" if parts[:i].count(own) else ""
        names[i] = "/".join(own[-depth:]) + twice
    return names


# ------------------------------------------------------------------------------------------- parts


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / JOURNAL).is_file()


class _Read:
    """A run as it was read: its table, answers, objectives, choices, and what is said of it."""

    def __init__(
        self, path: Path, records: list[Record], config: Mapping[str, Any], *, repeats: bool
    ) -> None:
        self.table = table_of(records, repeats=repeats)
        shown = [r for r in standing(records) if repeats or r.result is None or r.counts]
        self.answers = [record.params for record in shown]  # the table has some as JSON
        self.objectives: dict[str, str] = dict(config.get("objectives") or {})
        self.choices = _all_choices(records)
        sampler = config.get("sampler")
        self.said = {
            "name": config.get("name", path.name),
            "seed": config.get("seed"),
            "sampler": sampler.get("name") if isinstance(sampler, Mapping) else sampler,
        }


def _all_choices(records: Iterable[Record]) -> dict[str, list[Any]]:
    """Return decision -> every choice that some record had, in the order of its decision."""
    found: dict[str, list[Any]] = {}
    last: dict[str, tuple[Any, ...]] = {}
    for record in records:
        for decision, value in record.params.items():
            own = record.choices.get(decision) or (value,)
            if last.get(decision) is own:  # as of every record of a run's own journal
                continue
            last[decision] = own
            known = found.setdefault(decision, [])
            known += [choice for choice in own if not _among(choice, known)]
    return found


def _read(path: Path, *, repeats: bool) -> _Read:
    saved = path / CONFIG
    config = yaml.safe_load(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    storage = config.get("storage")
    begun = any((path / name).exists() for name in ("trials", "trials.csv"))
    if saved.exists() and not storage and not (path / JOURNAL).exists() and not begun:
        return _Read(path, [], config, repeats=repeats)  # killed before its first trial
    name = config["name"] if storage else STUDY
    records = read_records(path, storage=storage, name=name, run_id=config.get(RUN_ID))
    return _Read(path, records, config, repeats=repeats)


def _among(choice: Any, known: Iterable[Any]) -> bool:
    """Whether a choice is known: 1, 1.0 and True are different ones."""
    return any(type(choice) is type(other) and choice == other for other in known)


def _tidy(
    read: Mapping[str, _Read],
    objectives: Mapping[str, str],
    choices: Mapping[str, Sequence[Any]],
) -> pd.DataFrame:
    """Return the tables below one another, in the documented order and types."""
    taken = {"run", *LEADING, *BOOKKEEPING, *objectives}
    if clash := taken & set(choices):
        raise InputError(f"expected decisions with names of their own, got {sorted(clash)}")
    parts = [one.table for one in read.values()]
    there = dict.fromkeys(str(name) for part in parts for name in part.columns)
    known = {*LEADING, *choices, *BOOKKEEPING, *objectives}
    scores = [*objectives, *(name for name in there if name not in known)]
    columns: dict[str, pd.Series] = {
        "run": pd.Series([n for n, one in read.items() for _ in one.answers], dtype="string"),
        "number": pd.Series(_values(parts, "number"), dtype="int64"),
        "status": _statuses(_values(parts, "status")),
        "reason": pd.Series(_values(parts, "reason"), dtype="string"),
    }
    for name, own in choices.items():
        answers = [answer.get(name) for one in read.values() for answer in one.answers]
        columns[name] = _decision(answers, own)
    for name in scores:
        columns[name] = pd.Series(_values(parts, name), dtype="float64")
    for name, kind in BOOKKEEPING.items():
        if name in there or name in SURE:
            columns[name] = _typed(_values(parts, name), kind)
    table = pd.DataFrame(columns)
    legend = Legend(objectives, list(choices), ())
    table.attrs = {
        "objectives": dict(objectives),
        "decisions": list(choices),
        "choices": {name: [_plain(c, own) for c in own] for name, own in choices.items()},
        "directions": {score: legend.direction(score) for score in scores},
        "runs": {name: one.said for name, one in read.items()},
    }
    return table


def _values(parts: Sequence[pd.DataFrame], name: str) -> list[Any]:
    """Return the cells of a column of all tables, None where there is nothing."""
    return [
        None if value is pd.NA or value != value else value
        for part in parts
        for value in (part[name].tolist() if name in part else [None] * len(part))
    ]


def _statuses(values: Sequence[str]) -> pd.Series:
    more = sorted(set(values) - set(STATUSES))
    return pd.Series(values, dtype=pd.CategoricalDtype([*STATUSES, *more]))


def _typed(values: Sequence[Any], kind: Any) -> pd.Series:
    if kind == "Int64":
        values = [None if value is None else int(value) for value in values]
    found: pd.Series = pd.Series(values, dtype=kind)
    return found


def _decision(values: Sequence[Any], own: Sequence[Any]) -> pd.Series:
    kinds = _kinds(own)
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int}:
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series([None if v is None else _plain(v, own) for v in values], dtype="string")


def _plain(value: Any, own: Sequence[Any]) -> Any:
    """Return a choice as the table has it: texts, numbers, or else JSON."""
    kinds = _kinds(own)
    plain = value is None or kinds <= {int, float} or kinds in ({bool}, {str})
    return value if plain else json.dumps(value)


def _kinds(own: Sequence[Any]) -> set[type]:
    return {type(choice) for choice in own if choice is not None}
