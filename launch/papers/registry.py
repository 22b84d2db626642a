"""The Ψ paper's tables and figures: each a search, a table beside the paper's, and a picture.

Several share a search: Figure 4 is Table 2 drawn, and Figures 5, 6 and 7 are about the nets of
Table 3. So a reproduction names its preset and works on the run directory, which a second
reproduction finds there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.config.config import Config
from launch.config.sections import Keep
from launch.papers.outcome import Outcome, Tell
from launch.papers.psi.trained import figure_2, figure_3, figure_6, figure_7, table_1, table_3
from launch.papers.psi.untrained import SCORES, table_2
from nas.errors import InputError

QUICK_DATA = ("digits", "fashion-mnist", "food101-10")


@dataclass(frozen=True)
class Reproduction:
    """One table or figure of the paper.

    Attributes:
        about: one line.
        preset: of the search that it needs; the small one is called ``PRESET-DATA``, or
            ``PRESET-quick`` where no data plays a part.
        make: works on the finished run.
        needs: decisions and scores that it cannot do without.
    """

    about: str
    preset: str
    make: Callable[[Path, Config, Tell], Outcome]
    needs: tuple[str, ...] = ("depth",)

    @property
    def trained(self) -> bool:
        """Whether the search trains its nets."""
        return self.preset != "psi-table2"

    def settle(self, config: Config) -> Config:
        """Return the configuration to search: every weight of trained nets is kept.

        Raises:
            InputError: a decision or a score that the reproduction needs is not there.
        """
        plan = config.plan()
        there = {*plan.decisions, *(n for m in plan.template.metrics for n in m.score_names)}
        if missing := [name for name in self.needs if name not in there]:
            raise InputError(
                f"expected the decisions and scores {', '.join(self.needs)}, got none of "
                f"{', '.join(missing)}: leave the preset's space and metrics as they are"
            )
        if not self.trained:
            return config
        keep = Keep(top=max(config.keep.top, plan.size))
        return config.model_copy(update={"keep": keep})

    def source(self, *, quick: bool, data: str | None) -> str:
        """Return the name of the preset.

        Raises:
            InputError: ``data`` without ``quick``, or one that no small preset is for.
        """
        if data is not None and not (quick and self.trained):
            why = "the full one has its own" if self.trained else f"{self.preset} is on noise"
            raise InputError(f"--data: expected only with --quick, got {data}: {why}")
        if not quick:
            return self.preset
        if not self.trained:
            return f"{self.preset}-quick"
        name = data or QUICK_DATA[0]
        if name not in QUICK_DATA:
            raise InputError(f"--data: expected one of {', '.join(QUICK_DATA)}, got {name!r}")
        return f"{self.preset}-{name}"


def reproduction(name: str) -> Reproduction:
    """Return the reproduction called ``name``.

    Raises:
        InputError: no such; the message lists the known ones.
    """
    if name not in REPRODUCTIONS:
        raise InputError(f"expected one of {', '.join(REPRODUCTIONS)}, got {name!r}")
    return REPRODUCTIONS[name]


GRID = ("depth", "channels")

REPRODUCTIONS: dict[str, Reproduction] = {
    "psi-table1": Reproduction("Ψ̂ of trained ResNets", "psi-table1", table_1),
    "psi-table2": Reproduction(
        "Ψ̂ of untrained nets on noise", "psi-table2", table_2, (*GRID, *SCORES)
    ),
    "psi-table3": Reproduction("Ψ̂ of trained depth x channels nets", "psi-table3", table_3, GRID),
    "psi-figure2": Reproduction("drift of hidden states in a ResNet", "psi-table1", figure_2),
    "psi-figure3": Reproduction("Ψ̂ against the radius", "psi-table1", figure_3),
    "psi-figure4": Reproduction(
        "Table 2 drawn, with the limit r → 0", "psi-table2", table_2, (*GRID, *SCORES)
    ),
    "psi-figure5": Reproduction("Table 3 drawn", "psi-table3", table_3, GRID),
    "psi-figure6": Reproduction(
        "post-attack accuracy against radius", "psi-table3", figure_6, GRID
    ),
    "psi-figure7": Reproduction("Ψ̂ against post-attack accuracy", "psi-table3", figure_7, GRID),
}
