"""The reproductions of Cubuk et al. 2017, by name."""

from __future__ import annotations

from launch.papers.cubuk import comparisons
from launch.papers.cubuk.figure1 import figure_1
from launch.papers.cubuk.figure2 import figure_2
from launch.papers.cubuk.figure3 import figure_3
from launch.papers.cubuk.figure4 import figure_4
from launch.papers.cubuk.figure5 import figure_5
from launch.papers.cubuk.figure6 import figure_6
from launch.papers.cubuk.figure7 import ADVERSARIAL, figure_7
from launch.papers.cubuk.figure8 import figure_8, figure_15
from launch.papers.cubuk.figure9 import figure_9
from launch.papers.cubuk.figure10 import SCORES, figure_10
from launch.papers.cubuk.figure11 import figure_11
from launch.papers.cubuk.figure12 import figure_12
from launch.papers.cubuk.figure13 import figure_13
from launch.papers.cubuk.figure14 import figure_14
from launch.papers.cubuk.table1 import table_1
from launch.papers.reproduction import Reproduction

EXPERIMENTS = ("cubuk-vanilla", "cubuk-experiment1", "cubuk-experiment2")
IN_SMALL = {"fashion-mnist": tuple(f"{name}-small" for name in EXPERIMENTS)}
FIRST_TWO = {data: names[:2] for data, names in IN_SMALL.items()}
CELL = ("block1_combine",)  # of a NASNet cell

CUBUK: dict[str, Reproduction] = {
    "cubuk-table1": Reproduction(
        "robust cells, searched and retrained, under white-box and black-box attacks",
        EXPERIMENTS, table_1, IN_SMALL, retrained=True,
        compare=comparisons.table_1,
    ),
    "cubuk-figure1": Reproduction(
        "published nets: adversarial error over epsilon, FGSM",
        ("cubuk-figure1",), figure_1, {"cifar10-small": ("cubuk-figure1-quick",)},
        needs=("model",), keep_all=True,
        compare=comparisons.figure_1,
    ),
    "cubuk-figure2": Reproduction(
        "MNIST: adversarial error over epsilon of plain nets and under shuffled labels",
        ("cubuk-figure2", "cubuk-figure2-shuffled"), figure_2,
        {"mnist": ("cubuk-figure2-quick", "cubuk-figure2-shuffled-quick")}, keep_all=True,
        compare=comparisons.figure_2,
    ),
    "cubuk-figure3": Reproduction(
        "linear response of logits: the epsilon that it and its mean field predict, and measured",
        ("cubuk-figure2",), figure_3, {"mnist": ("cubuk-figure2-quick",)}, keep_all=True,
        compare=comparisons.figure_3,
    ),
    "cubuk-figure4": Reproduction(
        "densities of logit differences: of plain nets, and of random logits",
        ("cubuk-figure2",), figure_4, {"mnist": ("cubuk-figure2-quick",)}, keep_all=True,
        compare=comparisons.densities,
    ),
    "cubuk-figure5": Reproduction(
        "MNIST: accuracy over epsilon with the entropy term, step l.l. training, and both",
        ("cubuk-figure5",), figure_5, {"mnist": ("cubuk-figure5-quick",)},
        needs=("recipe",), keep_all=True,
        compare=comparisons.figure_5,
    ),
    "cubuk-figure6": Reproduction(
        "MNIST: densities of logit differences with and without the entropy term",
        ("cubuk-figure5",), figure_6, {"mnist": ("cubuk-figure5-quick",)},
        needs=("recipe",), keep_all=True,
        compare=comparisons.densities,
    ),
    "cubuk-figure7": Reproduction(
        "accuracy over epsilon: the baseline trained without and with step l.l., both winners",
        EXPERIMENTS, figure_7, IN_SMALL, retrained=True, also={0: ADVERSARIAL},
        compare=comparisons.figure_7,
    ),
    "cubuk-figure8": Reproduction(
        "adversarial images that fool Experiment 1's winner and ones that do not, a few of each",
        EXPERIMENTS[:2], figure_8, FIRST_TWO, retrained=True,
    ),
    "cubuk-figure9": Reproduction(
        "adversarial accuracy of a search's children against clean accuracy and parameters",
        ("cubuk-experiment2",), figure_9, {"fashion-mnist": ("cubuk-experiment2-small",)},
        compare=comparisons.figure_9,
    ),
    "cubuk-figure10": Reproduction(
        "hundreds of random nets: errors over epsilon, exponents, and what goes with robustness",
        ("cubuk-figure10",), figure_10, {"mnist": ("cubuk-figure10-quick",)}, needs=SCORES,
        compare=comparisons.figure_10,
    ),
    "cubuk-figure11": Reproduction(
        "CIFAR-10: adversarial error over epsilon of a ResNet",
        ("cubuk-figure11",), figure_11, {"cifar10-small": ("cubuk-figure11-quick",)},
        keep_all=True,
        compare=comparisons.figure_11,
    ),
    "cubuk-figure12": Reproduction(
        "CIFAR-10: accuracy over epsilon of wide ResNets with the entropy term, and transferred",
        ("cubuk-figure12",), figure_12, {"cifar10-small": ("cubuk-figure12-quick",)},
        needs=("recipe.entropy_weight", "repeat"), keep_all=True,
        compare=comparisons.figure_12,
    ),
    "cubuk-figure13": Reproduction(
        "published nets: densities of logit differences",
        ("cubuk-figure1",), figure_13, {"cifar10-small": ("cubuk-figure1-quick",)},
        needs=("model",), keep_all=True,
        compare=comparisons.densities,
    ),
    "cubuk-figure14": Reproduction(
        "the best cells of the searches, drawn", EXPERIMENTS, figure_14, IN_SMALL, needs=CELL,
        compare=comparisons.figure_14,
    ),
    "cubuk-figure15": Reproduction(
        "adversarial images that fool Experiment 1's winner and ones that do not, many of each",
        EXPERIMENTS[:2], figure_15, FIRST_TWO, retrained=True,
    ),
}  # fmt: skip
