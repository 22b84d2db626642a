"""The reproductions of Sutton et al. 2023, by name."""

from __future__ import annotations

from launch.papers.reproduction import Reproduction
from launch.papers.sutton import comparisons
from launch.papers.sutton.imagenet import imagenet
from launch.papers.sutton.noise import noise_training
from launch.papers.sutton.pairs import pairs
from launch.papers.sutton.theory import sutton_theory

PAIRS = ("data.classes", "stability_adversarial")

SUTTON: dict[str, Reproduction] = {
    "sutton-theory": Reproduction(
        "the two-ball models: bounds, exact probabilities and draws", (), sutton_theory, {},
        compare=comparisons.theory,
    ),
    "sutton-cifar10": Reproduction(
        "CIFAR-10's pairs of classes under attack and noise of its size",
        ("sutton-cifar10",), pairs, {"cifar10-small": ("sutton-cifar10-quick",)},
        needs=PAIRS, keep_all=True,
        compare=comparisons.pairs,
    ),
    "sutton-fashion-mnist": Reproduction(
        "Fashion-MNIST's pairs of classes under attack and noise of its size",
        ("sutton-fashion-mnist",), pairs, {"fashion-mnist": ("sutton-fashion-mnist-quick",)},
        needs=PAIRS, keep_all=True,
        compare=comparisons.pairs,
    ),
    "sutton-gtsrb": Reproduction(
        "pairs of traffic signs under attack and noise of its size",
        ("sutton-gtsrb",), pairs, {"gtsrb-7": ("sutton-gtsrb-quick",)},
        needs=PAIRS, keep_all=True,
        compare=comparisons.pairs,
    ),
    "sutton-noise": Reproduction(
        "training on noise against plain training",
        ("sutton-noise",), noise_training, {"fashion-mnist": ("sutton-noise-quick",)},
        needs=(*PAIRS, "recipe"), keep_all=True,
        compare=comparisons.noise,
    ),
    "sutton-imagenet": Reproduction(
        "published nets on ImageNet under attack and noise of its size",
        ("sutton-imagenet",), imagenet, {"cifar10-small": ("sutton-imagenet-quick",)},
        needs=("model", "stability_adversarial"),
        compare=comparisons.imagenet,
    ),
}  # fmt: skip
