"""Sutton et al.'s numbers beside ours, from the tables that their reproductions leave."""

from __future__ import annotations

import math

import pandas as pd

from launch.papers.sutton.printed import IMAGENET, Printed, printed_for
from launch.show.comparison import Comparison, less, more, number

POINTS = 5.0  # by which shares in percent may be apart
SIGMAS = 5.0


def pairs(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Table 1: medians over the problems, training and test images, in percent."""
    found = []
    for row in printed_for(data):
        part, _, statistic = row.what.partition(", ")
        if statistic.startswith("median"):
            ours = table[table["part"] == part].median(numeric_only=True)
            found += _row(row, row.what, ours)
    return found


def imagenet(table: pd.DataFrame, data: str) -> list[Comparison]:
    """ImageNet's row of Table 1: each published net, in percent."""
    found = []
    for row in IMAGENET:
        own = table[table["model"] == row.what]
        found += _row(row, row.what, own.iloc[0]) if len(own) else []
    return found


def noise(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Section 7.3: noise in training leaves attacks on as many images."""
    test = table[table["part"] == "test"]
    by = test.groupby(["training", "half_side"])["adversarial"].median()
    plain = by[by.index.get_level_values("training") == "none"]
    noisy = by[by.index.get_level_values("training") != "none"]
    change = float((noisy - plain.iloc[0]).min()) if len(plain) and len(noisy) else math.nan
    return [
        more("points by which noise in training changes the share of attacked images, the least",
             0.0, change, margin=POINTS)
    ]  # fmt: skip


def theory(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Every theorem: bounds on the wrong side, and draws that are not the exact probability's."""
    found = []
    for theorem, rows in table.groupby("theorem"):
        lower = rows["side"].str.contains("least")
        slack = 1e-9 * rows["exact"].abs() + 1e-12
        wrong = rows["bound"].where(lower, -rows["bound"]) > (
            rows["exact"].where(lower, -rows["exact"]) + slack
        )
        found.append(
            number(f"{theorem}: bounds of {len(rows)} on the wrong side", 0, int(wrong.sum()))
        )
    far = float(table["sigmas"].max())
    found.append(less("standard errors by which the farthest draw is off", SIGMAS, far))
    return found


def _row(row: Printed, what: str, ours: pd.Series) -> list[Comparison]:
    printed = {"accuracy": row.accuracy, "adversarial": row.adversarial}
    printed |= {f"random_{delta:g}": share for delta, share in row.random.items()}
    titles = {"accuracy": "accuracy", "adversarial": "images with an attack"}
    return [
        number(
            f"{what}: {titles.get(name, name.replace('random_', 'broken by noise, δ = '))}, %",
            value,
            float(ours.get(name, math.nan)),
            margin=POINTS,
        )
        for name, value in printed.items()
    ]
