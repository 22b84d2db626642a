"""Adversarial training on CPU cores against plain loops: images a second as ratios, in one process.

    python bench/training.py [--threads 1] [--rounds 7] [--only depth-channels] [--json FILE]
    PSINAS_DATA=DIR python bench/training.py --seeds 5      # accuracies instead of times

One epoch of PGD-7 training (all images adversarial) of the same net, from the same weights: by
psinas, at each precision of the attack; by a loop as one would write it for this one case, with
``torch.autograd.grad`` in the attack (a) and with ``loss.backward()`` there, as many published
programs have it (a2); and by a loop around torchattacks' PGD (b), where that is installed. All
train the model that a search space builds, which is in channels_last already. Rounds are
interleaved, and times are CPU seconds of the process, so that other work on the machine shifts
them less. A ratio above 1 says how much faster psinas is; given are medians over rounds, and the
least and the largest.

With ``--seeds`` accuracies are compared that a net (4 x 32, imagenet stem) has after five epochs of
Fashion-MNIST: attacked in float32, in bfloat16, and by loop (a), from the same weights.

The share of what a core gives is counted in operations: forwards and backwards by the images, and
one backwards by the weights, over the rate of a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics.attacks import PGD
from metrics.cost import macs
from metrics.robustness.accuracy import robust_accuracy
from nas.data.arrays import Data, Split, prepare, prepare_test
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images, load_test_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import SEARCH_SPACES, Task

STEPS, BATCH, COUNT = 7, 128, 1024
SHAPE, CLASSES = (1, 28, 28), 10
DEPTH_CHANNELS = ((2, 16), (4, 32), (8, 32))
Plain = Callable[[nn.Module, Data, Recipe], None]


def nets() -> Iterator[tuple[str, nn.Module]]:
    task = Task.plain(SHAPE, CLASSES)
    for stem, (depth, channels) in itertools.product(("imagenet", "small"), DEPTH_CHANNELS):
        space: Any = SEARCH_SPACES["depth-channels"](
            depth=(depth,), channels=(channels,), stem=stem
        )
        yield (
            f"depth-channels {depth} x {channels}, {stem} stem",
            space.build(next(iter(space)), task),
        )
    for filters in (8, 24):
        cells: Any = SEARCH_SPACES["nasnet"](blocks=5, cells=1, filters=filters, stem_stride=2)
        architecture = cells.sample(np.random.default_rng(0))
        yield f"nasnet cell, {filters} filters", cells.build(architecture, task)


def plain_loop(
    model: nn.Module, data: Data, recipe: Recipe, *, attack: str = "autograd.grad"
) -> None:
    """Train an epoch as one would write it (Madry et al. 2018), attacks in ``eval()``."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    torchattack = None
    if attack == "torchattacks":
        import torchattacks

        torchattack = torchattacks.PGD(
            model, eps=recipe.epsilon, alpha=recipe.epsilon / 4, steps=recipe.steps
        )
    y = data.train.labels
    for chosen in torch.randperm(len(y)).split(recipe.batch_size):
        a, b = data.train.images(chosen), y[chosen]
        model.eval()
        if torchattack is not None:
            moved = torchattack(a, b)
        else:
            moved = _pgd(model, a, b, recipe, backward=attack == "backward")
        model.train()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(moved), b).backward()
        optimizer.step()


