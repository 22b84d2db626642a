"""What Peck et al. 2017 print: Tables 1 and 2, all divided by the number of pixels."""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = ("mean", "median", "sd", "min", "max")
PIXELS = 255  # Table 1 is of pixels in 0 ... 255: its largest size is 100 sqrt(d) / d


@dataclass(frozen=True)
class Printed:
    """One dataset's rows, in the order of ``COLUMNS``.

    Attributes:
        fgs: Table 1, L2 norms of the smallest fast gradient sign perturbations.
        bounds: Table 2, the lower bounds. The paper does not say of which pixels.
        accuracy: of its LeNet on test images, as the text has it.
    """

    fgs: tuple[float, ...]
    bounds: tuple[float, ...]
    accuracy: str


MNIST = Printed(
    (0.933448, 0.884287, 0.4655439, 0.000023, 3.306903),
    (7.274e-8, 6.547e-8, 4.229566e-8, 4.073e-10, 2.932e-7),
    "more than 99 %",
)
CIFAR = Printed(
    (0.0218984, 0.0091399, 0.06103627, 0.0000012, 1.6975207),
    (4.812e-13, 4.445e-13, 2.605381e-13, 7.563e-15, 2.098e-12),
    "about 60 %",
)
BY_DATA = {"mnist": MNIST, "cifar10": CIFAR}
"""Beginning of a dataset's name -> the paper's rows."""


def printed_for(dataset: str) -> Printed | None:
    """Return the paper's rows of a dataset, by its name or its file's; None of another one."""
    name = dataset.removeprefix("npz:").rpartition("/")[2]
    return next((rows for known, rows in BY_DATA.items() if name.startswith(known)), None)
