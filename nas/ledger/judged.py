"""Scores that a finished trial got later, from its kept weights: what a stronger attack left of it.

The result of a trial never changes. What is found out later stands beside it in the study, as one
attribute for each trial and judge, in whatever storage the study has; a version that does not know
of judges passes over it. Tables show it in columns of their own, ``judge_<score>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nas.seeds import settings_hash

JUDGED = "judged:"
"""Begins the names of the attributes: ``judged:<number of the trial>:<id of the judge>``."""

PREFIX = "judge_"
"""Begins the names of the columns."""

IMAGES, PASSES = "_images", "_passes"
"""End the names of two more columns of a judge: on how many images, and by what budget."""


@dataclass(frozen=True)
class Judgement:
    """What one judge found of one trial.

    Attributes:
        number: of the trial.
        key: of the trial, whose weights were judged.
        label: of the judge; begins the names of its scores.
        judge: what tells it from another: a metric with its settings, and images.
        scores: its scores, under their own names.
        images: how many validation images it looked at.
        passes: what it may spend on an image; see :func:`nas.analysis.judgement.stated_passes`.
    """

    number: int
    key: str
    label: str
    judge: Mapping[str, Any]
    scores: Mapping[str, float]
    images: int
    passes: float

    @property
    def attribute(self) -> str:
        """The name of its attribute in the study."""
        return f"{JUDGED}{self.number}:{judge_id(self.judge)}"

    @property
    def columns(self) -> dict[str, float]:
        """Its columns of the trial table."""
        own = {f"{PREFIX}{name}": float(value) for name, value in self.scores.items()}
        begin = f"{PREFIX}{self.label}"
        return {**own, f"{begin}{IMAGES}": float(self.images), f"{begin}{PASSES}": self.passes}

    def to_dict(self) -> dict[str, Any]:
        """Return what the study keeps."""
        return {name: value for name, value in vars(self).items() if name != "number"}


def judge_id(judge: Mapping[str, Any]) -> str:
    """Return 16 hex digits that tell a judge from another."""
    return settings_hash(judge)


def judgements(attributes: Mapping[str, Any]) -> list[Judgement]:
    """Return what a study's attributes hold, in their order; what is none is passed over."""
    found = []
    for name, value in attributes.items():
        number = name.removeprefix(JUDGED).partition(":")[0]
        if name.startswith(JUDGED) and number.isdecimal() and isinstance(value, Mapping):
            try:
                found.append(Judgement(int(number), **value))
            except TypeError:  # of a later version
                continue
    return found


def of_trial(every: Iterable[Judgement], number: int, key: str | None) -> dict[str, float]:
    """Return the columns that judges gave a trial."""
    columns: dict[str, float] = {}
    for judgement in every:
        if judgement.number == number and judgement.key == key:
            columns |= judgement.columns
    return columns
