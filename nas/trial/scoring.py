"""Scores of a model: every metric with random draws of its own."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from metrics.deadline import doing
from metrics.engine.memory import at_most
from metrics.engine.sharing import sharing
from metrics.metric import Metric
from metrics.precision import full_float32
from nas.data.arrays import Data
from nas.seeds import settings_hash
from nas.trial.trial import Trial
from search_spaces import InvalidArchitecture

SECONDS = "_seconds"  # ends the names of scores that are wall time, never the same twice


def score(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    metrics: tuple[Metric, ...],
    seeds: dict[str, int],
) -> dict[str, float]:
    """Return the scores of these metrics; each has its own generator, so order plays no part.

    All run in full float32 (TF32 keeps ten bits, too few for Ψ at small radii) and share one fast
    copy of the model and its clean answers.
    """
    scores: dict[str, float] = {}
    with full_float32(), sharing(model):
        for metric in metrics:
            generator = torch.Generator(device=labels.device).manual_seed(seeds[metric_key(metric)])
            scores.update(metric(model, images, labels, generator=generator))
    return scores


def metric_key(metric: Metric) -> str:
    """Return what tells a metric and its settings from any other."""
    name, settings = metric.identity()
    return f"{name}-{settings_hash(settings)}"


def not_finite(scores: dict[str, float], names: tuple[str, ...]) -> list[str]:
    """Return those of ``names`` that are missing from ``scores`` or not finite."""
    return [n for n in names if not math.isfinite(scores.get(n, math.nan))]


def score_stage(
    trial: Trial, model: nn.Module, data: Data, stage: str, micro_batch: int | None
) -> dict[str, float]:
    """Return the scores of the metrics of a stage; what early ones took is a score too."""
    scores: dict[str, float] = {}
    metrics = [m for m in trial.metrics if m.stage == stage]
    if not metrics:
        return scores
    x, y = data.validation.images(), data.validation.labels
    with sharing(model), at_most(micro_batch):
        for metric in metrics:
            started = time.perf_counter()
            key = metric_key(metric)
            doing(f"while scoring {metric.prefix or type(metric).__name__.lower()}")
            scores.update(score(model, x, y, (metric,), {key: trial.seed_for(key)}))
            if stage != "end":
                scores[f"{metric.prefix}{SECONDS}"] = time.perf_counter() - started
    return scores


def check_output(model: nn.Module, data: Data) -> None:
    """Run two images: a wrong shape is an invalid architecture, found before training."""
    expected = (min(2, len(data.validation)), data.task.classes)
    model.eval()
    with torch.no_grad():
        logits = model(data.validation.images(slice(2)))
    if tuple(logits.shape) != expected:
        raise InvalidArchitecture(f"expected logits of shape {expected}, got {tuple(logits.shape)}")
