"""Trends of any trial table: adversarial accuracy against clean accuracy and parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from launch.runs.run import Run
from launch.show.tables import trusted
from launch.show.trend_panels import trend_panels
from launch.show.view import View
from nas.analysis.correlation import BOOKKEEPING
from nas.analysis.trends import ABOVE, FEWEST, TrendStatistics, trend_statistics
from nas.errors import InputError
from nas.ledger.table import LEADING, read_csv
from nas.names import known_names
from nas.search.trust import plain_names

CLEAN, ADVERSARIAL, PARAMETERS = "clean_accuracy", "adversarial_accuracy", "parameters"
ATTACKS = ("fgsm_accuracy", "pgd_accuracy")  # the first that is an objective, else is there
ENOUGH = 10  # models above the paper's clean accuracy; above one that was asked for, two are
PERCENT = 1.5  # a column with a larger number is in percent


@dataclass(frozen=True)
class Models:
    """The models of a table.

    Attributes:
        frame: columns ``number`` (the trial's, or the row's from 0), ``clean_accuracy`` and
            ``adversarial_accuracy`` in [0, 1], ``parameters`` where the table has them.
        names: column of ``frame`` -> its name in the table.
        notes: what a user is told of the reading.
    """

    frame: pd.DataFrame
    names: Mapping[str, str]
    notes: Sequence[str]


def read_models(
    table: Path,
    adversarial: str | None = None,
    clean: str | None = None,
    parameters: str | None = None,
    *,
    trust: bool = False,
) -> Models:
    """Read the models of a run directory (its complete trials) or of a CSV file.

    Args:
        table: a run directory, its trial table as CSV, or any CSV file of one row a model.
        adversarial, clean, parameters: names of columns; None looks for those of a run.
        trust: leave suspicious trials out.

    Raises:
        InputError: no such table or column, or numbers that are no accuracies.
    """
    rows, objectives, trials = _rows(table, trust=trust)
    numeric = [str(n) for n in rows.select_dtypes("number").columns if n not in BOOKKEEPING]
    attacks = [name for name in ATTACKS if name in objectives]
    names = {
        CLEAN: _column(numeric, "--clean", clean, [CLEAN]),
        ADVERSARIAL: _column(numeric, "--adversarial", adversarial, [*attacks, *ATTACKS]),
    }
    notes = []
    if parameters is not None or PARAMETERS in numeric:
        names[PARAMETERS] = _column(numeric, "--parameters", parameters, [PARAMETERS])
    else:
        notes.append(f"no numbers called {PARAMETERS}: their panel is left out")
    if len(set(names.values())) < len(names):
        raise InputError(f"expected different columns, got {', '.join(names.values())}")
    frame = rows[list(names.values())].astype(float).set_axis(list(names), axis="columns")
    frame.insert(0, "number", rows["number"] if trials else range(len(rows)))
    notes += _to_shares(frame, names, percent=not trials)
    return Models(frame.reset_index(drop=True), names, notes)


def trends(
    read: Models,
    *,
    above: float | None = None,
    window: int | None = None,
    remarks: Mapping[str, str] | None = None,
) -> View:
    """Return the models with their running averages, what to print, and the picture.

    Args:
        read: the models.
        above: the clean accuracy that accurate models exceed; None takes the paper's.
        window: models of a running average, odd; None finds one.
        remarks: what is said behind a trend (by its column of ``read.frame``) and behind the
            accurate ones (``accurate``).

    Raises:
        InputError: another threshold or window, or fewer than three models.
    """
    if above is not None and not 0 <= above <= 1:
        raise InputError(f"--above: expected a clean accuracy in [0, 1], got {above:g}")
    if window is not None and (window < 1 or window % 2 == 0):
        raise InputError(f"--window: expected an odd number >= 1, got {window}")
    asked = ABOVE if above is None else above
    found = trend_statistics(
        read.frame[CLEAN],
        read.frame[ADVERSARIAL],
        read.frame.get(PARAMETERS),
        above=asked,
        fewest=ENOUGH if above is None else 2,
        window=window,
    )
    text = [*read.notes, *_lines(found, read.names, asked, remarks or {})]
    return View(_with_averages(read.frame, found), text, trend_panels(found, read.names))


def _lines(
    found: TrendStatistics, names: Mapping[str, str], asked: float, remarks: Mapping[str, str]
) -> list[str]:
    """Return the statistics as text, with remarks."""
    clean, adversarial = names[CLEAN], names[ADVERSARIAL]
    followed = {clean: (found.by_clean, CLEAN)}
    result = []
    if found.left_out:
        result.append(f"{found.left_out} rows left out: no number in {clean} or {adversarial}")
    if found.by_parameters is not None:
        followed = {names[PARAMETERS]: (found.by_parameters, PARAMETERS), **followed}
    elif PARAMETERS in names:
        result.append(f"too few numbers in {names[PARAMETERS]}: their panel is left out")
    result.append(f"{adversarial} of {found.n} models, rank correlation with")
    width = max(map(len, followed))
    for name, (trend, column) in followed.items():
        r = trend.correlation
        interval = "" if math.isnan(r.low) else f" [{r.low:.2f}, {r.high:.2f}]"
        value = "undefined" if math.isnan(r.value) else f"{r.value:.2f}{interval}, n = {r.n}"
        result.append(f"  {name:{width}}  {value}{remarks.get(column, '')}")
    if found.median:
        result.append(
            f"{clean} > {asked:g}: {found.exceeding} models, too few; from the median on instead"
        )
    among = f"{clean} {'>=' if found.median else '>'} {found.above:.4g}"
    lines = [
        *result,
        f"{adversarial} of the {len(found.accurate)} with {among}:",
        f"  mean {found.mean:.1%}, range {100 * found.range:.1f} points "
        f"({found.accuracies.min():.1%} to {found.accuracies.max():.1%}), "
        f"standard deviation {100 * found.deviation:.1f} points",
    ]
    return [*lines, f"  {remarks['accurate']}"] if "accurate" in remarks else lines


def _with_averages(frame: pd.DataFrame, found: TrendStatistics) -> pd.DataFrame:
    """Return the models with their running averages, and whether they are accurate ones."""
    frame = frame.copy()
    trends = {"average_by_clean": found.by_clean, "average_by_parameters": found.by_parameters}
    for name, trend in trends.items():
        if trend is not None:
            frame.loc[trend.rows, name] = trend.average
    frame["accurate"] = frame.index.isin(found.accurate)
    return frame.loc[sorted(found.by_clean.rows)]


# ------------------------------------------------------------------------------------------- parts


def _rows(table: Path, *, trust: bool) -> tuple[pd.DataFrame, Collection[str], bool]:
    """Return one row a model, a run's objectives, and whether the rows are trials."""
    objectives: Collection[str] = ()
    if table.is_dir():
        run = Run(table)
        objectives, rows = run.legend.objectives, run.table()
    else:
        rows = read_csv(table, "a run directory or a CSV file")
    trials = set(LEADING) <= set(rows.columns)
    if trust and not trials:
        raise InputError(f"--trust: expected a run or its trial table, got {table}")
    if trials:
        rows = trusted(rows) if trust else rows
        rows = rows[rows["status"] == "complete"]
        if "repeat_of" in rows:
            rows = rows[rows["repeat_of"].isna()]
        if len(rows) < FEWEST:
            which = "complete trials without a raised flag" if trust else "complete trials"
            raise InputError(f"{table}: expected at least {FEWEST} {which}, got {len(rows)}")
    return rows, objectives, trials


