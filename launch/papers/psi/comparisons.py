"""The Ψ paper's numbers beside ours, from the tables that its reproductions leave."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from launch.papers.psi.printed import CORRELATION, RESNET18_GROWTH, RESNET18_LAMBDA
from launch.show.comparison import Comparison, number
from nas.analysis.correlation import pearson

UP_TO_32, AT_64, TRAINED = 2.0, 3.0, 1.5  # factors within which Ψ̂ counts as the paper's
DECADES, STAYS = 3.0, math.log(1.5)
AT = "accuracy_at_1.0e-02"
NORMAL = 1.959964


def resnets(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Table 1: Ψ̂ of each depth."""
    return [_trained(row, f"Ψ̂ of ResNet-{row['depth']:g}") for row in _printed(table)]


def grid(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Table 3 and Figure 5: Ψ̂ of each depth and number of channels."""
    return [_trained(row, f"Ψ̂ at {_cell(row)}") for row in _printed(table)]


def untrained(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Table 2 and Figure 4: Ψ̂ of each cell, the interval being that of its seeds."""
    found = []
    for row in _printed(table):
        half = math.exp(NORMAL * row["ln_psi_sd"] / math.sqrt(row["seeds"]))
        found.append(
            number(
                f"Ψ̂ at {_cell(row)}",
                row["paper"],
                row["psi"],
                interval=(row["psi"] / half, row["psi"] * half),
                factor=UP_TO_32 if row["depth"] <= 32 else AT_64,
                note="outputs are saturated: Ψ̂ says which radius was used, and the paper does not "
                "give its own"
                if row["depth"] > 32
                else "",
            )
        )
    return found


def hidden_states(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 2: how the drift grows from input to output."""
    last = table.iloc[-1]
    growth = float(last["growth"])
    return [
        number("drift of the output over that of the input", RESNET18_GROWTH, growth, factor=2.0),
        number("λ = ln of it per layer", RESNET18_LAMBDA, math.log(growth) / float(last["layer"]),
               factor=1.2),
    ]  # fmt: skip


def stable(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 3: over how many decades of radii Ψ̂ hardly changes, the net that does worst."""
    spans = []
    for _, rows in table.groupby("number"):
        radii, psi = rows["radius"].to_numpy(), rows["psi"].to_numpy()
        off = np.abs(np.log(psi / psi[0])) > STAYS
        end = int(off.argmax()) if off.any() else len(psi)
        spans.append(math.log10(radii[end - 1] / radii[0]))
    worst = min(spans, default=math.nan)
    return [number("decades of radii over which Ψ̂ stays within x/÷ 1.5", DECADES, worst,
                   margin=0.5)]  # fmt: skip


def correlation(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 7: the correlation of Ψ̂ and post-attack accuracy at r = 0.01."""
    found = pearson(table["psi"], table[AT])
    return [
        number("correlation of Ψ̂ and accuracy at r = 0.01", CORRELATION, found.value,
               interval=(found.low, found.high), margin=0.05)
    ]  # fmt: skip


def _printed(table: pd.DataFrame) -> list[dict[str, float]]:
    return [dict(row) for row in table.to_dict("records") if not math.isnan(row["paper"])]  # type: ignore[arg-type]


def _cell(row: dict[str, float]) -> str:
    return f"depth {row['depth']:g}, {row['channels']:g} channels"


def _trained(row: dict[str, float], what: str) -> Comparison:
    return number(
        what, row["paper"], row["psi"], interval=(row["psi_low"], row["psi_high"]), factor=TRAINED
    )
