"""The radii at which Ψ̂ is measured: a ladder, or one drawn for each input."""

from __future__ import annotations

LAWS = ("fixed", "log-uniform", "uniform")


def log_radii(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return ``count`` radii from ``low`` to ``high``, equally far apart in ln r.

    Raises:
        ValueError: a bound that is not positive, or fewer than two.
    """
    if not (low > 0 and high > low and count >= 2):
        raise ValueError(f"expected 0 < low < high and count >= 2, got {low}, {high}, {count}")
    return tuple(low * (high / low) ** (i / (count - 1)) for i in range(count))
