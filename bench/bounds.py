"""What bounds cost: chains of 1,000 images, and brackets beside the training of their trial.

    PSINAS_DATA=DIR python bench/bounds.py [--rounds 2] [--nets 2x16,4x32] [--train 12000]

For each net, in turn and in one process on one thread: its training, as the preset
fashion-mnist-grid has it (PGD-7, 3 epochs; digits, where there is no PSINAS_DATA); lower bounds of
1,000 images layer by layer in each mode; and brackets of 200 images in both norms, without linear
relaxation and, where it is chosen by itself, with it on 50. Seconds are of CPU time; ratios are
over the training of the same round.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from metrics.bounds.both_ends import bracket
from metrics.bounds.linear import supports
from metrics.bounds.lower import AUTOMATIC, lower_bounds
from metrics.bounds.program import read
from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

T = TypeVar("T")
MODES = ("paper", "certified", "tight")


def data_of(images: int) -> tuple[Data, str, float]:
    """Return the data, the stem of its nets, and epsilon."""
    if "PSINAS_DATA" in os.environ:
        config = DataConfig(name="fashion-mnist", limit=Limit(train=images, validation=1000))
        return prepare(load_images(config), config), "imagenet", 8 / 255
    config = DataConfig(name="digits", limit=Limit(train=900, validation=500))
    return prepare(load_images(config), config), "small", 0.1


def trained(data: Data, stem: str, epsilon: float, depth: int, channels: int) -> nn.Module:
    space = DepthChannels(depth=(depth,), channels=(channels,), stem=stem)
    architecture = space.architecture({"depth": depth, "channels": channels})
    model = space.build(architecture, data.task, seed=0)
    recipe = Recipe(epochs=3, epsilon=epsilon, steps=7, step_size=epsilon / 4)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what came of it, and seconds of CPU time."""
    started = time.process_time()
    return work(), time.process_time() - started


def one_round(
    data: Data, stem: str, epsilon: float, net: str, found: dict[str, list[float]]
) -> None:
    depth, channels = map(int, net.split("x"))
    model, whole = timed(lambda: trained(data, stem, epsilon, depth, channels))
    found["training"].append(whole)
    images = data.validation.images(slice(None))
    labels = data.validation.labels
    with torch.no_grad():
        program, seconds = timed(lambda: read(model, images))
    found[f"reading {len(program.steps)} steps"].append(seconds)
    for mode in MODES:
        _, seconds = timed(
            lambda mode=mode: lower_bounds(model, images, labels, mode=mode, linear=False)
        )
        found[f"{mode} chain, {len(labels)} images"].append(seconds)
    for norm in ("linf", "l2"):
        both(found, model, images[:200], labels[:200], norm, linear=False)
        if not supports(program, AUTOMATIC):
            both(found, model, images[:50], labels[:50], norm, linear=True)


def both(
    found: dict[str, list[float]],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    *,
    linear: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    _, seconds = timed(
        lambda: bracket(model, images, labels, norm=norm, linear=linear, generator=generator)
    )
    relaxed = ", linear relaxation" if linear else ""
    found[f"bracket {norm}, {len(labels)} images{relaxed}"].append(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--nets", default="2x16,4x32", help="depth x channels")
    parser.add_argument("--train", type=int, default=12000, help="images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, stem, epsilon = data_of(arguments.train)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, 1 thread")
    print(f"{data.task.shape}, {len(data.train.labels)} training images, {arguments.rounds} rounds")
    for net in arguments.nets.split(","):
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(arguments.rounds):
            one_round(data, stem, epsilon, net, found)
        print(f"\n{net:42} {'CPU s':>8}  over training, median (range)")
        for name, seconds in found.items():
            ratios = [s / whole for s, whole in zip(seconds, found["training"], strict=True)]
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"{name:42} {statistics.median(seconds):8.2f}  {spread}")


if __name__ == "__main__":
    main()