def _pgd(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, *, backward: bool) -> Tensor:
    epsilon = recipe.epsilon
    moved = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(recipe.steps):
        moved.requires_grad_()
        loss = functional.cross_entropy(model(moved), y)
        if backward:
            loss.backward()
            gradient = moved.grad
            assert gradient is not None
        else:
            (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + epsilon / 4 * gradient.sign()
        moved = (x + (moved - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    return moved.detach()


def ours(precision: str, model: nn.Module, data: Data, recipe: Recipe) -> str:
    generator = torch.Generator().manual_seed(0)
    recipe = replace(recipe, attack_precision=precision)
    training = drain(train(model, data, recipe, recipe.attack(), generator))
    return training.attack_precision


def times(
    loops: dict[str, Callable[[nn.Module, Data, Recipe], Any]],
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    rounds: int,
) -> dict[str, list[float]]:
    """Return CPU seconds of an epoch, by loop, in every round."""
    start = copy.deepcopy(model.state_dict())
    found: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 1):  # the first warms up
        for name, loop in loops.items():
            model.load_state_dict(start)
            began = time.process_time()
            loop(model, data, recipe)
            if number:
                found[name].append(time.process_time() - began)
    return found


def matrix_rate() -> float:
    """Return float32 operations a CPU second of a matrix product."""
    a = torch.rand(1024, 1024)
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        a @ a
        best = min(best, time.process_time() - began)
    return 2 * 1024**3 / best


def accuracies(seeds: int) -> dict[str, list[tuple[float, float]]]:
    """Return clean and PGD-20 accuracy on test images, by who trained, for every seed."""
    config = DataConfig(name="fashion-mnist", limit=Limit(train=5000, validation=500))
    data = prepare(load_images(config), config)
    test = prepare_test(load_test_images(config), config)
    x, y = test.images(slice(1000)), test.labels[:1000]
    recipe = Recipe(
        epochs=5,
        batch_size=64,
        epsilon=0.1,
        steps=STEPS,
        adversarial_share=1.0,
        learning_rate=0.05,
        schedule="constant",
        selection_images=0,
    )
    space: Any = SEARCH_SPACES["depth-channels"](depth=(4,), channels=(32,), stem="imagenet")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed, name in itertools.product(range(seeds), ("float32", "bf16", "a")):
        model = space.build(next(iter(space)), data.task, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        if name == "a":
            for _ in range(recipe.epochs):
                plain_loop(model, data, recipe)
        else:
            own = replace(recipe, attack_precision=name)
            drain(train(model, data, own, own.attack(), generator))
        attack = PGD(epsilon=recipe.epsilon, steps=20, step_size=recipe.epsilon / 8)
        judged = robust_accuracy(model, x, y, attack, generator=torch.Generator().manual_seed(0))
        pair = judged.clean.double().mean().item(), judged.accuracy
        found.setdefault(name, []).append(pair)
        print(f"seed {seed} {name:8} clean {pair[0]:.3f} PGD-20 {pair[1]:.3f}", flush=True)
    return found


def compare(found: dict[str, list[tuple[float, float]]]) -> None:
    """Print means, and differences to float32 paired by seed, with their standard errors."""
    for name, pairs in found.items():
        for which, label in enumerate(("clean", "PGD-20")):
            values = [pair[which] for pair in pairs]
            apart = [a[which] - b[which] for a, b in zip(pairs, found["float32"], strict=True)]
            error = statistics.stdev(apart) / len(apart) ** 0.5
            print(
                f"{name:8} {label:7} {statistics.mean(values):.4f} (sd "
                f"{statistics.stdev(values):.4f}), to float32 {statistics.mean(apart):+.4f} "
                f"+- {error:.4f} (standard error, n = {len(apart)})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.seeds:
        return compare(accuracies(arguments.seeds))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(COUNT, *SHAPE, generator=generator)
    split = Split(x, torch.arange(COUNT) % CLASSES)
    data = Data(split, split, Task.plain(SHAPE, CLASSES))
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        steps=STEPS,
        adversarial_share=1.0,
        learning_rate=0.01,
        schedule="constant",
        selection_images=0,
    )
    loops: dict[str, Callable[[nn.Module, Data, Recipe], Any]] = {
        "float32": partial(ours, "float32"),
        "auto": partial(ours, "auto"),
        "a": plain_loop,
        "a2": partial(plain_loop, attack="backward"),
    }
    try:
        import torchattacks  # noqa: F401

        loops["b"] = partial(plain_loop, attack="torchattacks")
    except ImportError:
        print("torchattacks is not installed: no (b)")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, torch "
        f"{torch.__version__}, PGD-{STEPS}, batch {BATCH}, {COUNT} images of {SHAPE}, "
        f"{arguments.rounds} rounds"
    )
    rows = []
    for name, model in nets():
        if arguments.only not in name:
            continue
        precision = ours("auto", copy.deepcopy(model), data, recipe)
        found = times(loops, model, data, recipe, arguments.rounds)
        operations = 2 * macs(model, torch.zeros(*SHAPE)) * COUNT
        operations *= 2 * STEPS + 3
        row: dict[str, Any] = {"net": name, "auto is": precision}
        for mine in ("float32", "auto"):
            row[f"{mine} images/s"] = COUNT / statistics.median(found[mine])
            row[f"{mine} of the matrix rate"] = (
                operations / statistics.median(found[mine]) / matrix_rate()
            )
            for other in [k for k in ("a", "a2", "b") if k in found]:
                ratios = [p / o for p, o in zip(found[other], found[mine], strict=True)]
                row[f"{mine} / ({other})"] = [statistics.median(ratios), min(ratios), max(ratios)]
        rows.append(row)
        print(f"\n{name} (auto: {precision})")
        for mine in ("float32", "auto"):
            against = ", ".join(
                "{:.2f} x ({}) [{:.2f}, {:.2f}]".format(
                    row[f"{mine} / ({k})"][0], k, *row[f"{mine} / ({k})"][1:]
                )
                for k in ("a", "a2", "b")
                if k in found
            )
            print(
                f"  {mine:8} {row[f'{mine} images/s']:7.0f} images/s, "
                f"{row[f'{mine} of the matrix rate']:.2f} of the matrix rate: {against}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
