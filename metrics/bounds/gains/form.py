"""How much a layer may stretch a perturbation, and by which formula that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MODES = ("paper", "certified", "tight")


@dataclass(frozen=True)
class Form:
    """One bound on ||h(x + r) - h(x)|| / ||r||.

    Attributes:
        formula: as one would write it.
        gain: its value.
        source: ``quoted`` from the paper, ``derived`` by us, or ``exact``.
        valid: whether it holds; a printed theorem that does not is used in mode ``paper`` alone.
        note: what there is to say of it.
    """

    formula: str
    gain: float
    source: str = "derived"
    valid: bool = True
    note: str = ""


def least(forms: Sequence[Form]) -> Form:
    """Return the form with the smallest gain, the first of equal ones."""
    return min(forms, key=lambda form: form.gain)


def check_mode(mode: str) -> None:
    """Raise ValueError for an unknown mode."""
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {list(MODES)}, got {mode!r}")
