"""Trained models compared on the same inputs: those that every one of them gets right.

A model's Ψ̂ on inputs that it gets wrong says little, and on other inputs than the next model's it
cannot be compared. So the inputs are chosen once for all models and recorded in the run directory,
with the models that chose them; what is measured of each model is kept beside its weights, so that
an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metrics.robustness.accuracy import correct
from metrics.susceptibility import (
    log_radii,
    robustness_radius,
    susceptibility,
    susceptibility_limit,
)
from metrics.susceptibility.means import bootstrap, geometric_mean, saturates
from nas.errors import InputError
from nas.files import write_whole
from nas.seeds import derive_seed, value_hash
from nas.trial.files import trial_directory

COMMON = "common-correct.json"
MEASURED = "susceptibility.json"
RADII = log_radii(1e-5, 1e-1, 13)  # three a decade
MIDDLE = slice(3, 10)  # 1e-4 ... 1e-2: of which Ψ̂ is the mean
FEWEST = 4  # inputs, under which there is nothing to compare


@dataclass(frozen=True)
class CommonCorrect:
    """The inputs of a comparison.

    Attributes:
        models: trial number -> accuracy on all images.
        left_out: the same, of models that are hardly better than chance and would leave no input.
        images: how many images there were.
        correct: how many of them every model gets right.
        indices: of the chosen ones, the first of those.
    """

    models: dict[int, float]
    left_out: dict[int, float]
    images: int
    correct: int
    indices: tuple[int, ...]

    @property
    def hash(self) -> str:
        """16 hex digits of models and inputs."""
        return value_hash(self)


def common_correct(
    models: Mapping[int, nn.Module], images: Tensor, labels: Tensor, count: int
) -> CommonCorrect:
    """Choose the first ``count`` images that every model gets right.

    Models with less than twice the accuracy of guessing (of two and three classes, less than half
    the way from there to 1) are left out, and named.

    Args:
        models: by trial number.
        images: ``(N, C, H, W)`` in [0, 1], in the order in which they are chosen.
        labels: ``(N,)``.
        count: how many are wanted; fewer are returned where there are no more.

    Raises:
        InputError: no model that is better than guessing, or fewer than four common images.
    """
    masks = {number: correct(model, images, labels) for number, model in models.items()}
    accuracies = {number: mask.double().mean().item() for number, mask in masks.items()}
    guessing = 1 / len(labels.unique())
    enough = min(2 * guessing, (1 + guessing) / 2)
    usable = {n: a for n, a in accuracies.items() if a > enough}
    if not usable:
        raise InputError(
            f"expected models that are better than guessing ({guessing:.3g}), got accuracies of "
            f"{', '.join(f'{a:.3g}' for a in accuracies.values()) or 'none'}"
        )
    common = torch.stack([masks[n] for n in usable]).all(dim=0).nonzero().squeeze(1)
    if len(common) < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} images that all {len(usable)} models get right, got "
            f"{len(common)} of {len(labels)}"
        )
    return CommonCorrect(
        usable,
        {n: a for n, a in accuracies.items() if n not in usable},
        len(labels),
        len(common),
        tuple(common[:count].tolist()),
    )


def recorded_common(
    run: Path,
    models: Mapping[int, nn.Module],
    data: str,
    choose: Callable[[], CommonCorrect],
) -> CommonCorrect:
    """Return the inputs recorded in a run directory, or choose and record them.

    A record of other models or data (a search that went on, say) is replaced.

    Args:
        run: the run directory.
        models: by trial number.
        data: what decides the images, as a hash.
        choose: called where there is no record.
    """
    path = run / COMMON
    asked = {"data": data, "trials": sorted(models)}
    record = _record(path)
    if record.get("asked") == asked:
        return _read(record["chosen"])
    chosen = choose()
    text = json.dumps({"asked": asked, "chosen": asdict(chosen)}, indent=1) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return chosen


def measure(run: Path, number: int, model: nn.Module, images: Tensor, key: str) -> dict[str, Any]:
    """Return what Table 3 and Figures 3, 6 and 7 need of one model, measured once.

    Args:
        run: the run directory.
        number: of the trial.
        model: in the state to be measured.
        images: the common-correct ones.
        key: of images and models; what was measured under another one is measured again.

    Returns:
        ``psi``, ``psi_low``, ``psi_high``, ``psi_saturated`` over radii 1e-4 to 1e-2;
        ``psi_limit``; ``doubtful``, the number of ψ that are 0, not finite, or lost in rounding;
        ``radius_mean`` and ``radius_min``, the estimated robustness radius; and lists over
        ``radii``, 1e-5 to 1e-1: ``psi_at`` and ``accuracy_at``, the post-attack accuracy.
    """
    path = trial_directory(run, number) / MEASURED
    kept = _record(path)
    if kept.pop("key", None) == key:
        return kept
    generator = torch.Generator(device=images.device).manual_seed(derive_seed(0, key, "Ψ"))
    ladder = susceptibility(model, images, radii=RADII, generator=generator)
    middle = ladder.psi[MIDDLE]
    low, high = bootstrap(middle)
    value = geometric_mean(middle.flatten()).item()
    if (middle == 0).any():  # an input that nothing moves has no ratio
        value = low = high = math.nan
    limit = susceptibility_limit(model, images, generator=generator)
    radius = robustness_radius(model, images, value)
    found = {
        "psi": value,
        "psi_low": low,
        "psi_high": high,
        "psi_saturated": saturates(geometric_mean(middle)),
        "psi_limit": math.nan if (limit == 0).any() else geometric_mean(limit).item(),
        "doubtful": max(ladder.underflows, ladder.cancelled) + ladder.nonfinite,
        "radius_mean": radius.mean,
        "radius_min": radius.minimum,
        "radii": list(RADII),
        "psi_at": list(ladder.per_radius),
        "accuracy_at": [1 - v for v in ladder.flipped.double().mean(dim=1).tolist()],
    }
    text = json.dumps({"key": key, **found}) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return found


def _record(path: Path) -> dict[str, Any]:
    """Return a record, or nothing where there is none that can be read: it is made again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(chosen: dict[str, Any]) -> CommonCorrect:
    numbered = {k: {int(n): a for n, a in chosen[k].items()} for k in ("models", "left_out")}
    return CommonCorrect(**{**chosen, **numbered, "indices": tuple(chosen["indices"])})
