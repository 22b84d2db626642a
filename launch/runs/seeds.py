"""The best of a search trained again under fresh seeds, as a search of its own.

It has the same data, recipe, metrics and seed as the search; its trials are told apart by
``repeat``, from the first number on that the search did not use, so that none of their random draws
is one of the search's. It lies in ``RUN/seeds``, beside ``RUN/retrain``: what belongs to a run
moves and goes with it. A directory is named by what decides its scores: another choice of trials or
more seeds is another one, which takes over what the others have trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from launch.config.config import Config, deciding, parse_config
from launch.runs.run import Run
from launch.runs.searching import Searched, search
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from nas.analysis.seed_repeats import LEVEL, REPEAT, SEEDS, UNKNOWN, fresh_runs, shrinkage
from nas.errors import InputError, NoStudy, NoWinner
from search_spaces.architecture import canonical_hash


def seeds_config(run: Run, numbers: Sequence[int], repeats: int) -> Config:
    """Return the search over fresh seeds of some trials.

    Args:
        run: the search.
        numbers: of its trials, best first.
        repeats: how many seeds each gets.

    Raises:
        InputError: fewer than two seeds, which have no spread, or no trials.
    """
    if repeats < 2:
        raise InputError(f"--repeats: expected 2 seeds or more, got {repeats}: one has no spread")
    if not numbers:
        raise InputError("expected one or more trials, got none")
    config = run.config
    vary = {name: values for name, values in config.vary.items() if name != REPEAT}
    only: list[dict[str, Any]] = []
    for number in numbers:
        answers = {k: v for k, v in run.answers(number).items() if k != REPEAT}
        if answers not in only:  # the same under several seeds of the search
            only.append(answers)
    first = first_fresh(config)
    document = config.resolved() | {
        "name": f"{config.name}-seeds",
        "vary": {**vary, REPEAT: list(range(first, first + repeats))},
        "repeats": 1,
        "sampler": {"name": "grid", "only": only},
        "trials": len(only) * repeats,
        "scheduler": None,
        "retrain": None,
        "storage": None,
        "keep": {**config.keep.model_dump(), "top": 1},
    }
    return parse_config(document)


def first_fresh(config: Config) -> int:
    """Return the first ``repeat`` whose seeds no trial of a search has used."""
    used: int = max([*config.vary.get(REPEAT, ()), 0])
    return used + config.repeats


def directory(run: Path, config: Config, trials: int, repeats: int) -> Path:
    """Return the directory of a search over fresh seeds, by what decides its scores."""
    return run / SEEDS / f"{trials}x{repeats}-{canonical_hash(deciding(config))[:8]}"


def repeat_seeds(
    run: Run,
    numbers: Sequence[int],
    repeats: int,
    report: Reporter,
    *,
    out: Path | None = None,
    address: str | None = None,
    again: str | None = None,
) -> Searched | None:
    """Train trials under fresh seeds; what is there already is not trained again.

    Args:
        run: the search.
        numbers: of its trials.
        repeats: how many seeds each gets.
        report: is told of the search.
        out: where to; None is :func:`directory`.
        address: of a Ray cluster.
        again: the command that goes on.

    Returns:
        What was searched; None where every training failed, as the table says.

    Raises:
        InputError: as :func:`seeds_config`, another search in ``out``, or data that have changed.
    """
    config = seeds_config(run, numbers, repeats)
    where = out or directory(run.path, config, len(config.sampler["only"]), repeats)
    earlier = [path for path in fresh_runs(run.path) if path != where and _readable(path)]
    try:
        return search(
            config,
            where,
            report,
            resume=True,
            keep_trials=True,
            address=address,
            again=again,
            data_checksum=run.checksums,
            reuse=earlier,
        )
    except NoWinner as error:
        report.say(str(error))
        return None


def _readable(path: Path) -> bool:
    """Whether a search over fresh seeds has begun, so that something can be taken over."""
    try:
        return bool(Run(path).results)
    except NoStudy:
        return False


# --------------------------------------------------------------------------------------- in print


def seed_lines(found: pd.DataFrame, score: str, varied: Sequence[str]) -> list[str]:
    """Return the table of :func:`nas.analysis.seeds` and what it says, for a person.

    Args:
        found: that table.
        score: which.
        varied: what the search varies beside the architecture, which is shown too.
    """
    columns: dict[str, list[str]] = {"rank": [], "trial": [], "architecture": []}
    columns |= {name: [] for name in varied if name in found}
    columns |= {n: [] for n in ("searched", "was", "seeds", "mean", "interval", "shrinkage", "")}
    for row in found.to_dict("records"):
        cells = {
            "rank": str(row["rank"]),
            "trial": "-" if pd.isna(row["number"]) else str(row["number"]),
            "architecture": str(row["architecture"]),
            **{name: str(row[name]) for name in varied if name in found},
            "searched": _number(row["original"]),
            "was": "-" if pd.isna(row["original_rank"]) else str(row["original_rank"]),
            "seeds": f"{row['n']}" + (f", {row['failed']} failed" if row["failed"] else ""),
            "mean": _number(row["mean"]),
            "interval": f"[{_number(row['low'])}, {_number(row['high'])}]",
            "shrinkage": _number(row["shrinkage"], sign=True),
            "": row["verdict"] + (", luck" if row["luck"] else "") + _flagged(row),
        }
        for name, cell in cells.items():
            columns[name].append(cell)
    right = ["rank", "trial", "searched", "was", "mean", "shrinkage"]
    return [*aligned(columns, right=right), "", *conclusions(found, score)]


def conclusions(found: pd.DataFrame, score: str) -> list[str]:
    """Return what fresh seeds say, in sentences."""
    first = found.iloc[0]
    lines = [
        f"{score}: 95 % intervals of the mean over fresh seeds (Student's t); ranked by their "
        "worse ends."
    ]
    if first["verdict"] == UNKNOWN:
        return [*lines, "No trial has two fresh seeds that completed: nothing can be told."]
    was = found[found["original_rank"] == 1]
    if len(was):
        row = was.iloc[0]
        text = f"Trial {row['number']} was the first of these with {_number(row['original'])}; "
        text += f"fresh seeds give {_number(row['mean'])} on average"
        if row["shrinkage"] > 0:
            text += f", {_number(row['shrinkage'])} less, "
            text += "more than" if row["luck"] else "within what"
            text += " another seed would move it by (95 %)."
        else:
            text += ": it was not lucky."
        lines.append(text)
        if row["rank"] == 1:
            lines.append("It holds rank 1.")
        else:
            lines.append(f"It is rank {row['rank']} now; trial {first['number']} leads.")
    level = [str(n) for n in found.loc[found["verdict"] == LEVEL, "number"]]
    if level:
        lines.append(
            f"Overlapping the leader's interval: {_trials(level)}. So many seeds do not tell them "
            "apart; more of them may (--repeats)."
        )
    elif len(found) > 1:
        lines.append("No other interval overlaps the leader's.")
    held = int(found["held"].sum())
    known = int(found["shrinkage"].notna().sum())
    shrunk = shrinkage(found)
    way = "better" if shrunk >= 0 else "worse"
    lines.append(
        f"{held} of {len(found)} ranks held. Regression to the mean: {known} searched scores were "
        f"{_number(abs(shrunk))} {way} than their fresh means on average."
    )
    if failed := int(found["failed"].sum()):
        lines.append(f"{failed} fresh trainings failed; their reasons are in the trial table.")
    return lines


def _trials(numbers: Sequence[str]) -> str:
    return f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(numbers)}"


def _flagged(row: Mapping[Any, Any]) -> str:
    return f", {row['flagged']} suspicious" if row["flagged"] else ""


def _number(value: float, *, sign: bool = False) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:+.3g}" if sign else f"{value:.4g}"
