"""Every reproduction by name. Open this to add one: its folder's files, and a line here."""

from __future__ import annotations

from launch.papers.cubuk.figure2 import figure_2 as plain_nets
from launch.papers.cubuk.figure5 import figure_5 as entropy_and_adversaries
from launch.papers.cubuk.figure7 import ADVERSARIAL
from launch.papers.cubuk.figure7 import figure_7 as over_epsilon
from launch.papers.cubuk.figure8 import figure_8, figure_15
from launch.papers.cubuk.figure9 import figure_9
from launch.papers.cubuk.figure10 import SCORES as OF_RANDOM_NETS
from launch.papers.cubuk.figure10 import figure_10
from launch.papers.cubuk.figure11 import figure_11
from launch.papers.cubuk.figure12 import figure_12
from launch.papers.cubuk.figure14 import figure_14
from launch.papers.cubuk.table1 import table_1 as robust_cells
from launch.papers.peck.bounds import bounds
from launch.papers.peck.counterexamples import counterexamples
from launch.papers.psi.trained import figure_2, figure_3, figure_6, figure_7, table_1, table_3
from launch.papers.psi.untrained import SCORES, table_2
from launch.papers.reproduction import Reproduction
from launch.papers.sutton.imagenet import imagenet
from launch.papers.sutton.noise import noise_training
from launch.papers.sutton.pairs import pairs
from launch.papers.sutton.theory import sutton_theory
from nas.errors import InputError

GRID = ("depth", "channels")
RESNETS, UNTRAINED, TRAINED = ("psi-table1",), ("psi-table2",), ("psi-table3",)
NOISE = {"noise": ("psi-table2-quick",)}
EXPERIMENTS = ("cubuk-vanilla", "cubuk-experiment1", "cubuk-experiment2")
PAIRS = ("data.classes", "stability_adversarial")
CELL = ("block1_combine",)  # of a NASNet cell
IN_SMALL = {"fashion-mnist": tuple(f"{name}-small" for name in EXPERIMENTS)}


def _in_small(preset: str) -> dict[str, tuple[str, ...]]:
    return {data: (f"{preset}-{data}",) for data in ("digits", "fashion-mnist", "food101-10")}


