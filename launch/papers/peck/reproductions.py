"""The reproductions of Peck et al. 2017, by name."""

from __future__ import annotations

from launch.papers.peck import comparisons
from launch.papers.peck.bounds import bounds
from launch.papers.peck.counterexamples import counterexamples
from launch.papers.reproduction import Reproduction

PECK: dict[str, Reproduction] = {
    "peck-mnist": Reproduction(
        "MNIST: lower bounds of LeNets in three modes against attacks, plain and robust",
        ("peck-mnist", "peck-mnist-robust"), bounds,
        {"mnist": ("peck-mnist-quick", "peck-mnist-robust-quick")}, keep_all=True,
        compare=comparisons.bounds,
    ),
    "peck-cifar10": Reproduction(
        "CIFAR-10: lower bounds of LeNets in three modes against attacks",
        ("peck-cifar10",), bounds, {"cifar10-small": ("peck-cifar10-quick",)}, keep_all=True,
        compare=comparisons.bounds,
    ),
    "peck-counterexamples": Reproduction(
        "where the printed theorems fail: bounds above real perturbations",
        (), counterexamples, {},
        compare=comparisons.counterexamples,
    ),
}  # fmt: skip
