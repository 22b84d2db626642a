"""Accuracies over ε: tables, changes and a picture of nets made up for it."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from launch.papers.cubuk.accuracies import (
    OWN,
    Accuracies,
    accuracy_lines,
    accuracy_table,
    adversarial_changes,
    change_lines,
    draw_accuracies,
    entropy_changes,
    of_measured,
    verdict,
    with_round,
)
from launch.papers.cubuk.nets import Measured, Net, trained
from launch.runs.run import FinishedTrial
from metrics.universality import EPSILONS
from nas.data.config import DataConfig
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces.feedforward import FeedForward

SPACE = FeedForward(kinds=("dense",), hidden_layers=(1,), units=(30, 100))
RUN = SimpleNamespace(config=SimpleNamespace(name="made-up"))


def net(number, units=30, repeat=0, **recipe):
    architecture = SPACE.architecture({"kind": "dense", "hidden_layers": 1, "units1": units})
    made = Recipe(**{"adversary": "none", "epsilon": 0.1, **recipe})
    trial = Trial(architecture, made, DataConfig(name="digits"), (), repeat=repeat)
    row = FinishedTrial(number, trial, {})
    return Net(RUN, row, f"dense {units}", trained(row))


PLAIN, ENTROPY = net(0), net(1, entropy_weight=4.5)
ROBUST, BOTH = net(2, adversary="step-ll"), net(3, adversary="step-ll", entropy_weight=4.5)
OTHER, AGAIN = net(4, units=100, entropy_weight=4.5), net(5, repeat=1, entropy_weight=4.5)
ALL = (PLAIN, ENTROPY, ROBUST, BOTH, OTHER, AGAIN)


def curve(of, *accuracies, attack="FGSM", gradients=OWN, total=400):
    return Accuracies(of, attack, gradients, (0.0, 0.1, 0.2), accuracies, total)


def binomial(share, total=400):
    """Return the half width of the Wilson interval at one standard deviation, by its formula."""
    return math.sqrt(share * (1 - share) / total + 1 / (4 * total**2)) / (1 + 1 / total)


def test_a_change_is_of_one_setting_and_nothing_else():
    pairs = [(c.first.row.number, c.second.row.number) for c in entropy_changes(ALL)]
    assert pairs == [(0, 1), (2, 3)]
    pairs = [(c.first.row.number, c.second.row.number) for c in adversarial_changes(ALL)]
    assert pairs == [(0, 2), (1, 3)]
    assert [c.what for c in entropy_changes(ALL)] == [
        "λ = 4.5 beside plain",
        "λ = 4.5 beside step-ll",
    ]
    assert [c.what for c in adversarial_changes(ALL)] == [
        "step-ll training beside plain",
        "step-ll training beside λ = 4.5",
    ]


def test_other_epsilons_of_training_are_no_pair():
    longer = net(2, adversary="step-ll", epsilon=0.2)
    assert adversarial_changes([PLAIN, longer]) == []


def test_the_table_has_a_row_an_epsilon():
    table = accuracy_table([curve(PLAIN, 0.9, 0.5, 0.0), curve(BOTH, 1.0, 0.8, 0.7)])
    assert len(table) == 6
    row = table.iloc[1]
    assert list(row[["search", "number", "net", "training", "repeat", "attack"]]) == [
        "made-up", 0, "dense 30", "plain", 0, "FGSM"
    ]  # fmt: skip
    assert (row["epsilon"], row["accuracy"], row["images"]) == (0.1, 0.5, 400)
    assert row["standard_error"] == pytest.approx(binomial(0.5))
    assert table.iloc[2]["standard_error"] == pytest.approx(1 / 802)  # of none right, not 0
    assert list(table["training"][3:]) == ["step-ll, λ = 4.5"] * 3


def test_lines_have_an_epsilon_a_column():
    found = [
        curve(PLAIN, 0.9, 0.5, 0.1),
        curve(AGAIN, 0.8, 0.6, 0.3),
        curve(PLAIN, 0.9, 0.4, 0.2, attack="PGD-20"),
    ]
    lines = accuracy_lines(found, (0.2, 0.3), str)
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["FGSM, accuracy in %, ε", "0.0", "0.2", "0.3"],
        ["dense 30, plain", "90.0 ± 1.5", "10.0 ± 1.5", "-"],
        ["dense 30, λ = 4.5, repeat 1", "80.0 ± 2.0", "30.0 ± 2.3", "-"],
        [""],
        ["PGD-20, accuracy in %, ε", "0.0", "0.2", "0.3"],
        ["dense 30, plain", "90.0 ± 1.5", "20.0 ± 2.0", "-"],
        [""],
    ]


def test_changes_are_of_one_attack_and_one_owner_of_gradients():
    found = [
        curve(PLAIN, 0.9, 0.5, 0.1),
        curve(PLAIN, 0.9, 0.8, 0.7, gradients="another"),
        curve(PLAIN, 0.9, 0.4, 0.1, attack="PGD-20"),
        curve(ENTROPY, 0.9, 0.7, 0.2),
        curve(ENTROPY, 0.9, 0.75, 0.5, gradients="another"),
        curve(ROBUST, 0.9, 0.9, 0.9),
    ]
    changes = entropy_changes(ALL)
    lines = change_lines(changes, found, (0.1, 0.2), str)
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["change of the accuracy, points", "net", "attack", "gradients", "0.0", "0.1", "0.2"],
        ["λ = 4.5 beside plain", "dense 30", "FGSM", "its own",
         "+0.0 ± 2.1", "+20.0 ± 3.4", "+10.0 ± 2.5"],
        ["λ = 4.5 beside plain", "dense 30", "FGSM", "another",
         "+0.0 ± 2.1", "-5.0 ± 2.9", "-20.0 ± 3.4"],
    ]  # fmt: skip
    assert 0.05 < 2 * math.hypot(binomial(0.8), binomial(0.75))  # so that is no fall
    assert verdict("λ", changes, found, (0.1, 0.2)) == (
        "λ: -20.0 to +20.0 points of accuracy, median +2.5; of 4 comparisons (nets, attacks, ε) it "
        "rose in 2 and fell in 1 by more than two standard errors."
    )
    assert verdict("λ", changes, found[:3], (0.1,)) == "λ: nothing to compare."
    (line,) = change_lines(changes, [found[0], found[3]], (0.3,), str)[1:]
    assert line.endswith(" -")
    assert change_lines(changes, found[:3], (0.1,), str) == []


def test_clean_accuracy_leads_what_was_measured():
    measured = Measured(PLAIN, "FGSM", "test", 0.9, (0.1, 0.2), (0.5, 0.1), (160, 160), 400, None)
    assert of_measured([measured]) == [curve(PLAIN, 0.9, 0.5, 0.1)]
    assert with_round((0.1, EPSILONS[0])) == tuple(sorted([*EPSILONS, 0.1]))


def test_the_picture_shows_percent_over_scaled_epsilons():
    axes = Figure().add_subplot()
    found = [curve(PLAIN, 0.9, 0.5, 0.1), curve(PLAIN, 0.9, 0.8, 0.7, gradients="another")]
    draw_accuracies(axes, [*found, curve(BOTH, 1, 1, 1)], ["a", "b", "c"], 255, "ε, 255ths")
    white, black, both = axes.lines
    np.testing.assert_allclose(white.get_xydata(), [[0, 90], [25.5, 50], [51, 10]])
    assert (white.get_linestyle(), black.get_linestyle()) == ("-", "--")
    assert np.all(white.get_color() == black.get_color())
    assert not np.all(white.get_color() == both.get_color())
    assert [line.get_label() for line in axes.lines] == ["a", "b", "c"]
