"""Judges: attacks that the best of a search are scored by again, as a command names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.config.config import Config
from launch.config.metrics import Entry, build_metric, metric_settings
from metrics.metric import Metric
from metrics.robustness.scores import Suspicion
from nas.analysis.judgement import ACCURACY, stated_passes
from nas.errors import InputError
from nas.ledger.judged import Judgement

DEFAULT: tuple[Entry, ...] = ({"name": "cascade"},)
"""FGSM, PGD of 20 steps and Auto-PGD of 100, each on what the ones before it left."""

SUSPICION = "suspicion"


@dataclass(frozen=True)
class Judge:
    """An attack with its settings, and what is known of it before it begins.

    Attributes:
        metric: what scores.
        settings: as ``config.yaml`` has them.
        images: at most so many validation images; None: all.
    """

    metric: Metric
    settings: Mapping[str, Any]
    images: int | None

    @property
    def label(self) -> str:
        """Begins the names of its scores; suspicion flags have whole names."""
        return self.metric.prefix or SUSPICION

    @property
    def known_by(self) -> dict[str, Any]:
        """What tells it from another judge."""
        return {"metric": dict(self.settings), "images": self.images}

    @property
    def passes(self) -> float:
        """How many passes it may spend on an image."""
        return stated_passes(self.settings)


def build_judges(config: Config, entries: Sequence[Entry], images: int | None) -> list[Judge]:
    """Return the judges of some metrics; an attack without an epsilon gets the search's.

    Raises:
        InputError: no such metric or setting, one of an earlier stage or without an accuracy, or
            two of one name.
    """
    epsilon = config.recipe.epsilon if config.recipe.norm == "linf" else None
    judges = []
    for entry in entries or DEFAULT:
        metric = build_metric(entry, epsilon)
        accuracy = f"{metric.prefix}{ACCURACY}" in metric.score_names
        if metric.stage != "end" or not (accuracy or isinstance(metric, Suspicion)):
            raise InputError(
                f"--attack: expected one that gives an accuracy of a finished model, such as apgd "
                f"or cascade, or suspicion, got {metric.prefix or type(metric).__name__}"
            )
        judges.append(Judge(metric, metric_settings(entry, metric), images))
    labels = [judge.label for judge in judges]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise InputError(
            f"--attack: expected different names, got {', '.join(sorted(twice))} twice: "
            "tell them apart with as: NAME"
        )
    return judges


def check_names(known: Sequence[Judgement], judges: Sequence[Judge]) -> None:
    """Refuse a judge whose columns another one has: their numbers could not be told apart."""
    for judge in judges:
        for earlier in known:
            if earlier.label == judge.label and earlier.judge != judge.known_by:
                raise InputError(
                    f"--attack: {judge.label} has judged trial {earlier.number} with other "
                    f"settings ({_told(earlier.judge)}): tell this one apart with as: NAME"
                )


def _told(judge: Mapping[str, Any]) -> str:
    settings = {k: v for k, v in judge["metric"].items() if v is not None and k != "attacks"}
    told = [f"{name} {value}" for name, value in settings.items()]
    return ", ".join([*told, f"images {judge['images'] or 'all'}"])
