"""Random susceptibility against the plain loop over draws: time as a ratio, counts, memory.

    PSINAS_DATA=DIR python bench/stability.py [--draws 400] [--rounds 3] [--images 500]

A net is trained here on Fashion-MNIST (on digits, where there is no PSINAS_DATA) and attacked along
its gradient. The plain loop does for each of four multiples and each draw what a user would write:
one pass of all attacked images through the model, in one batch. Ours is timed twice: for the share
of images that some draw breaks (an image is left alone then), and with every draw counted. The
draws are the same, and so must the counts be, up to ties that rounding breaks. Memory is what the
process grew by at its peak.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from metrics import gradient_line
from metrics.stability import UnitDraws, measure
from metrics.stability.measure import DELTAS
from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

T = TypeVar("T")
TIE = 1e-5  # of the largest logit


def data_of(images: int) -> Data:
    name, train_images = ("fashion-mnist", 8000) if "PSINAS_DATA" in os.environ else ("digits", 700)
    config = DataConfig(name=name, limit=Limit(train=train_images, validation=images))
    return prepare(load_images(config), config)


def trained(data: Data) -> nn.Module:
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), data.task, seed=0)
    recipe = Recipe(epochs=3, adversary="none", selection_images=0)
    drain(train(model, data, recipe, None, torch.Generator().manual_seed(0)))
    return model.eval()


@torch.no_grad()
def plainly(
    model: nn.Module, x: Tensor, y: Tensor, sizes: Tensor, draws: UnitDraws
) -> tuple[Tensor, int]:
    """Return ``(deltas, N)``, how many draws break each image, and how many passes are ties.

    That is where the two largest logits differ by less than 1e-5 of the largest: another size of
    the batch may round such a pass to the other side.
    """
    hits = torch.zeros(len(DELTAS), len(x), dtype=torch.long)
    ties = 0
    for number in range(len(draws)):
        u = draws.at([number])
        for level, delta in enumerate(DELTAS):
            logits = model(x + delta * sizes * u)
            hits[level] += logits.argmax(dim=1) != y
            first, second = logits.topk(2, dim=1).values.T
            ties += int((first - second <= TIE * logits.abs().amax(dim=1)).sum())
    return hits, ties


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Return what came of it, seconds of CPU time, and megabytes that the process grew by."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    found = work()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found, time.process_time() - started, grown / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = data_of(arguments.images)
    model, x, y = trained(data), data.validation.images(), data.validation.labels
    line = gradient_line(model, x, y, mode="margin")
    attacked = line.size.isfinite() & (line.size > 0)
    x, y, sizes = x[attacked], y[attacked], line.size[attacked].float().view(-1, 1, 1, 1)
    draws = UnitDraws.of(tuple(x.shape[1:]), arguments.draws)
    measure(model, x, y, draws=1)  # warms up
    times: dict[str, list[float]] = {"share": [], "counted": [], "plain loop": []}
    grown = dict.fromkeys(times, 0.0)
    for _ in range(arguments.rounds):
        share, *of_share = timed(lambda: measure(model, x, y, draws=arguments.draws))
        counted, *of_count = timed(lambda: measure(model, x, y, draws=arguments.draws, count=True))
        (hits, ties), *of_loop = timed(lambda: plainly(model, x, y, sizes, draws))
        assert counted.hits is not None
        apart = int((counted.hits - hits).abs().sum()), int((share.hit != (hits > 0)).sum())
        assert max(apart) <= ties, f"{apart} differ from the plain loop's, which has {ties} ties"
        for name, (seconds, memory) in zip(times, (of_share, of_count, of_loop), strict=True):
            times[name].append(seconds)
            grown[name] = max(grown[name], memory)
    print(
        f"{len(x)} images of {tuple(x.shape[1:])}, {arguments.draws} draws, δ = "
        f"{', '.join(f'{d:g}' for d in DELTAS)}; {platform.machine()}, 1 thread, "
        f"{arguments.rounds} rounds, torch {torch.__version__}"
    )
    print("images broken: " + ", ".join(str(int(h.sum())) for h in hits > 0))
    print(
        f"of {hits.numel() * arguments.draws} passes {apart[0]} differ from the plain loop's, which"
        f" has {ties} ties within rounding; of {hits.numel()} images at a δ {apart[1]}"
    )
    for name, seconds in times.items():
        ratios = [loop / own for loop, own in zip(times["plain loop"], seconds, strict=True)]
        print(
            f"{name:11} {statistics.median(seconds):8.2f} s CPU, plain loop / this "
            f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"memory + {grown[name]:.0f} MB"
        )


if __name__ == "__main__":
    main()
