"""The reproductions of the Ψ paper, by name."""

from __future__ import annotations

from launch.papers.psi import comparisons
from launch.papers.psi.trained import figure_2, figure_3, figure_6, figure_7, table_1, table_3
from launch.papers.psi.untrained import SCORES, table_2
from launch.papers.reproduction import Reproduction

GRID = ("depth", "channels")
RESNETS, UNTRAINED, TRAINED = ("psi-table1",), ("psi-table2",), ("psi-table3",)
NOISE = {"noise": ("psi-table2-quick",)}


def _in_small(preset: str) -> dict[str, tuple[str, ...]]:
    return {data: (f"{preset}-{data}",) for data in ("digits", "fashion-mnist", "food101-10")}


PSI: dict[str, Reproduction] = {
    "psi-table1": Reproduction(
        "Ψ̂ of trained ResNets",
        RESNETS, table_1, _in_small("psi-table1"), needs=("depth",), keep_all=True,
        compare=comparisons.resnets,
    ),
    "psi-table2": Reproduction(
        "Ψ̂ of untrained nets on noise",
        UNTRAINED, table_2, NOISE, needs=(*GRID, *SCORES),
        compare=comparisons.untrained,
    ),
    "psi-table3": Reproduction(
        "Ψ̂ of trained depth x channels nets",
        TRAINED, table_3, _in_small("psi-table3"), needs=GRID, keep_all=True,
        compare=comparisons.grid,
    ),
    "psi-figure2": Reproduction(
        "drift of hidden states in a ResNet",
        RESNETS, figure_2, _in_small("psi-table1"), needs=("depth",), keep_all=True,
        compare=comparisons.hidden_states,
    ),
    "psi-figure3": Reproduction(
        "Ψ̂ against the radius",
        RESNETS, figure_3, _in_small("psi-table1"), needs=("depth",), keep_all=True,
        compare=comparisons.stable,
    ),
    "psi-figure4": Reproduction(
        "Table 2 drawn, with the limit r → 0",
        UNTRAINED, table_2, NOISE, needs=(*GRID, *SCORES),
        compare=comparisons.untrained,
    ),
    "psi-figure5": Reproduction(
        "Table 3 drawn",
        TRAINED, table_3, _in_small("psi-table3"), needs=GRID, keep_all=True,
        compare=comparisons.grid,
    ),
    "psi-figure6": Reproduction(
        "post-attack accuracy against radius",
        TRAINED, figure_6, _in_small("psi-table3"), needs=GRID, keep_all=True,
    ),
    "psi-figure7": Reproduction(
        "Ψ̂ against post-attack accuracy",
        TRAINED, figure_7, _in_small("psi-table3"), needs=GRID, keep_all=True,
        compare=comparisons.correlation,
    ),
}  # fmt: skip
