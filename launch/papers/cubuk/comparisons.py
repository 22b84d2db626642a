"""Cubuk et al.'s numbers beside ours, from the tables that their reproductions leave."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from launch.papers.cubuk.figure14 import PAPER_PARAMETERS
from launch.papers.cubuk.printed import (
    ACCURATE,
    ANY_NET,
    CIFAR,
    CROSS_FIRST,
    IMAGENET,
    MNIST,
    SHUFFLED,
    TAILS,
)
from launch.papers.cubuk.table1 import PAPER, PAPER_EPSILON
from launch.show.comparison import Comparison, less, more, number, span
from nas.analysis.correlation import spearman

POINTS = 0.05  # by which accuracies may be apart
EXPONENT = 0.1  # and exponents
TAIL = 0.25  # and those of densities
OTHERS, CHILDREN = 0.85, (0.22, 0.026)  # Figure 9: clean accuracy above which range and deviation
CHANCE = 0.5  # a correlation that "strongly follows" has, and one that "hardly follows" has not
ENTROPY = re.compile(r"(?:^|, )λ = [\d.]+")


def table_1(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Table 1: each retrained winner of an experiment beside the paper's best architecture."""
    best = table[table["model"] == PAPER[-1].model].iloc[0]
    ours = table[~table["model"].isin([row.model for row in PAPER])]
    experiments = ours[~ours["model"].str.contains("vanilla")]
    columns = [str(c) for c in table.columns[2:] if not math.isnan(best[c])]
    return [
        number(f"{row['model']}: {column.replace('_', ' ')} accuracy", float(best[column]),
               float(row[column]), margin=POINTS)
        for _, row in experiments.iterrows() for column in columns
    ]  # fmt: skip


