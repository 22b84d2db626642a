"""The winner by the strongest judge that all candidates had: attack strength as a fidelity.

A search scores hundreds of trials with a cheap attack. ``psinas judge`` scores the best of them
again with stronger ones, and an accuracy under a stronger attack is nearer the truth, never above
it. Accuracies under different attacks are not comparable, so the choice is among trials that share
a judge: :func:`judge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from nas.errors import InputError
from nas.ledger.judged import IMAGES, PASSES, PREFIX
from nas.search.trust import suspicions

ACCURACY, LOW, HIGH = "_accuracy", "_accuracy_low", "_accuracy_high"


@dataclass(frozen=True)
class Verdict:
    """Who wins before the strongest judge that all candidates had, and why.

    Attributes:
        winner: number of the trial; None where no judge had them all.
        judge: label of the judge, such as ``apgd``.
        score: the column that decided.
        passes: what the judge may spend on an image, forwards and backwards.
        images: on how many validation images, of the trial with the fewest.
        candidates: numbers of the trials that were compared, best first.
        level: of those the ones that the images do not tell from the winner: their intervals
            overlap its own.
        flagged: number -> raised suspicion flags; such a trial wins only where every one has some.
        lacking: judge -> candidates that it has not judged, for the judges that were passed over.
        why: the same in sentences.
    """

    winner: int | None
    judge: str | None = None
    score: str | None = None
    passes: float = math.nan
    images: int = 0
    candidates: tuple[int, ...] = ()
    level: tuple[int, ...] = ()
    flagged: Mapping[int, Sequence[str]] = field(default_factory=dict)
    lacking: Mapping[str, Sequence[int]] = field(default_factory=dict)
    why: tuple[str, ...] = ()


def stated_passes(metric: Mapping[str, Any]) -> float:
    """Return how many passes through the model an attack may spend on an image.

    As its settings state them, forwards and backwards each one: it may end sooner. A step of a
    gradient attack is one forwards and one back, a query or draw one forwards. Attacks in a row
    (``attacks``) add up; what has ``steps``, ``targets`` and ``queries`` together is counted as
    AutoAttack: Auto-PGD, targeted Auto-PGD, targeted FAB with a third pass a step, and Square.

    Args:
        metric: name and settings, as ``config.yaml`` resolves them.
    """
    if "attacks" in metric:
        return sum(stated_passes(attack) for attack in metric["attacks"])
    steps, targets = float(metric.get("steps") or 0), float(metric.get("targets") or 1)
    looks = float(metric.get("queries") or 0) + float(metric.get("draws") or 0)
    starts = float(metric.get("restarts") or 1)
    if steps and "targets" in metric and "queries" in metric:
        return 2.0 * steps + (2 + 3) * steps * targets + looks
    if steps:
        return 2.0 * steps * starts * targets + looks
    if looks:
        return looks
    return 2.0 if "epsilon" in metric else 1.0


def judge(table: pd.DataFrame, among: Sequence[int] | None = None) -> Verdict:
    """Return the winner by the strongest judge that all candidates had, and why.

    Strength is the stated number of passes an image (``judge_<label>_passes``), of equals the
    number of images. The winner has the best lower end of its accuracy's interval, the earlier of
    equals; a trial with a raised suspicion flag, the search's or a judge's, wins only where every
    candidate has some.

    Args:
        table: a trial table (:func:`nas.analysis.load_table`) with columns of judges.
        among: numbers of the candidates; None is every complete trial that some judge had.

    Raises:
        InputError: a table without judges, or a candidate that is not in it or not complete.
    """
    labels = [
        str(name).removeprefix(PREFIX).removesuffix(PASSES)
        for name in table.columns
        if str(name).startswith(PREFIX) and str(name).endswith(PASSES)
    ]
    labels = [label for label in labels if f"{PREFIX}{label}{ACCURACY}" in table]
    if not labels:
        raise InputError("expected a table with scores of judges, got none: psinas judge RUN")
    complete = table[table["status"] == "complete"].set_index("number", drop=False)
    if among is None:
        some = complete[[f"{PREFIX}{label}{ACCURACY}" for label in labels]].notna().any(axis=1)
        among = [int(n) for n in complete.index[some]]
    if unknown := [number for number in among if number not in complete.index]:
        raise InputError(f"among: expected complete trials, got {unknown[0]}")
    rows = complete.loc[list(dict.fromkeys(among))]
    lacking: dict[str, list[int]] = {}
    for label in sorted(labels, key=lambda label: _strength(rows, label), reverse=True):
        missing = rows.index[rows[f"{PREFIX}{label}{ACCURACY}"].isna()]
        if len(rows) and not len(missing):
            return _chosen(rows, label, lacking)
        lacking[label] = [int(number) for number in missing]
    why = [_lacks(label, missing) for label, missing in lacking.items()]
    return Verdict(
        None,
        candidates=tuple(int(n) for n in rows.index),
        lacking=lacking,
        why=("No judge had every candidate, so none of their accuracies can be compared.", *why),
    )


# ------------------------------------------------------------------------------------------- parts


def _strength(rows: pd.DataFrame, label: str) -> tuple[float, float]:
    passes, images = rows[f"{PREFIX}{label}{PASSES}"].max(), rows[f"{PREFIX}{label}{IMAGES}"].min()
    return (0.0 if pd.isna(passes) else float(passes), 0.0 if pd.isna(images) else float(images))


def _chosen(rows: pd.DataFrame, label: str, lacking: Mapping[str, Sequence[int]]) -> Verdict:
    score = f"{PREFIX}{label}{ACCURACY}"
    accuracy = rows[score]
    low = rows.get(f"{PREFIX}{label}{LOW}", accuracy)
    high = rows.get(f"{PREFIX}{label}{HIGH}", accuracy)
    flags = {
        int(row["number"]): suspicions({str(k): v for k, v in row.items()})
        for row in rows.to_dict("records")
    }
    flagged = {number: names for number, names in flags.items() if names}
    all_of_them = len(flagged) == len(rows)
    order = sorted(
        (int(n) for n in rows.index),
        key=lambda n: (n in flagged, -float(low[n]), -float(accuracy[n]), n),
    )
    winner = order[0]
    level = tuple(n for n in order[1:] if high[n] >= low[winner] and low[n] <= high[winner])
    passes, images = _strength(rows, label)
    had = f"all {len(rows)} candidates had" if len(rows) > 1 else "the only candidate had"
    why = [
        *(_lacks(label, missing) for label, missing in lacking.items()),
        f"{label} ({passes:g} passes an image, {images:g} validation images) is the strongest "
        f"judge that {had}.",
        f"Trial {winner} has the best lower end: {accuracy[winner]:.4g} "
        f"[{low[winner]:.4g}, {high[winner]:.4g}].",
    ]
    if level:
        named = ", ".join(map(str, level))
        why.append(
            f"These images do not tell it from {'trial' if len(level) == 1 else 'trials'} {named}: "
            "the intervals overlap. They say nothing of other seeds: psinas seeds."
        )
    for number, names in flagged.items():
        if all_of_them:
            why.append(f"Trial {number} is suspicious, as is every other: {', '.join(names)}.")
        elif low[number] > low[winner]:
            why.append(
                f"Trial {number} has {accuracy[number]:.4g} but is suspicious "
                f"({', '.join(names)}): it does not win."
            )
    return Verdict(
        winner,
        label,
        score,
        passes,
        int(images),
        tuple(order),
        level,
        flagged,
        lacking,
        tuple(why),
    )


def _lacks(label: str, missing: Sequence[int]) -> str:
    whom = f"{'trial' if len(missing) == 1 else 'trials'} {', '.join(map(str, missing))}"
    return f"{label} is passed over: it has not judged {whom}."
