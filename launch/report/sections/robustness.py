"""Robust accuracy over epsilon of the winner and the front, attacked for the report."""

from __future__ import annotations

from launch.report.charts import Chart, chart
from launch.report.findings import Findings
from launch.report.page import Details, Paragraph, Section, Table
from launch.report.plots import Axis, Plot, Series
from launch.runs.asked import Curve


def make(found: Findings) -> Section | None:
    """Return the curves, with their intervals; None where no model was to be asked."""
    if not any(each.winner is not None or each.said for each in found.attacked.values()):
        return None
    several = len(found.runs) > 1
    blocks: list[Chart | Details | Paragraph] = []
    images = 0
    for place, (label, attacked) in enumerate(found.attacked.items()):
        of = f"{label}: " if several else ""
        if attacked.curves:
            blocks += _of_run(place, of, attacked.curves)
            images += sum(curve.images for curve in attacked.curves)
        blocks += [Paragraph(f"{of}{text}", "note") for text in attacked.said]
    lead = (
        "Attacked for this report, on validation images: what no perturbation that the attack "
        "found within ε breaks. A stronger attack can only lower a curve; the scores of the search "
        "are of other attacks, and perhaps of other images."
        if images
        else "No model was attacked for this report."
    )
    return Section("robustness", "Robust accuracy over ε", lead, blocks)


def _of_run(place: int, of: str, curves: tuple[Curve, ...]) -> list[Chart | Details]:
    first = curves[0]
    scale, unit = (255, "ε, in 255ths of the pixels' range") if first.norm == "linf" else (1, "ε")
    series = [
        Series(
            f"trial {curve.number}" + (", the winner" if curve is first else ""),
            [scale * epsilon for epsilon in curve.epsilons],
            list(curve.accuracies),
            "line",
            i,
            [_said(curve, j, scale) for j in range(len(curve.epsilons))],
            [low for low, _ in curve.intervals] if not i else (),
            [high for _, high in curve.intervals] if not i else (),
        )
        for i, curve in enumerate(curves)
    ]
    counts = sorted({curve.images for curve in curves})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    attacks = ", ".join(dict.fromkeys(curve.attack for curve in curves))
    trained = sorted({scale * curve.trained for curve in curves})
    caption = (
        f"{of}{attacks}, on {number} validation images; bars are the 95 % intervals of the first, "
        f"those of all are in the table. Trained for "
        f"ε = {', '.join(f'{value:.3g}' for value in trained)}."
    )
    plot = Plot(
        tuple(series), Axis(unit, low=0), Axis("robust accuracy", low=0, high=1, percent=True)
    )
    rows = [
        [str(curve.number), str(curve.images),
         *(f"{accuracy:.1%} [{low:.1%}, {high:.1%}]"
           for accuracy, (low, high) in zip(curve.accuracies, curve.intervals, strict=True))]
        for curve in curves
    ]  # fmt: skip
    heads = [f"ε = {scale * epsilon:.3g}" for epsilon in first.epsilons]
    alike = [curve for curve in curves if curve.epsilons == first.epsilons]
    table = Table(
        f"{of}robust accuracy and its 95 % interval; ε {'in 255ths' if scale == 255 else ''}",
        ["trial", "images", *heads],
        rows[: len(alike)],
        frozenset(range(len(heads) + 2)),
    )
    title = f"{of}robust accuracy over ε" if of else "Robust accuracy over ε"
    drawn = chart(f"robustness-{place}", title, caption, plot)
    return [drawn, Details("The numbers", (table,))]


def _said(curve: Curve, place: int, scale: float) -> str:
    low, high = curve.intervals[place]
    return (
        f"trial {curve.number}\nε = {scale * curve.epsilons[place]:.3g}\n"
        f"{curve.accuracies[place]:.1%} [{low:.1%}, {high:.1%}]"
    )
