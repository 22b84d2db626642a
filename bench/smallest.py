"""Smallest perturbations, quality against effort: ours beside adv-lib's, in one run.

    PSINAS_DATA=DIR python bench/smallest.py [--images 60] [--budgets 20,50,100,200]
                                             [--norms linf,l2] [--leave-out adv_lib]
                                             [--picture FILE.svg]

Two nets are trained here on Fashion-MNIST (on digits, where there is no PSINAS_DATA): a standard
one and a PGD-trained one. Every row is one attack of one budget: the median of the sizes, the
median over images of size / smallest size that any row of this table has for that image, the share
of images it broke, and passes an image, forwards and back. adv-lib's rows (FMN, DDN, trust region)
are there where it can be imported; a stub stands for visdom, which it imports and does not need.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metrics import gradient_line, minimal_fgsm, smallest_perturbation
from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

WORST_DRAWN = 1.5  # times the best
P = {"linf": float("inf"), "l2": 2.0}


@dataclass(frozen=True)
class Row:
    """What one attack came to: ``(N,)`` sizes, passes an image forwards and back, seconds."""

    name: str
    size: Tensor
    forwards: float
    backwards: float
    seconds: float


def data_of(images: int) -> tuple[Data, float]:
    if "PSINAS_DATA" in os.environ:
        config = DataConfig(name="fashion-mnist", limit=Limit(train=4000, validation=images))
        return prepare(load_images(config), config), 16 / 255
    config = DataConfig(name="digits", limit=Limit(train=700, validation=images))
    return prepare(load_images(config), config), 0.1


def trained(data: Data, adversary: str, epsilon: float) -> nn.Module:
    space = DepthChannels(depth=(2,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 2, "channels": 16}), data.task, seed=0)
    recipe = Recipe(
        epochs=3,
        adversary=adversary,
        adversarial_share=1.0,
        epsilon=epsilon,
        steps=5,
        selection_images=0,
    )
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval()


def adv_lib() -> Any:
    """Return adv-lib's attacks, or None where it is not installed."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import adv_lib.attacks as attacks
    except ImportError:
        return None
    return attacks


def theirs(attacks: Any, norm: str, budget: int) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """Yield adv-lib's attacks with at most ``budget`` passes of an image, by name."""
    yield "FMN", lambda m, x, y: attacks.fmn(m, x, y, norm=P[norm], steps=budget)
    if norm == "l2":
        yield "DDN", lambda m, x, y: attacks.ddn(m, x, y, steps=budget, levels=None)
    looks = max(1, budget // 4)  # four passes a step where it looks for a length
    yield "trust region", lambda m, x, y: attacks.tr(m, x, y, iter=looks, p=P[norm])


def timed_theirs(
    name: str, attack: Callable[..., Tensor], model: nn.Module, x: Tensor, y: Tensor, norm: str
) -> Row:
    passes = {"forwards": 0, "backwards": 0}

    def back(gradient: Tensor) -> None:
        passes["backwards"] += len(gradient)

    def hook(_model: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        passes["forwards"] += len(inputs[0])
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(hook)
    started = time.process_time()
    found = attack(model, x.clone(), y).detach().clamp(0, 1)
    seconds = time.process_time() - started
    handle.remove()
    with torch.no_grad():
        broken = model(found).argmax(dim=1) != y
    delta = (found.double() - x.double()).flatten(1)
    size = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
    size = size.masked_fill(~broken, torch.inf)
    return Row(name, size, passes["forwards"] / len(x), passes["backwards"] / len(x), seconds)


def timed_ours(
    name: str, attack: Callable[..., Any], model: nn.Module, x: Tensor, y: Tensor
) -> Row:
    started = time.process_time()
    found = attack(model, x, y)
    seconds = time.process_time() - started
    return Row(name, found.size, found.forwards / len(x), found.backwards / len(x), seconds)


def rows_of(
    attacks: Any, model: nn.Module, x: Tensor, y: Tensor, norm: str, budgets: list[int]
) -> list[Row]:
    line = minimal_fgsm if norm == "linf" else lambda *a: gradient_line(*a, clip=True)
    rows = [timed_ours("one gradient line", line, model, x, y)]
    for budget in budgets:

        def ours(m: nn.Module, x: Tensor, y: Tensor, budget: int = budget) -> Any:
            draws = torch.Generator().manual_seed(0)
            return smallest_perturbation(m, x, y, norm=norm, budget=budget, generator=draws)

        rows.append(timed_ours(f"ours, {budget}", ours, model, x, y))
        if attacks is not None:
            rows += [
                timed_theirs(f"{name}, {budget}", attack, model, x, y, norm)
                for name, attack in theirs(attacks, norm, budget)
            ]
    return rows


def picture(panels: dict[str, tuple[list[Row], Tensor]], out: str) -> None:
    """Draw quality against effort: a panel for each net and norm, a line for each attack."""
    import matplotlib

    matplotlib.rcParams.update({"svg.hashsalt": "psinas", "svg.fonttype": "none"})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for place, (title, (rows, best)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(2, -(-len(panels) // 2), place)
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            point = (row.forwards + row.backwards, float((row.size / best).median()))
            lines.setdefault(row.name.partition(",")[0], []).append(point)
        for name, points in lines.items():
            if any(y <= WORST_DRAWN for _, y in points):
                axes.plot(*zip(*points, strict=True), "o-", label=name, markersize=4)
        axes.set(xscale="log", ylim=(0.99, WORST_DRAWN), title=title)
        axes.set(xlabel="passes an image, forwards and back", ylabel="median size over the best")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--budgets", default="20,50,100,200")
    parser.add_argument("--norms", default="linf,l2")
    parser.add_argument("--leave-out", default="")
    parser.add_argument("--picture", metavar="FILE.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    budgets = [int(budget) for budget in arguments.budgets.split(",")]
    attacks = None if "adv_lib" in arguments.leave_out else adv_lib()
    if attacks is None:
        print("adv-lib: left out, or not installed")
    data, epsilon = data_of(arguments.images)
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}")
    panels: dict[str, tuple[list[Row], Tensor]] = {}
    for adversary in ("none", "pgd"):
        model = trained(data, adversary, epsilon)
        x, y = data.validation.images(), data.validation.labels
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
        x, y = x[right], y[right]
        for norm in arguments.norms.split(","):
            rows = rows_of(attacks, model, x, y, norm, budgets)
            best = torch.stack([row.size for row in rows]).amin(dim=0)
            title = f"{'standard' if adversary == 'none' else 'PGD-trained'} net, {norm}"
            panels[title] = rows, best
            print(f"\n{title}, {len(x)} images that it gets right")
            print(f"{'':18} {'median':>8} {'over best':>9} {'broken':>7} {'forwards':>8} "
                  f"{'back':>6} {'seconds':>8}")  # fmt: skip
            for row in rows:
                print(
                    f"{row.name:18} {row.size.median():8.5f} {(row.size / best).median():9.3f} "
                    f"{row.size.isfinite().double().mean():7.1%} {row.forwards:8.1f} "
                    f"{row.backwards:6.1f} {row.seconds:8.1f}"
                )
    if arguments.picture:
        picture(panels, arguments.picture)


if __name__ == "__main__":
    main()
