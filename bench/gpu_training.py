"""The sections ``training`` and ``learning`` of ``bench/gpu.py``: how fast, and what is learned."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from gpu_setting import (
    Case,
    Net,
    Row,
    Setting,
    built,
    depth_channels,
    nasnet,
    ratios,
    resnet,
)
from torch import Tensor, nn
from torch.nn import functional

from metrics.cost import macs
from metrics.precision import full_float32
from nas.data.arrays import Data, Split
from nas.device import fast_bf16
from nas.trial.recipe import Recipe
from nas.trial.state import Epoch
from nas.trial.training import train
from search_spaces import Task


@dataclass(frozen=True)
class Mode:
    """How a step is computed; ``channels_last`` is of the weights, which convolutions follow."""

    precision: str
    channels_last: bool = False
    capture: bool = False

    def __str__(self) -> str:
        parts = [self.precision, *["nhwc"] * self.channels_last, *["capture"] * self.capture]
        return " ".join(parts)


def modes(s: Setting) -> list[Mode]:
    """Return those that the device has: bf16 is refused on a card that only emulates it."""
    full = [Mode("float32"), Mode("float32", capture=True)]
    if s.device.type == "cuda" and not fast_bf16(s.device):
        return full
    half = [
        Mode("bf16"),
        Mode("bf16", channels_last=True),
        Mode("bf16", channels_last=True, capture=True),
    ]
    return [full[0], *half, full[1]]


# ---------------------------------------------------------------------------------------------
# training: against a plain loop, and against what the device can do


def training(s: Setting) -> Iterator[Case]:
    """Images a second of PGD training, against a plain loop; above 1 psinas is the faster.

    The plain loop has the same precision and layout, and no graphs. pflops: operations that the
    method asks for, two for each multiply-accumulate of a forward pass, 2 passes an attack step
    (forward, and backward to the images) and 3 to train. 705 images a second are published for
    PGD-10 on a ResNet-18, the goal here is 6,200. of_peak: over those of a large matrix
    product in the same precision, timed here. An epoch before the timed ones warms both up.
    """
    for precision in dict.fromkeys(mode.precision for mode in modes(s)):
        label = {"net": "matrix product", "precision": precision}
        yield label, partial(product, s, precision)
    nets = {  # attack steps and images an epoch, of which four batches are enough for a record
        "resnet": (resnet(s.pick("small", "imagenet")), s.pick(10, 2), s.pick(1024, 16)),
        "depth-channels": (s.pick(depth_channels(8, 32), depth_channels(2, 8)), s.pick(7, 2),
                           s.pick(1024, 64)),
        "nasnet": (s.pick(nasnet(5, 24), nasnet(2, 4)), s.pick(7, 2), s.pick(512, 64)),
    }  # fmt: skip
    shape, batch = s.pick(((3, 32, 32), 128), ((3, 12, 12), 16))
    for (name, (net, steps, count)), mode in itertools.product(nets.items(), modes(s)):
        x = torch.rand(count, *shape, generator=s.generator(), device=s.device)
        split = Split(x, torch.arange(count, device=s.device) % 10)
        data = Data(split, split, Task.plain(shape, 10))
        recipe = Recipe(
            epochs=s.pick(4, 3),  # one more than there are rounds
            batch_size=batch,
            steps=steps,
            adversarial_share=1.0,
            learning_rate=0.01,
            schedule="constant",
            precision=mode.precision,
            selection_images=0,
        )
        label = {"net": name, "adversary": f"PGD-{steps}", "mode": str(mode)}
        yield label, partial(against_plain_loop, s, net, data, recipe, mode)


def product(s: Setting, precision: str) -> Row:
    return {"pflops": peak_flops(s, precision) / 1e15}


@cache
def peak_flops(s: Setting, precision: str) -> float:
    """Return the operations a second of a square matrix product, the best of five."""
    side = s.pick(8192, 512)
    a = torch.rand(side, side, device=s.device)
    a = a.bfloat16() if precision == "bf16" else a
    with full_float32():
        a @ a
        best = min(s.seconds(lambda: a @ a) for _ in range(5))
    return 2 * side**3 / best


def against_plain_loop(s: Setting, net: Net, data: Data, recipe: Recipe, mode: Mode) -> Row:
    model = built(s, net, data.task)
    operations = 2 * macs(copy.deepcopy(model).eval(), data.train.images(slice(1)))
    operations *= 2 * recipe.steps + 3
    if mode.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = copy.deepcopy(model)
    steps = train(model, data, recipe, recipe.attack(), s.generator(), capture=mode.capture)

    def plain() -> None:
        plain_epoch(other, data.train.pixels, data.train.labels, recipe)

    next(steps)
    plain()
    row = ratios(s, "plain", len(data.train), lambda: next(steps), plain)
    capture = "off"
    try:
        next(steps)
    except StopIteration as end:
        capture = end.value.capture
    flops = operations * row["psinas_per_s"]
    return {
        "batch": recipe.batch_size,
        **row,
        "pflops": flops / 1e15,
        "of_peak": flops / peak_flops(s, mode.precision),
        "capture": capture,
    }


def plain_epoch(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> None:
    """Train as one would write it for this one case (Madry et al. 2018), attacks in ``eval()``."""
    epsilon, step_size = recipe.epsilon, recipe.epsilon / 4
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    for chosen in torch.randperm(len(x), device=x.device).split(recipe.batch_size):
        a, b = x[chosen], y[chosen]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            model.eval()
            moved = (a + torch.empty_like(a).uniform_(-epsilon, epsilon)).clamp(0, 1)
            for _ in range(recipe.steps):
                moved.requires_grad_()
                loss = functional.cross_entropy(model(moved), b)
                (gradient,) = torch.autograd.grad(loss, moved)
                moved = moved.detach() + step_size * gradient.sign()
                moved = (a + (moved - a).clamp(-epsilon, epsilon)).clamp(0, 1)
            model.train()
            logits = model(moved)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits.float(), b).backward()
        optimizer.step()


# ---------------------------------------------------------------------------------------------
# learning: what bf16 and replayed steps come to


def learning(s: Setting) -> Iterator[Case]:
    """Robust accuracy of several seeds, and epochs and seconds to a given one, in each mode.

    Judged after every epoch by PGD in float32. target: 95 % of the mean of float32's best epochs.
    off: the mean best less float32's, with the standard error of that difference over seeds.
    """
    first: list[list[list[Epoch]]] = []
    for mode in (mode for mode in modes(s) if mode.channels_last == mode.capture):
        yield {"mode": str(mode)}, partial(learned, s, mode, first)


def learned(s: Setting, mode: Mode, first: list[list[list[Epoch]]]) -> Row:
    net = s.pick(depth_channels(4, 32), depth_channels(2, 8))
    recipe = Recipe(
        epochs=s.pick(10, 3),
        batch_size=s.pick(128, 32),
        epsilon=s.epsilon,
        steps=s.pick(7, 1),
        adversarial_share=1.0,
        precision=mode.precision,
        selection_images=s.pick(1000, 64),
    )
    runs = [epochs_of(s, net, recipe, mode, seed) for seed in range(s.pick(5, 2))]
    first.append(runs)
    reference = [best(run) for run in first[0]]
    target = 0.95 * statistics.mean(reference)
    found = [reached(run, target) for run in runs]
    hits = [hit for hit in found if hit is not None]
    bests = [best(run) for run in runs]
    error = math.sqrt(sum(statistics.variance(v) / len(v) for v in (bests, reference)))
    return {
        "seeds": len(runs),
        "epochs": recipe.epochs,
        "best_robust": statistics.mean(bests),
        "deviation": statistics.stdev(bests),
        "off": statistics.mean(bests) - statistics.mean(reference),
        "standard_error": error,
        "target": target,
        "reached": len(hits),
        "epochs_to": statistics.mean(hit[0] for hit in hits) if hits else math.nan,
        "seconds_to": statistics.mean(hit[1] for hit in hits) if hits else math.nan,
    }


def epochs_of(s: Setting, net: Net, recipe: Recipe, mode: Mode, seed: int) -> list[Epoch]:
    space, architecture = net
    model = space.build(architecture, s.data.task, seed=seed).to(s.device)
    if mode.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator(s.device).manual_seed(seed)
    return list(train(model, s.data, recipe, recipe.attack(), generator, capture=mode.capture))


def best(epochs: list[Epoch]) -> float:
    return max(epoch.robust_accuracy for epoch in epochs)


def reached(epochs: list[Epoch], target: float) -> tuple[int, float] | None:
    """Return the first epoch of that robust accuracy and the seconds up to it, judging included."""
    for number, epoch in enumerate(epochs, 1):
        if epoch.robust_accuracy >= target:
            return number, sum(e.seconds for e in epochs[:number])
    return None
