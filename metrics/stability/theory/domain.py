"""What parameters may be: everything else is refused in one line."""

from __future__ import annotations

import math

import numpy as np


def check_dimension(n: int) -> None:
    """Raise ValueError unless ``n`` is an integer >= 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected an integer >= 1, got {n!r}")


def check_from(name: str, value: float, low: float, where: str = "") -> None:
    """Raise ValueError unless ``value`` is finite and at least ``low``."""
    if not low <= value < math.inf:
        stated = f" in {where}" if where else ""
        raise ValueError(f"{name}: expected a finite number >= {low:.6g}{stated}, got {value!r}")


def check_between(name: str, value: float, low: float, high: float, where: str) -> None:
    """Raise ValueError for a value outside the interval that a theorem is stated on."""
    if not low <= value <= high:
        raise ValueError(
            f"{name}: expected {low:.6g} <= {name} <= {high:.6g} in {where}, got {value!r}"
        )
