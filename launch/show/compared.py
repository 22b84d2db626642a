"""A comparison of two sides, in words: what was compared, how far apart, how sure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from launch.show.printed import short
from launch.show.tables import on_a_line
from nas.analysis import Comparison

OF = {
    "trials": "mean over the complete trials",
    "best": "best of a run",
    "hypervolume": "hypervolume of a run",
}
BY = {
    "architecture": "paired by architecture",
    "seed": "paired by seed",
    "none": "not paired",
}


def compared_lines(names: Sequence[str], found: Comparison) -> list[str]:
    """Return what a person is told of a comparison.

    Args:
        names: of the two sides.
        found: the comparison.
    """
    a, b = map(on_a_line, names)
    after = f" after {found.trials} trials" if found.trials is not None else ""
    lines = [
        f"{on_a_line(found.score)} ({found.direction}), {OF[found.of]}{after}, {_paired(found)}",
        f"  {a}: {short(found.a)}",
        f"  {b}: {short(found.b)}",
        f"  difference {short(found.difference)}{_sureness(found)}: {_verdict(found, a, b)}",
    ]
    if found.needed is not None:
        lines.append(f"  a claim of this difference needs {found.needed:,} {_unit(found)}")
    return [*lines, *(f"  note: {on_a_line(note)}" for note in found.notes)]


def _paired(found: Comparison) -> str:
    if found.by != "none":
        return f"{BY[found.by]}, n = {found.n_a}"
    return f"{BY[found.by]}, n = {found.n_a} and {found.n_b}"


def _sureness(found: Comparison) -> str:
    if math.isnan(found.low):
        return ""
    return f" [{short(found.low)}, {short(found.high)}], p = {found.p:.2g}"


def _verdict(found: Comparison, a: str, b: str) -> str:
    if found.better == "undecided":
        return "undecided"
    return f"{a if found.better == 'a' else b} is better"


def _unit(found: Comparison) -> str:
    if found.by == "architecture":
        return "architectures on both sides"
    if found.by == "seed":
        return "seeds on both sides"
    return "trials a side" if found.of == "trials" else "runs a side"