def figure_7(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 7: accuracy at ε = 8/255 of the experiments' winners beside the paper's best one."""
    at = table[np.isclose(table["epsilon"], PAPER_EPSILON)]
    at = at[~at["net"].str.contains("vanilla")]
    printed = PAPER[-1].white
    return [
        number(f"{row['net']}: accuracy under {row['attack']} at ε = 8/255",
               float(printed[row["attack"]] or math.nan), float(row["accuracy"]), margin=POINTS)
        for _, row in at.iterrows() if printed.get(row["attack"]) is not None
    ]  # fmt: skip


def figure_1(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 1: the exponents of published nets under FGSM."""
    return _exponents(table, IMAGENET)


def figure_2(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 2: the exponents by attack on test images, and under shuffled labels."""
    parts = (("test", MNIST), ("train", SHUFFLED))
    return [c for part, paper in parts for c in _exponents(table[table["part"] == part], paper)]


def figure_10(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 10: the exponents of random nets above the paper's accuracy, their median."""
    shown = table[table["clean_accuracy"] > ACCURATE]
    b = shown["error_exponent"].dropna()
    low, high = span(ANY_NET["FGSM"]) or (math.nan, math.nan)
    return [
        Comparison(f"exponent B under FGSM, median of {len(b)} nets", (low, high),
                   float(b.median())),
        number(f"exponent of the density of Δ_12, median of {len(shown)} nets", TAILS[2],
               float(shown["logits_12_exponent"].median()), margin=TAIL),
    ]  # fmt: skip


def figure_11(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 11: the exponents of a ResNet, by attack."""
    return _exponents(table, {**ANY_NET, **CIFAR})


def figure_3(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 3: how many attacks cross to the second largest logit first, and what is predicted."""
    found = []
    for (net, norm), rows in table.groupby(["net", "norm"], sort=False):
        broken = rows[np.isfinite(rows["measured"])]
        crossed = float((broken["first_rank"] == 2).mean()) if len(broken) else math.nan
        found.append(more(f"{net}, {norm}: broken images that cross Δ_12 first", CROSS_FIRST,
                          crossed))  # fmt: skip
    return found


def densities(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figures 4, 6 and 13: the exponents of the densities of Δ_1j at small Δ."""
    found = []
    keys = ["net", "training", "part", "rank"]
    each = table.fillna({"part": "", "training": ""}).drop_duplicates(keys)
    for row in each.to_dict("records"):
        images = f"{row['part']} images" if row["part"] else ""
        title = ", ".join(text for text in (row["net"], row["training"], images) if text)
        found.append(
            number(
                f"{title}: exponent of the density of Δ_1{row['rank']}",
                TAILS[int(row["rank"])],
                float(row["straight"]),
                interval=(float(row["straight_low"]), float(row["straight_high"])),
                margin=TAIL,
            )
        )
    return found


def figure_5(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 5: what the entropy term adds in the white box, median over nets and ε."""
    return [more("accuracy that the entropy term adds, white box, median", 0.0,
                 _added(table[table["epsilon"].between(0.05, 0.3)]))]  # fmt: skip


def figure_12(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 12: the entropy term helps in the white box, and not in the black box."""
    attacked = table[table["epsilon"].between(0.4 / 255, 8.1 / 255)]
    white = attacked["gradients"] == "its own"
    return [
        more("accuracy that the entropy term adds, white box, median", 0.0,
             _added(attacked[white])),
        less("accuracy that it adds in the black box, median", 0.0, _added(attacked[~white]),
             margin=0.01),
    ]  # fmt: skip


def figure_9(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 9: adversarial accuracy follows clean accuracy, and hardly parameters."""
    adversarial = table["adversarial_accuracy"]
    clean = spearman(table["clean_accuracy"], adversarial)
    found = [more("rank correlation of adversarial and clean accuracy", CHANCE, clean.value,
                  interval=(clean.low, clean.high))]  # fmt: skip
    if "parameters" in table:
        size = spearman(table["parameters"], adversarial)
        found.append(less("rank correlation of adversarial accuracy and parameters", CHANCE,
                          size.value, interval=(size.low, size.high)))  # fmt: skip
    accurate = table[table["clean_accuracy"] > OTHERS]["adversarial_accuracy"]
    enough = len(accurate) > 1
    values = (accurate.max() - accurate.min(), accurate.std()) if enough else (math.nan, math.nan)
    for what, printed, ours in zip(("range", "standard deviation"), CHILDREN, values, strict=True):
        found.append(
            number(
                f"{what} of adversarial accuracy of the {len(accurate)} children above "
                f"{OTHERS:.0%} clean accuracy",
                printed,
                float(ours),
                factor=1.5,
                note="" if enough else f"too few children are above {OTHERS:.0%}",
            )
        )
    return found


def figure_14(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Figure 14: the parameters of the nets to retrain; and longer, narrower cells."""
    found = [
        number(f"{row['search']}: parameters", printed, float(row["parameters"]), factor=1.5)
        for printed, (_, row) in zip(PAPER_PARAMETERS, table.iterrows(), strict=False)
    ]
    baseline = table.iloc[0]
    for _, row in table.iloc[1:].iterrows():
        longer = float(row["longest_path"] - baseline["longest_path"])
        wider = float(row["width"] - baseline["width"])
        found += [
            more(f"{row['search']}: blocks by which its cell is longer than the baseline's", 0.5,
                 longer),
            less(f"{row['search']}: blocks by which it is wider", -0.5, wider),
        ]  # fmt: skip
    return found


def _exponents(table: pd.DataFrame, paper: Mapping[str, str]) -> list[Comparison]:
    found = []
    keys = ["net", "training", "attack"]
    for (net, training, attack), rows in table.groupby(keys, sort=False):
        printed = span(paper.get(str(attack), ""))
        if printed is None:
            continue
        row = rows.iloc[0]
        fitted = row["events"] > 0
        found.append(
            Comparison(
                f"{net}, {training}: exponent B under {attack}",
                printed,
                float(row["exponent"]) if fitted else math.nan,
                interval=(float(row["exponent_low"]), float(row["exponent_high"])),
                margin=EXPONENT,
                note="" if fitted else "no image breaks at a small ε: there is no law to fit",
            )
        )
    return found


def _added(table: pd.DataFrame) -> float:
    """Return the median of accuracy with the entropy term less that without, of equal nets."""
    keys = ["net", "repeat", "attack", "gradients", "epsilon"]
    term = table["training"].str.contains("λ = ", regex=False)
    rest = table["training"].str.replace(ENTROPY, "", regex=True).replace("", "plain")
    both = table[term].assign(training=rest[term]).merge(
        table[~term], on=[*keys, "training"], suffixes=("", "_without")
    )  # fmt: skip
    return float((both["accuracy"] - both["accuracy_without"]).median())
