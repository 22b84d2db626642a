"""Scores of a finished model on test images: an export, a trial, or anybody's callable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from launch.config.config import Config, parse_config
from launch.config.metrics import Entry, metric_settings, without_epsilon
from launch.config.versions import process_versions
from launch.runs.outside import Wrapping
from launch.runs.over_epsilon import ATTACK, curve_over, read_epsilons
from launch.runs.subject import UNWRAPPED, subject
from metrics.metric import Metric
from metrics.robustness.scores import Suspicion
from nas.device import choose_device
from nas.errors import InputError
from nas.seeds import derive_seed
from nas.trial.scoring import metric_key, score

SUITES: dict[str, list[Any]] = {"standard": ["clean", "autoattack"]}
"""Metrics by a name that stands for all of them."""


@dataclass(frozen=True)
class Scored:
    """Scores, and what they are of.

    Attributes:
        scores: of the model.
        of: ``model``, ``dataset``, ``split``, ``images`` (how many), ``seed``, ``device``,
            ``metrics`` (each one's name, settings and ``images``), ``checksum`` of the part of the
            dataset, ``versions``, ``device_name`` and ``seconds``; of somebody's own model also
            ``weights``, ``normalise`` and ``size``.
        curve: robust accuracy over epsilon (:func:`launch.runs.over_epsilon.curve_over`).
    """

    scores: dict[str, float]
    of: dict[str, Any]
    curve: dict[str, Any] | None = None

    def to_json(self) -> str:
        """Return scores, ``of`` and ``curve``, as strict JSON: a number not finite is null."""
        finite = {k: v if math.isfinite(v) else None for k, v in self.scores.items()}
        curve = {} if self.curve is None else {"curve": self.curve}
        return json.dumps({**finite, "of": self.of, **curve}, indent=2, allow_nan=False)


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
    suite: str | None = None,
    curve: str | None = None,
    attack: str | None = None,
    wrapping: Wrapping = UNWRAPPED,
    device: str | None = None,
    threads: int | None = None,
) -> Scored:
    """Return the scores of a model.

    Args:
        target: an export's directory, ``RUN:TRIAL``, or somebody's own model, which maps images in
            [0, 1] to logits (:func:`launch.runs.outside.own_model`).
        data: dataset; None is what the model was trained on.
        metrics: comma-separated names, or a YAML list; None is what the search measured.
        epsilon: L infinity radius of attacks that name none; None is the recipe's. An attack in L2
            names its own.
        test: use test images, else the validation images of the search.
        limit: at most so many images.
        seed: of random starts.
        suspicion: also score the suspicion flags.
        suite: of ``SUITES``, in place of metrics.
        curve: comma-separated epsilons of a curve; without metrics or suite, next to clean
            accuracy alone.
        attack: of the curve, a name or a YAML mapping.
        wrapping: of somebody's own model.
        device: ``cpu`` or ``cuda``; None takes a GPU where there is one.
        threads: of torch on the CPU; None leaves them.

    Raises:
        InputError: no such model, dataset or metric, or images that do not fit the model.
    """
    if suite is not None and (metrics is not None or suite not in SUITES):
        got = f"--metrics and --suite {suite}" if suite in SUITES else repr(suite)
        raise InputError(f"--suite: expected one of {', '.join(SUITES)}, without --metrics, "
                         f"got {got}")  # fmt: skip
    epsilons = None if curve is None else read_epsilons(curve)
    entry = _attack(ATTACK if attack is None else attack)
    found = subject(target, wrapping)
    document = found.document(data)
    if suite is not None:
        document["metrics"] = SUITES[suite]
    elif curve is not None and metrics is None:
        document["metrics"] = ["clean"]
    elif metrics is not None:
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
    device = device or choose_device()
    images, labels, checksum = found.part(config.data, test=test, limit=limit)
    if threads is not None:
        torch.set_num_threads(threads)
    model, images, labels = found.model.to(device), images.to(device), labels.to(device)
    named = _of_finished_models(config, asked=metrics is not None)
    began = time.monotonic()
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
        "checksum": checksum,
        **found.made,
        "versions": process_versions(),
        "device_name": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    scores = score(model, images, labels, tuple(m for _, m in named), seeds)
    over = None
    if epsilons is not None:
        own = derive_seed(seed, "curve")
        over = curve_over(model, images, labels, entry, epsilons, own)
    of["seconds"] = round(time.monotonic() - began, 3)
    return Scored(scores, of, over)


def _metrics(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",")]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--metrics: expected a YAML list, got {text!r}") from error


def _attack(text: str) -> Any:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, str | Mapping):
        raise InputError(f"--attack: expected a name or '{{name: pgd, steps: 20}}', got {text!r}")
    return found


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
