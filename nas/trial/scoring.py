"""Scores of a model: every metric with random draws of its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from metrics.engine.sharing import sharing
from metrics.metric import Metric
from metrics.precision import full_float32
from nas.seeds import settings_hash


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
