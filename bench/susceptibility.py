"""Ψ̂ in one batched call against the plain loop over radii and inputs; the limit's two ways.

    python bench/susceptibility.py [--rounds 3] [--threads 1,2]

32 inputs x 7 radii, untrained nets at frozen statistics (a random net costs what a trained one
costs). The loop is written out below as one would write it from the paper: one input at one radius
at a time, parameters frozen, the same random starts. Both are timed in turn in each round; values
are compared ψ by ψ. A forward-equivalent is the time of one image of a plain batched forward.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from metrics.susceptibility import log_radii, rms, susceptibility, susceptibility_limit
from metrics.susceptibility.normalisation import normalising
from search_spaces import SEARCH_SPACES, Task

INPUTS, STEPS = 32, 5
RADII = log_radii(1e-5, 1e-2, 7)
NETS = [  # space, choices, image shape, classes
    ("depth-channels", {"depth": 4, "channels": 32}, (3, 64, 64), 101),
    ("depth-channels", {"depth": 16, "channels": 32}, (3, 64, 64), 101),
    ("depth-channels", {"depth": 8, "channels": 16}, (1, 28, 28), 10),
    ("resnet", {"depth": 18}, (3, 64, 64), 101),
]


def plain_loop(model: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ψ ``(radii, N)``, one input and one radius at a time (equation 1)."""
    starts = [torch.randn(x.shape, generator=generator) for x in images]
    rows = []
    for radius in RADII:
        row = []
        for x, start in zip(images.split(1), starts, strict=True):
            clean = model(x).detach()
            delta = start[None] * radius / rms(start[None])
            for _ in range(STEPS):
                delta.requires_grad_()
                length = (model(x + delta) - clean).square().mean().sqrt()
                (gradient,) = torch.autograd.grad(length, delta)
                moved = delta.detach() + radius * gradient / rms(gradient)
                delta = moved * radius / rms(moved)
            with torch.no_grad():
                change = rms(model(x + delta).double() - clean.double())
            row.append((change / rms(delta.double())).item())
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    answer = work()
    return time.perf_counter() - started, answer


def compare(space: str, choices: dict[str, int], shape: tuple[int, int, int], classes: int,
            rounds: int) -> None:  # fmt: skip
    space_ = SEARCH_SPACES[space](**{name: (value,) for name, value in choices.items()})
    model = space_.build(space_.architecture(choices), Task.plain(shape, classes), seed=0).eval()
    x = torch.randn(INPUTS, *shape, generator=torch.Generator().manual_seed(1))
    for weight in model.parameters():
        weight.requires_grad_(False)

    def starts() -> torch.Generator:
        return torch.Generator().manual_seed(2)

    spent: dict[str, list[float]] = {"batched": [], "loop": [], "forward": [], "krylov": []}
    spent["exact"] = []
    with normalising(model, x, "frozen"):
        for _ in range(rounds):
            seconds, batched = timed(
                lambda: susceptibility(model, x, radii=RADII, generator=starts()).psi
            )
            spent["batched"].append(seconds)
            seconds, looped = timed(lambda: plain_loop(model, x, starts()))
            spent["loop"].append(seconds)
            with torch.no_grad():
                many = x.repeat(3, 1, 1, 1)
                model(many)
                seconds, _ = timed(lambda: model(many))  # noqa: B023
            spent["forward"].append(seconds / len(many))
            for method in ("krylov", "exact"):
                seconds, found = timed(
                    lambda: susceptibility_limit(model, x, method=method, generator=starts())  # noqa: B023
                )
                spent[method].append(seconds)
    ratios = [a / b for a, b in zip(spent["loop"], spent["batched"], strict=True)]
    rows = INPUTS * len(RADII)
    cost = [a / b / rows for a, b in zip(spent["batched"], spent["forward"], strict=True)]
    limits = [a / b for a, b in zip(spent["exact"], spent["krylov"], strict=True)]
    means = [psi.log().mean().exp().item() for psi in (batched, looped)]
    name = f"{space} {' x '.join(map(str, choices.values()))}, {shape[1]} px"
    print(
        f"{name:28} batched {statistics.median(spent['batched']):6.2f} s, "
        f"loop {statistics.median(ratios):5.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"Ψ̂ {means[0]:.5g} and {means[1]:.5g}, ψ differ by up to "
        f"{(batched / looped - 1).abs().max().item():.2%}; "
        f"{statistics.median(cost):.1f} forward-equivalents; "
        f"exact limit {statistics.median(limits):.2f} x krylov",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1,2")
    arguments = parser.parse_args()
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        print(f"{threads} threads, medians of {arguments.rounds} rounds")
        for net in NETS:
            compare(*net, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
