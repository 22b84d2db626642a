"""Figure 7 of Cubuk et al.: from three tiny searches to four nets over epsilon."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import one_line
from torch.nn import functional

from launch.papers.cubuk.figure7 import ADVERSARIAL, MEASURED, STEPS, figure_7, measured
from launch.papers.cubuk.winners import retrained_winner
from launch.papers.registry import REPRODUCTIONS
from launch.show.reporter import Reporter
from metrics.robustness.accuracy import robust_accuracy
from nas.errors import InputError

pytestmark = pytest.mark.xdist_group("cubuk winners")  # trained once


def one_step(model, x, y, epsilon, *, least_likely):
    """Return which images stay right, with and without one step by the cross entropy."""
    x = x.clone().requires_grad_()
    logits = model(x)
    to = logits.argmin(1) if least_likely else y
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, to, reduction="sum"), x)
    step = -epsilon if least_likely else epsilon
    moved = (x + step * gradient.sign()).clamp(0, 1).detach()
    return (logits.argmax(1) == y) & (model(moved).argmax(1) == y)


def test_the_baseline_is_retrained_twice_and_not_again(runs, figure_7, monkeypatch):
    vanilla = runs[0]
    plain, robust = retrained_winner(vanilla), retrained_winner(vanilla, ADVERSARIAL)
    assert plain.trial.trial.architecture == robust.trial.trial.architecture
    assert dict(plain.trial.trial.architecture.choices) == dict(
        vanilla.best().trial.architecture.choices
    )
    assert (plain.trial.trial.recipe.adversary, robust.trial.trial.recipe.adversary) == (
        "none",
        "step-ll",
    )
    assert len(list((vanilla.path / "retrain").iterdir())) == 2
    assert [len(list((run.path / "retrain").iterdir())) for run in runs[1:]] == [1, 1]

    def no_more(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("launch.runs.searching.run_search", no_more)
    monkeypatch.setattr("launch.papers.cubuk.figure7._measure", no_more)
    printed = figure_7()
    assert "vanilla: retraining trial" in printed
    assert "with {'adversary': 'step-ll'}" in printed


def test_every_accuracy_measured_anew(runs):
    view = figure_7(runs, Reporter())
    table = view.table.set_index(["net", "attack", "epsilon_255"]).sort_index()
    names = ["vanilla", "vanilla, step-ll", "experiment1", "experiment2"]
    assert list(dict.fromkeys(view.table["net"])) == names
    assert table.index.is_unique
    assert len(table) == 4 * 3 * (len(STEPS) + 1)
    nets = [
        retrained_winner(runs[0]),
        retrained_winner(runs[0], ADVERSARIAL),
        *map(retrained_winner, runs[1:]),
    ]
    for name, net in zip(names, nets, strict=True):
        model, (x, y) = net.model(), net.test_images()
        assert len(y) == 60
        for step in (*STEPS[1:], 25.5):
            for attack in ("fgsm", "step_ll"):
                right = one_step(model, x, y, step / 255, least_likely=attack == "step_ll")
                row = table.loc[name, attack, step]
                assert row["accuracy"] == pytest.approx(right.double().mean().item())
        clean = (model(x).argmax(1) == y).double().mean().item()
        assert [table.loc[name, a, 0]["accuracy"] for a in ("fgsm", "step_ll", "pgd")] == (
            pytest.approx([clean] * 3)
        )
        pgd = table.loc[name, "pgd"]["accuracy"].to_numpy()
        assert (pgd[1:] <= pgd[:-1]).all()
        attack = net.trial.trial.recipe.judge().with_epsilon(32 / 255)
        draws = torch.Generator().manual_seed(3)
        anew = robust_accuracy(model, x, y, attack, generator=draws).accuracy
        assert pgd[-1] == pytest.approx(anew, abs=0.1)
    assert view.table["trained_on"].drop_duplicates().tolist() == ["none", "step-ll", "pgd"]


def test_the_paper_stands_beside_at_its_epsilon_alone(runs):
    lines = figure_7(runs, Reporter()).lines
    (start,) = [i for i, line in enumerate(lines) if line.startswith("step l.l., accuracy")]
    assert lines[start].split()[-10:] == ["0", "1", "2", "4", "8", "12", "16", "24", "25.5", "32"]
    values = lines[start + 1].removeprefix("Cubuk et al. 2017, best").split()
    assert values == ["93.2", "-", "-", "-", "77.9", *"-" * 5]


def test_a_rise_under_step_ll_is_told(runs):
    net = retrained_winner(runs[1])
    kept = json.loads((net.path / MEASURED).read_text())
    before = json.dumps(kept)
    kept["accuracies"]["step_ll"] = [0.9, 0.8, 0.5, 0.4, 0.3, 0.2, 0.45, 0.1, 0.05, 0.0]
    try:
        (net.path / MEASURED).write_text(json.dumps(kept))
        assert measured(net).accuracies["step_ll"][6] == 0.45  # what is kept is read
        lines = figure_7(runs, Reporter()).lines
    finally:
        (net.path / MEASURED).write_text(before)
    told = [line for line in lines if line.startswith("experiment1: step l.l. accuracy rises")]
    assert told == [
        "experiment1: step l.l. accuracy rises by up to 25.0 points, from epsilon 12/255 to 16/255"
    ]


def test_what_was_kept_of_other_images_is_not_read(runs):
    net = retrained_winner(runs[2])
    fewer = replace(net, row=replace(net.row, images=30))
    before = (net.path / MEASURED).read_text()
    try:
        assert measured(fewer).errors["fgsm"][0] > measured(net).errors["fgsm"][0]
    finally:
        (net.path / MEASURED).write_text(before)


def test_the_same_cell_is_told(runs):
    told = [
        line for line in figure_7(runs, Reporter()).lines if "its cell is the baseline's" in line
    ]
    best = [run.best().trial.architecture.hash for run in runs]
    names = ["experiment1", "experiment2"]
    expected = [name for name, found in zip(names, best[1:], strict=True) if found == best[0]]
    assert [line.partition(":")[0] for line in told] == expected
    swapped = figure_7([runs[0], runs[0], runs[2]], Reporter()).lines
    assert "vanilla: its cell is the baseline's, so only training tells them apart" in swapped


def test_without_the_second_retraining_there_is_no_net(runs):
    with pytest.raises(InputError, match=r"vanilla retrained with \{'adversary': 'fgsm'\}, got no"):
        retrained_winner(runs[0], {"adversary": "fgsm"})


def test_a_recipe_that_is_refused_stops_before_the_search(place, figure_7, psinas, monkeypatch):
    made = replace(REPRODUCTIONS["cubuk-figure7"], also={0: {"adversary": "nobody"}})
    monkeypatch.setitem(REPRODUCTIONS, "cubuk-figure7", made)
    out = place / "refused"
    one_line(psinas("reproduce", "cubuk-figure7", "--out", out), "adversary", "nobody")
    assert not out.exists()


def test_the_written_table_is_the_views(runs, place):
    written = pd.read_csv(place / "runs" / "cubuk-figure7.csv")
    pd.testing.assert_frame_equal(written, figure_7(runs, Reporter()).table, check_dtype=False)
    assert (place / "runs" / "cubuk-figure7.png").exists()