def _column(numeric: Sequence[str], option: str, asked: str | None, usual: Sequence[str]) -> str:
    """Return the column that was asked for, else the first usual one."""
    for name in [asked] if asked is not None else usual:
        if name in numeric:
            return name
    got = repr(asked) if asked is not None else f"no {' or '.join(dict.fromkeys(usual))}"
    known = known_names(asked or usual[0], plain_names(numeric))
    raise InputError(f"{option}: expected a column of numbers ({known}), got {got}")


def _to_shares(frame: pd.DataFrame, names: Mapping[str, str], *, percent: bool) -> list[str]:
    """Divide accuracies in percent by 100, in place; return what a user is told of it.

    Raises:
        InputError: numbers that are no accuracies.
    """
    units = {}
    for column in (CLEAN, ADVERSARIAL):
        low, high = frame[column].min(), frame[column].max()
        units[column] = "percent" if percent and high > PERCENT else "[0, 1]"
        most = 100 if units[column] == "percent" else 1
        if low < 0 or high > most:
            expected = "[0, 1] or percent" if percent else "[0, 1]"
            raise InputError(
                f"{names[column]}: expected accuracies in {expected}, got {low:g} to {high:g}"
            )
        frame[column] /= most
    if "percent" not in units.values():
        return []
    return [", ".join(f"{names[c]} taken as in {unit}" for c, unit in units.items())]
