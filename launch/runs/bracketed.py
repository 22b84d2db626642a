"""Both ends of the smallest perturbation of a finished model's images, one row an image."""

from __future__ import annotations

import pandas as pd
import torch

from launch.runs.subject import subject
from launch.show.bands import band
from launch.show.columns import aligned, beside
from launch.show.style import finished, panels
from launch.show.view import View
from metrics.bounds.both_ends import Bracket, median
from metrics.bounds.chain import LayerBound
from metrics.bounds.scores import BracketEnds
from metrics.robustness.accuracy import wilson
from nas.device import choose_device
from nas.errors import InputError
from nas.seeds import derive_seed

PURPOSE = "bracket"


def bracket_model(
    target: str,
    *,
    data: str | None,
    norm: str,
    epsilon: float | None,
    mode: str,
    linear: bool | None,
    budget: int,
    limit: int,
    test: bool,
    seed: int,
    layers: bool = False,
    device: str | None = None,
    threads: int | None = None,
) -> View:
    """Return the lower and upper bounds of a finished model's images.

    Args:
        target, data: as in :func:`launch.runs.score.score_model`.
        norm, mode, linear, budget: as in :func:`metrics.bounds.both_ends.bracket`.
        epsilon: radius of the shares that are certified, broken and unknown; None is the recipe's
            in L infinity, and in L2 none.
        limit: at most so many images.
        test: test images, else the validation images of the search.
        seed: of random starts.
        layers: also say what each layer did to the bound.
        device, threads: as in :func:`launch.runs.score.score_model`.

    Raises:
        InputError: no such model, images that do not fit, a layer that no bound is known for, a
            setting that is refused.
    """
    found = subject(target)
    config = found.config(data)
    if epsilon is None and norm == "linf" and found.known:
        epsilon = config.plan().template.recipe.epsilon
    settings = {"norm": norm, "mode": mode, "linear": linear, "budget": budget, "limit": None}
    images, labels = found.images(config.data, test=test, limit=limit)
    device = device or choose_device()
    if threads is not None:
        torch.set_num_threads(threads)
    model, images, labels = found.model.to(device), images.to(device), labels.to(device)
    generator = torch.Generator(images.device).manual_seed(derive_seed(seed, PURPOSE))
    try:
        metric = BracketEnds(epsilon=epsilon or 0.0, **settings)  # type: ignore[arg-type]
        ends = metric.found(model, images, labels, generator)
    except ValueError as error:
        raise InputError(str(error)) from error
    part = "test" if test else "validation"
    lines = beside(
        {
            "model": (target,),
            "data": (f"{config.data.name}, {len(labels)} {part} images, seed {seed}",),
            "norm": (f"{norm}, pixels in [0, 1]",),
        }
    )
    lines += ["", *summary(ends, epsilon)]
    if layers:
        lines += ["", "From the logits to the images:", *layer_lines(ends.below.layers)]
    figure, (axes,) = panels(1)
    band(axes, ends.lower.cpu().numpy(), ends.upper.cpu().numpy(), epsilon)
    axes.set_xlabel(f"{'L infinity' if norm == 'linf' else 'L2'} length, pixels in [0, 1]")
    return View(rows_of(ends, labels), lines, finished(figure, axes))


def rows_of(ends: Bracket, labels: torch.Tensor) -> pd.DataFrame:
    """Return one row an image: both ends, and what gave each."""
    return pd.DataFrame(
        {
            "image": range(len(labels)),
            "label": labels.cpu().numpy(),
            "lower": ends.lower.cpu().numpy(),
            "upper": ends.upper.cpu().numpy(),
            "lower_by": [ends.below.by(i) for i in range(len(labels))],
            "upper_by": ends.above.found_by,
        }
    )


def summary(ends: Bracket, epsilon: float | None) -> list[str]:
    """Return medians, and of a radius what is proved, what is broken and what is not known."""
    n = len(ends.lower)
    right = int((ends.upper > 0).sum())
    linear = int(ends.below.linear.sum())
    rows = {
        "lower bound, median": (f"{median(ends.lower):.6g}", f"of {n}, {right} of them right"),
        "upper bound, median": (f"{median(ends.upper):.6g}", "smallest attack found"),
        "upper / lower, median": (f"{median(ends.ratios):.4g}", "of right images"),
        "by linear relaxation": (f"{linear}", f"of {n} lower bounds"),
    }
    if epsilon is not None:
        for name in ("certified", "broken", "unknown"):
            share = float(getattr(ends, name)(epsilon).double().mean())
            low, high = wilson(share, n)
            rows[f"{name} at {epsilon:.4g}"] = (
                f"{100 * share:.1f} %",
                f"[{100 * low:.1f}, {100 * high:.1f}]",
            )
    return beside(rows)


def layer_lines(layers: tuple[LayerBound, ...]) -> list[str]:
    """Return one line a layer: its formula, its gain, and whether it holds."""
    columns: dict[str, list[str]] = {name: [] for name in ("layer", "kind", "gain", "formula", "")}
    for layer in layers:
        form = layer.form
        gain = "by image" if form.gain != form.gain else f"{form.gain:.5g}"
        holds = form.source if layer.valid else f"does not hold: {form.note or 'a layer inside'}"
        share = "" if layer.share == 1 else f", {100 * layer.share:.0f} % of images"
        cells = (layer.name, layer.kind, gain, form.formula, holds + share)
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return aligned(columns, right=["gain"])
