"""The trained nets of a run on test images: lower bounds and attacks, measured once a net."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trained_trials, trial_model
from launch.show.reporter import Reporter
from metrics import correct, minimal_fgsm
from metrics.answers import answer, gradient_of, margin_loss, temperatures
from metrics.bounds.gains.form import MODES
from metrics.bounds.lower import LowerBounds, lower_bounds
from metrics.bounds.scores import BracketEnds
from nas.data.arrays import Split, prepare_test
from nas.data.datasets import load_test_images
from nas.device import choose_device
from nas.files import read_kept, write_whole
from nas.seeds import settings_hash
from nas.trial.files import trial_directory

MEASURED = "bounds.json"
LIMIT = 100 / 255  # of the attack: 100 on pixels of 0 ... 255
TOLERANCE = 0.01 / 255
AT_ONCE = 256
SEED = 2017  # of the attacks of the bracket


@dataclass(frozen=True)
class Ends:
    """Both ends of the smallest perturbation of the first test images, wrong ones at 0.

    Attributes:
        norm, epsilon: of the run's metric ``bracket``.
        chain: lower bounds, layer by layer.
        lower: the better of these and linear relaxation.
        upper: attacks; infinity where none was found.
        linear: share of images whose bound is that of linear relaxation.
    """

    norm: str
    epsilon: float
    chain: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    linear: float


@dataclass(frozen=True)
class Layer:
    """What one layer did to the bound; ``gain`` is NaN where it depends on the image."""

    name: str
    formula: str
    gain: float
    source: str
    valid: bool
    note: str


@dataclass(frozen=True)
class Measured:
    """One net on test images.

    The smallest perturbation is that which changes the net's answer, right or wrong, as the paper
    has it. Norms and bounds are plain L2 of pixels in [0, 1].

    Attributes:
        run: the name of its search.
        number: of the trial.
        recipe: how it was trained: the adversary, and its epsilon.
        right, tested: all test images, and how many of them it gets right.
        images: how many of them the bounds and attacks are of.
        pixels: d.
        attacks: ``images`` L2 norms of the images that the fast gradient sign found, as they are
            stored, so an upper bound; infinity where none was found.
        steps: the same by the paper's formula: epsilon sqrt(non-zero entries of the gradient).
        bounds: mode -> ``images`` bounds, layer by layer.
        certified: mode -> whether all formulas used hold.
        layers: mode -> what was used, from the logits to the images.
        ends: of a run with the metric ``bracket``.
    """

    run: str
    number: int
    recipe: str
    right: int
    tested: int
    images: int
    pixels: int
    attacks: tuple[float, ...]
    steps: tuple[float, ...]
    bounds: Mapping[str, tuple[float, ...]]
    certified: Mapping[str, bool]
    layers: Mapping[str, tuple[Layer, ...]]
    ends: Ends | None

    @property
    def attacked(self) -> list[int]:
        """Images that the attack found a perturbation for; the paper leaves the others out."""
        return [i for i, size in enumerate(self.attacks) if math.isfinite(size)]

    def violations(self, mode: str) -> int:
        """Count the images with an attack below their bound."""
        return sum(self.attacks[i] < self.bounds[mode][i] for i in self.attacked)

    def ratios(self, mode: str) -> list[float]:
        """Return log10(||eta|| / kappa) of every attacked image (Figure 4); infinity of bound 0."""
        pairs = ((self.attacks[i], self.bounds[mode][i]) for i in self.attacked)
        return [math.log10(a / b) if a > 0 and b > 0 else math.inf for a, b in pairs]


def measured(run: Run, report: Reporter) -> list[Measured]:
    """Return what was measured of every complete trial, on at most ``data.limit.test`` images.

    What has been measured under the same settings is read from the trial's directory.

    Raises:
        InputError: no complete trial, or one whose weights are gone.
    """
    rows = trained_trials(run)
    metric = next((m for m in run.config.built_metrics() if isinstance(m, BracketEnds)), None)
    found = []
    for place, row in enumerate(rows, start=1):
        key = settings_hash(
            {
                "trial": row.trial.key,
                "test": row.trial.data.limit.test,
                "bracket": metric and metric.settings(),
                "limit": LIMIT,
            }
        )
        path = trial_directory(run.path, row.number) / MEASURED
        kept = read_kept(path, key)
        if kept is None:
            kept = _measure(run, row, metric)
            text = json.dumps({"key": key, **kept}) + "\n"
            write_whole(path, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        found.append(_read(run.config.name, row, kept))
        report.say(
            f"[{place}/{len(rows)}] {run.config.name}, trial {row.number}: " + _brief(found[-1])
        )
    return found


def _measure(run: Run, row: FinishedTrial, metric: BracketEnds | None) -> dict[str, Any]:
    device, data = choose_device(), row.trial.data
    model = trial_model(run, row).to(device)
    every = replace(data, limit=replace(data.limit, test=None))
    split = prepare_test(load_test_images(data), every, device)
    right = correct(model, split.images(), split.labels)
    images = split.images(slice(data.limit.test))
    with torch.no_grad():
        answers = torch.cat([answer(model, x).argmax(dim=1) for x in images.split(AT_ONCE)])
    attack = minimal_fgsm(model, images, answers, limit=LIMIT, tolerance=TOLERANCE)
    found = attack.size.isfinite()
    norms = (attack.images.double() - images.double()).flatten(1).norm(dim=1)
    steps = attack.size * _nonzero(model, images, answers).double().sqrt()
    bounds = {mode: lower_bounds(model, images, answers, mode=mode, linear=False) for mode in MODES}
    return {
        "right": int(right.sum()),
        "tested": len(right),
        "pixels": images[0].numel(),
        "attacks": _plain(norms.where(found, torch.inf)),
        "steps": _plain(steps),
        "bounds": {mode: _plain(bound.radius) for mode, bound in bounds.items()},
        "certified": {mode: bound.certified for mode, bound in bounds.items()},
        "layers": {mode: _layers(bound) for mode, bound in bounds.items()},
        "ends": None if metric is None else _ends(model, split, metric),
    }


def _nonzero(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)``: how many pixels the sign of the gradient moves."""
    counts = []
    for x, y in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        x = x.detach().requires_grad_()
        logits = answer(model, x)
        gradient = gradient_of(margin_loss(logits / temperatures(logits), y).sum(), x)
        counts.append((gradient != 0).flatten(1).sum(dim=1))
    return torch.cat(counts)