REPRODUCTIONS: dict[str, Reproduction] = {
    "psi-table1": Reproduction(
        "Ψ̂ of trained ResNets",
        RESNETS, table_1, _in_small("psi-table1"), needs=("depth",), keep_all=True,
    ),
    "psi-table2": Reproduction(
        "Ψ̂ of untrained nets on noise",
        UNTRAINED, table_2, NOISE, needs=(*GRID, *SCORES),
    ),
    "psi-table3": Reproduction(
        "Ψ̂ of trained depth x channels nets",
        TRAINED, table_3, _in_small("psi-table3"), needs=GRID, keep_all=True,
    ),
    "psi-figure2": Reproduction(
        "drift of hidden states in a ResNet",
        RESNETS, figure_2, _in_small("psi-table1"), needs=("depth",), keep_all=True,
    ),
    "psi-figure3": Reproduction(
        "Ψ̂ against the radius",
        RESNETS, figure_3, _in_small("psi-table1"), needs=("depth",), keep_all=True,
    ),
    "psi-figure4": Reproduction(
        "Table 2 drawn, with the limit r → 0",
        UNTRAINED, table_2, NOISE, needs=(*GRID, *SCORES),
    ),
    "psi-figure5": Reproduction(
        "Table 3 drawn",
        TRAINED, table_3, _in_small("psi-table3"), needs=GRID, keep_all=True,
    ),
    "psi-figure6": Reproduction(
        "post-attack accuracy against radius",
        TRAINED, figure_6, _in_small("psi-table3"), needs=GRID, keep_all=True,
    ),
    "psi-figure7": Reproduction(
        "Ψ̂ against post-attack accuracy",
        TRAINED, figure_7, _in_small("psi-table3"), needs=GRID, keep_all=True,
    ),
    "cubuk-table1": Reproduction(
        "robust cells, searched and retrained, under white-box and black-box attacks",
        EXPERIMENTS, robust_cells, IN_SMALL, retrained=True,
    ),
    "cubuk-figure2": Reproduction(
        "MNIST: adversarial error over epsilon of plain nets and under shuffled labels",
        ("cubuk-figure2", "cubuk-figure2-shuffled"), plain_nets,
        {"mnist": ("cubuk-figure2-quick", "cubuk-figure2-shuffled-quick")}, keep_all=True,
    ),
    "cubuk-figure7": Reproduction(
        "accuracy over epsilon: the baseline trained without and with step l.l., both winners",
        EXPERIMENTS, over_epsilon, IN_SMALL, retrained=True, also={0: ADVERSARIAL},
    ),
    "cubuk-figure8": Reproduction(
        "adversarial images that fool Experiment 1's winner and ones that do not, a few of each",
        EXPERIMENTS[:2], figure_8, {d: names[:2] for d, names in IN_SMALL.items()}, retrained=True,
    ),
    "cubuk-figure5": Reproduction(
        "MNIST: accuracy over epsilon with the entropy term, step l.l. training, and both",
        ("cubuk-figure5",), entropy_and_adversaries, {"mnist": ("cubuk-figure5-quick",)},
        needs=("recipe",), keep_all=True,
    ),
    "cubuk-figure9": Reproduction(
        "adversarial accuracy of a search's children against clean accuracy and parameters",
        ("cubuk-experiment2",), figure_9, {"fashion-mnist": ("cubuk-experiment2-small",)},
    ),
    "cubuk-figure10": Reproduction(
        "hundreds of random nets: errors over epsilon, exponents, and what goes with robustness",
        ("cubuk-figure10",), figure_10, {"mnist": ("cubuk-figure10-quick",)}, needs=OF_RANDOM_NETS,
    ),
    "cubuk-figure14": Reproduction(
        "the best cells of the searches, drawn", EXPERIMENTS, figure_14, IN_SMALL, needs=CELL,
    ),
    "cubuk-figure15": Reproduction(
        "adversarial images that fool Experiment 1's winner and ones that do not, many of each",
        EXPERIMENTS[:2], figure_15, {d: names[:2] for d, names in IN_SMALL.items()}, retrained=True,
    ),
    "cubuk-figure11": Reproduction(
        "CIFAR-10: adversarial error over epsilon of a ResNet",
        ("cubuk-figure11",), figure_11, {"cifar10-small": ("cubuk-figure11-quick",)},
        keep_all=True,
    ),
    "cubuk-figure12": Reproduction(
        "CIFAR-10: accuracy over epsilon of wide ResNets with the entropy term, and transferred",
        ("cubuk-figure12",), figure_12, {"cifar10-small": ("cubuk-figure12-quick",)},
        needs=("recipe.entropy_weight", "repeat"), keep_all=True,
    ),
    "sutton-theory": Reproduction(
        "the two-ball models: bounds, exact probabilities and draws", (), sutton_theory, {},
    ),
    "sutton-cifar10": Reproduction(
        "CIFAR-10's pairs of classes under attack and noise of its size",
        ("sutton-cifar10",), pairs, {"cifar10-small": ("sutton-cifar10-quick",)},
        needs=PAIRS, keep_all=True,
    ),
    "sutton-fashion-mnist": Reproduction(
        "Fashion-MNIST's pairs of classes under attack and noise of its size",
        ("sutton-fashion-mnist",), pairs, {"fashion-mnist": ("sutton-fashion-mnist-quick",)},
        needs=PAIRS, keep_all=True,
    ),
    "sutton-gtsrb": Reproduction(
        "pairs of traffic signs under attack and noise of its size",
        ("sutton-gtsrb",), pairs, {"gtsrb-7": ("sutton-gtsrb-quick",)},
        needs=PAIRS, keep_all=True,
    ),
    "sutton-noise": Reproduction(
        "training on noise against plain training",
        ("sutton-noise",), noise_training, {"fashion-mnist": ("sutton-noise-quick",)},
        needs=(*PAIRS, "recipe"), keep_all=True,
    ),
    "sutton-imagenet": Reproduction(
        "published nets on ImageNet under attack and noise of its size",
        ("sutton-imagenet",), imagenet, {"cifar10-small": ("sutton-imagenet-quick",)},
        needs=("model", "stability_adversarial"),
    ),
    "peck-mnist": Reproduction(
        "MNIST: lower bounds of LeNets in three modes against attacks, plain and robust",
        ("peck-mnist", "peck-mnist-robust"), bounds,
        {"mnist": ("peck-mnist-quick", "peck-mnist-robust-quick")}, keep_all=True,
    ),
    "peck-cifar10": Reproduction(
        "CIFAR-10: lower bounds of LeNets in three modes against attacks",
        ("peck-cifar10",), bounds, {"cifar10-small": ("peck-cifar10-quick",)}, keep_all=True,
    ),
    "peck-counterexamples": Reproduction(
        "where the printed theorems fail: bounds above real perturbations",
        (), counterexamples, {},
    ),
}  # fmt: skip


def reproduction(name: str) -> Reproduction:
    """Return the reproduction called ``name``.

    Raises:
        InputError: no such; the message lists the known ones.
    """
    if name not in REPRODUCTIONS:
        raise InputError(f"expected one of {', '.join(REPRODUCTIONS)}, got {name!r}")
    return REPRODUCTIONS[name]
