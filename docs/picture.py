"""Draw the README's pictures from finished runs.

PGD accuracy against Ψ, one dot a trial, a suspicious one with a red rim; or what psinas reproduce
draws of a run of psi-table2 or of pairs of classes.

python docs/picture.py runs/fashion-mnist-grid docs/fashion-mnist-grid.svg
python docs/picture.py runs/psi-table2 docs/psi-table2.svg
python docs/picture.py runs/sutton-fashion-mnist-quick docs/sutton-fashion-mnist.svg
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "psinas", "svg.fonttype": "none"})

from matplotlib import pyplot  # noqa: E402

from launch.papers.psi import figures  # noqa: E402
from launch.papers.psi.untrained import untrained_cells  # noqa: E402
from launch.papers.sutton.pairs import pairs  # noqa: E402
from launch.runs.run import Run  # noqa: E402
from launch.show.reporter import Reporter  # noqa: E402
from nas.ledger.table import load_table  # noqa: E402

COLOURS = ["#c6dbef", "#6baed6", "#2171b5", "#08306b"]


def draw(run: str, out: str) -> None:
    table = load_table(run)
    if "data.classes" in table:
        pairs([Run(run)], Reporter()).figure.savefig(out, metadata={"Date": None})
        return
    if "psi_limit" in table:
        figures.untrained(untrained_cells(table)).savefig(out, metadata={"Date": None})
        return
    figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
    for colour, (depth, rows) in zip(COLOURS, table.groupby("depth"), strict=True):
        axes.errorbar(
            rows["psi"],
            100 * rows["pgd_accuracy"],
            xerr=[rows["psi"] - rows["psi_low"], rows["psi_high"] - rows["psi"]],
            yerr=100 * rows["pgd_accuracy_stderr"],
            fmt="none",
            ecolor="#bbbbbb",
            linewidth=0.8,
        )
        axes.scatter(
            rows["psi"],
            100 * rows["pgd_accuracy"],
            s=6 * rows["channels"],
            color=colour,
            edgecolor=["#cc0000" if flags else "black" for flags in rows["suspicious"]],
            linewidth=0.6,
            zorder=3,
            label=f"depth {depth}",
        )
    axes.set_xlabel("susceptibility ratio Ψ (smaller is better), 95 % interval")
    axes.set_ylabel("PGD-7 accuracy at 8/255, %")
    axes.set_title("Fashion-MNIST: 12 architectures, area by channels (8, 16, 32)", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(*sys.argv[1:3])
