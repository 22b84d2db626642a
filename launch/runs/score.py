"""Scores of a finished model on test images: an export, a trial, or anybody's callable."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from launch.config.config import Config, parse_config
from launch.config.metrics import Entry, metric_settings, without_epsilon
from launch.runs.subject import subject
from metrics.metric import Metric
from metrics.robustness.scores import Suspicion
from nas.device import choose_device
from nas.errors import InputError
from nas.seeds import derive_seed
from nas.trial.scoring import metric_key, score


@dataclass(frozen=True)
class Scored:
    """Scores, and what they are of.

    Attributes:
        scores: of the model.
        of: ``model``, ``dataset``, ``split``, ``images`` (how many), ``seed``, ``device``, and
            ``metrics``: each one's name, settings and ``images``.
    """

    scores: dict[str, float]
    of: dict[str, Any]

    def to_json(self) -> str:
        """Return scores, and ``of``, as strict JSON: a number that is not finite is null."""
        finite = {k: v if math.isfinite(v) else None for k, v in self.scores.items()}
        return json.dumps({**finite, "of": self.of}, indent=2, allow_nan=False)


def score_model(
    target: str,
    *,
    data: str | None,
    metrics: str | None,
    epsilon: str | None,
    test: bool,
    limit: int | None,
    seed: int,
    suspicion: bool = False,
    device: str | None = None,
    threads: int | None = None,
) -> Scored:
    """Return the scores of a model.

    Args:
        target: an export's directory, ``RUN:TRIAL`` or ``pkg.module:callable``, which returns a
            module that maps images in [0, 1] to logits.
        data: dataset; None is what the model was trained on.
        metrics: comma-separated names, or a YAML list; None is what the search measured.
        epsilon: L infinity radius of attacks that name none; None is the recipe's. An attack in L2
            names its own.
        test: use test images, else the validation images of the search.
        limit: at most so many images.
        seed: of random starts.
        suspicion: also score the suspicion flags.
        device: ``cpu`` or ``cuda``; None takes a GPU where there is one.
        threads: of torch on the CPU; None leaves them.

    Raises:
        InputError: no such model, dataset or metric, or images that do not fit the model.
    """
    found = subject(target)
    document = found.document(data)
    if metrics is not None:
        document["metrics"] = _metrics(metrics)
    elif epsilon is not None:  # the metrics that the search measured carry its epsilon
        document["metrics"] = [
            without_epsilon(metric) for metric in found.known.get("metrics", ())
        ] or Config().metrics
    if epsilon is not None:
        document["recipe"] = {"epsilon": epsilon}
    config = parse_config(document)
    if suspicion and not any(isinstance(m, Suspicion) for m in config.built_metrics()):
        config = parse_config({**document, "metrics": [*config.metrics, "suspicion"]})
    images, labels = found.images(config.data, test=test, limit=limit)
    device = device or choose_device()
    if threads is not None:
        torch.set_num_threads(threads)
    model, images, labels = found.model.to(device), images.to(device), labels.to(device)
    named = _of_finished_models(config, asked=metrics is not None)
    seeds = {metric_key(m): derive_seed(seed, metric_key(m)) for _, m in named}
    n = len(labels)
    of = {
        "model": target,
        "dataset": config.data.name,
        "split": "test" if test else "validation",
        "images": n,
        "seed": seed,
        "device": device,
        "metrics": [{**metric_settings(e, m), "images": min(n, m.limit or n)} for e, m in named],
    }
    return Scored(score(model, images, labels, tuple(m for _, m in named), seeds), of)


def _metrics(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",")]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--metrics: expected a YAML list, got {text!r}") from error


def _of_finished_models(config: Config, *, asked: bool) -> Sequence[tuple[Entry, Metric]]:
    """Return entries and metrics, none of an earlier stage of training; refuse asked-for ones."""
    built = list(zip(config.metrics, config.built_metrics(), strict=True))
    early = [m.prefix for _, m in built if m.stage != "end"]
    if asked and early:
        raise InputError(
            f"--metrics: expected metrics of a finished model, got {', '.join(early)}, measured "
            "before or during training"
        )
    if not (finished := [(entry, m) for entry, m in built if m.stage == "end"]):
        raise InputError(
            f"expected metrics of a finished model, got only {', '.join(early)}: name some with "
            "--metrics"
        )
    return finished