def _layers(bound: LowerBounds) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "formula": layer.form.formula,
            "gain": None if math.isnan(layer.form.gain) else layer.form.gain,
            "source": layer.form.source,
            "valid": layer.valid,
            "note": layer.form.note,
        }
        for layer in bound.layers
    ]


def _ends(model: nn.Module, split: Split, metric: BracketEnds) -> dict[str, Any]:
    images, labels = split.images(slice(metric.limit)), split.labels[: metric.limit]
    draws = torch.Generator(images.device).manual_seed(SEED)
    found = metric.found(model, images, labels, draws)
    chain = lower_bounds(model, images, labels, norm=metric.norm, mode=metric.mode, linear=False)
    return {
        "norm": metric.norm,
        "epsilon": metric.epsilon,
        "chain": _plain(chain.radius),
        "lower": _plain(found.lower),
        "upper": _plain(found.upper),
        "linear": float(found.below.linear.double().mean()),
    }


def _plain(values: Tensor) -> list[float | None]:
    """Return numbers for JSON, which has no infinity."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _read(run: str, row: FinishedTrial, kept: Mapping[str, Any]) -> Measured:
    recipe = row.trial.recipe
    trained = "plain" if recipe.adversary == "none" else f"{recipe.adversary} {recipe.epsilon:.3g}"
    ends = kept["ends"]
    lists = ("chain", "lower", "upper")
    return Measured(
        run,
        row.number,
        trained,
        kept["right"],
        kept["tested"],
        len(kept["attacks"]),
        kept["pixels"],
        _numbers(kept["attacks"]),
        _numbers(kept["steps"]),
        {mode: _numbers(values) for mode, values in kept["bounds"].items()},
        kept["certified"],
        {
            mode: tuple(
                Layer(**{**layer, "gain": math.nan if layer["gain"] is None else layer["gain"]})
                for layer in layers
            )
            for mode, layers in kept["layers"].items()
        },
        ends and Ends(**{**ends, **{name: _numbers(ends[name]) for name in lists}}),
    )


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.inf if value is None else value for value in values)


def _brief(found: Measured) -> str:
    below = ", ".join(f"{mode} {found.violations(mode)}" for mode in MODES)
    return (
        f"{found.recipe}, right {found.right} of {found.tested} test images, attacks below a "
        f"bound: {below}"
    )
