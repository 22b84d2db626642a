"""AutoAttack against the authors' code: robust accuracy and seconds on the same images.

    python bench/autoattack.py [--images 128] [--side 14] [--rounds 2] [--seed 0] [--norm linf]
                               [--package PACKAGE]

Trains two small nets on Fashion-MNIST, one on clean images and one by PGD, and runs both suites on
each with one thread, in turns; prints accuracies, the images on which the two differ, seconds, and
their ratio (ours / theirs, median of the rounds). ``PACKAGE`` is ``torchattacks`` (a port of the
authors' code, its ``AutoAttack``) or ``pyautoattack`` (the authors' code as packaged), whichever
can be imported. In L2 take ``--side 28``: the start of their Square takes no images of 14 x 14.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metrics import AutoAttack
from nas.data.arrays import prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

EPSILON = {"linf": 8 / 255, "l2": 0.5}


def trained(adversary: str, images: int, side: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a net, and validation images of ``side`` pixels (28 or 14) with labels."""
    config = DataConfig(name="fashion-mnist", limit=Limit(train=3000, validation=images))
    found = load_images(config)
    stride = 28 // side
    found = replace(found, pixels=found.pixels[:, :, ::stride, ::stride])
    data = prepare(found, config)
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), data.task, seed=0)
    recipe = Recipe(epochs=2, batch_size=64, adversary=adversary, steps=2, selection_images=100)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval(), data.validation.images(), data.validation.labels


def theirs(package: str, model: nn.Module, x: Tensor, y: Tensor, norm: str, seed: int) -> Tensor:
    """Return ``(N,)`` bool: images that the authors' standard suite leaves right."""
    module: Any = importlib.import_module(package)
    epsilon, name = EPSILON[norm], {"linf": "Linf", "l2": "L2"}[norm]
    if package == "torchattacks":
        attack = module.AutoAttack(model, norm=name, eps=epsilon, n_classes=10, seed=seed)
        adversarial = attack(x, y)
    else:
        attack = module.AutoAttack(model, norm=name, eps=epsilon, seed=seed)
        adversarial = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
    with torch.no_grad():
        return (model(x).argmax(1) == y) & (model(adversarial).argmax(1) == y)


def ours(model: nn.Module, x: Tensor, y: Tensor, norm: str, seed: int) -> Tensor:
    """Return the same of ours."""
    generator = torch.Generator().manual_seed(seed)
    suite = AutoAttack(norm=norm, epsilon=EPSILON[norm])
    return suite.run(model, x, y, generator=generator).robust


def compare(
    package: str, model: nn.Module, x: Tensor, y: Tensor, norm: str, seed: int, rounds: int
) -> str:
    """Return a line: both accuracies, images that differ, seconds and the ratio."""
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    masks = {}
    for _ in range(rounds):
        for who in ("theirs", "ours"):
            began = time.perf_counter()
            if who == "ours":
                masks[who] = ours(model, x, y, norm, seed)
            else:
                masks[who] = theirs(package, model, x, y, norm, seed)
            spent[who].append(time.perf_counter() - began)
    ratio = statistics.median(a / b for a, b in zip(spent["ours"], spent["theirs"], strict=True))
    differ = int((masks["ours"] != masks["theirs"]).sum())
    right = {who: 100 * mask.double().mean().item() for who, mask in masks.items()}
    seconds = {who: statistics.median(times) for who, times in spent.items()}
    return (
        f"ours {right['ours']:.2f} %, theirs {right['theirs']:.2f} %, {differ} of {len(y)} images "
        f"differ; {seconds['ours']:.1f} s against {seconds['theirs']:.1f} s, ratio {ratio:.2f}"
    )


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("images", 128), ("side", 14), ("rounds", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--norm", choices=list(EPSILON), default="linf")
    parser.add_argument("--package", default="torchattacks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for adversary in ("none", "pgd"):
        model, x, y = trained(adversary, given.images, given.side)
        line = compare(given.package, model, x, y, given.norm, given.seed, given.rounds)
        print(f"{adversary:5} {given.norm} against {given.package}: {line}", flush=True)


if __name__ == "__main__":
    main()
