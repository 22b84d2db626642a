"""What Sutton et al. 2023 (arXiv 2309.03665) print: medians and means over problems, in percent."""

from __future__ import annotations

from dataclasses import dataclass

DELTAS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Printed:
    """One row: accuracy, adversarial susceptibility, random susceptibility by δ; all in percent."""

    what: str
    accuracy: float
    adversarial: float
    random: dict[float, float]


CIFAR = (
    Printed("train, median of 9 pairs", 99.70, 91.88, {2: 0.02, 5: 2.65, 10: 41.49}),
    Printed("test, median of 9 pairs", 95.80, 89.96, {2: 0.17, 5: 2.57, 10: 40.57}),
    Printed("train, mean of 45 pairs", 99.57, 90.21, {1: 0.01, 2: 0.10, 5: 3.24, 10: 26.84}),
    Printed("test, mean of 45 pairs", 94.09, 89.75, {1: 0.05, 2: 0.20, 5: 3.58, 10: 27.84}),
)
"""Table 1, and our means of Tables 5 to 8.

Table 1 has 41.19 for 41.49, which is the median of its Table 12; section 7.2.1 has means of 85.0
and 79.48 for 90.21 and 89.75, which contradict Table 5.
"""

FASHION_MNIST = (
    Printed("train, median of 9 pairs", 99.51, 53.58, {2: 0.07, 5: 10.71, 10: 56.84}),
    Printed("test, median of 9 pairs", 99.40, 53.01, {2: 0.09, 5: 13.35, 10: 57.43}),
)
GTSRB = (
    Printed("train, median of 5 pairs", 98.32, 77.53, {2: 0.36, 5: 5.76, 10: 39.26}),
    Printed("test, median of 5 pairs", 98.51, 77.00, {2: 0.36, 5: 5.10, 10: 36.07}),
)
IMAGENET = (
    Printed("resnet50", 70.8, 94.2, {10: 2.5}),
    Printed("vgg19", 66.52, 97.07, {10: 1.4}),
)
BY_DATA = {"cifar10": CIFAR, "fashion-mnist": FASHION_MNIST, "gtsrb": GTSRB}
"""Beginning of a dataset's name -> the paper's rows."""


def printed_for(dataset: str) -> tuple[Printed, ...]:
    """Return the paper's rows of a dataset, by its name or its file's; none of another one."""
    name = dataset.removeprefix("npz:").rpartition("/")[2]
    return next((rows for known, rows in BY_DATA.items() if name.startswith(known)), ())
