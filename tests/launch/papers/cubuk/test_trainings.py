"""Figures 5, 11 and 12 of Cubuk et al. from tiny searches, their numbers measured anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import search_here
from torch.nn import functional

from launch.config.config import load_config
from launch.papers.cubuk import figure12
from launch.papers.cubuk.figure5 import figure_5
from launch.papers.cubuk.figure11 import figure_11
from launch.papers.cubuk.figure12 import figure_12
from launch.papers.registry import REPRODUCTIONS
from launch.runs.run import Run
from launch.runs.subject import trial_model
from launch.show.reporter import Reporter
from metrics import PGD, robust_accuracy
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images

TEST = 40
DIGITS = f"data={{name: digits, limit: {{train: 300, validation: 20, test: {TEST}}}}}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return, by figure, the run of its small preset on the digits, searched when asked for."""
    place = tmp_path_factory.mktemp("cubuk")
    sets = {
        "5": ["space.units=[20]", "space.channels=[4]", "space.kernels=[3]", "recipe.epochs=6"],
        "11": ["recipe.epochs=5", "recipe.learning_rate=0.05", "recipe.crop_padding=0"],
        "12": ["recipe.epochs=5", "recipe.learning_rate=0.05", "recipe.crop_padding=0"],
    }

    class Runs(dict):
        def __missing__(self, number):
            (name,) = REPRODUCTIONS[f"cubuk-figure{number}"].sources(quick=True, data=None)
            common = [DIGITS, "recipe.batch_size=16", "recipe.flip=false", "keep.top=8"]
            config = load_config(name, [*common, *sets[number]])
            self[number] = Run(search_here(place / name, config.resolved()))
            return self[number]

    return Runs()


def subject(run, number):
    row = run.trial(number)
    split = prepare_test(load_test_images(row.trial.data), row.trial.data)
    return trial_model(run, row), split.images(), split.labels


def one_step(model, x, y, epsilon, *, least_likely):
    """Return images after one step of the sign of the cross entropy's gradient."""
    x = x.clone().requires_grad_()
    logits = model(x).double()
    to = logits.argmin(1) if least_likely else y
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, to, reduction="sum"), x)
    return (x + (-epsilon if least_likely else epsilon) * gradient.sign()).clamp(0, 1).detach()


def share(model, images, x, y):
    """Return the share that is right with and without an attack."""
    with torch.no_grad():
        right = (model(x).argmax(1) == y) & (model(images).argmax(1) == y)
    return right.double().mean().item()


def test_figure_5_has_four_trainings_of_two_nets(runs):
    view = figure_5([runs["5"]], Reporter())
    table = view.table.set_index(["number", "attack", "epsilon"]).sort_index()
    nets = view.table.drop_duplicates("number")
    trainings = ["plain", "λ = 4.5", "step-ll", "step-ll, λ = 4.5"]
    assert sorted(zip(nets["net"], nets["training"], strict=True)) == sorted(
        (name, training) for name in ("conv 4-4", "dense 20-20") for training in trainings
    )
    for number in nets["number"]:
        model, x, y = subject(runs["5"], number)
        for epsilon in (0.05, 0.3):
            moved = one_step(model, x, y, epsilon, least_likely=True)
            found = table.loc[(number, "step l.l.", epsilon)]
            assert found["accuracy"] == pytest.approx(share(model, moved, x, y), abs=1.5 / TEST)
            assert found["images"] == TEST
        clean = share(model, x, x, y)
        assert table.loc[(number, "PGD-20", 0.0)]["accuracy"] == pytest.approx(clean)
        anew = robust_accuracy(model, x, y, PGD(steps=20, epsilon=0.1)).accuracy
        assert table.loc[(number, "PGD-20", 0.1)]["accuracy"] == pytest.approx(anew, abs=0.1)
    assert sum("1.8 to 2.5" in line for line in view.lines) == 8
    assert any("ours: 0.1." in line for line in view.lines)
    for what in ("The entropy term, white box:", "Step l.l. training, white box:"):
        (line,) = [line for line in view.lines if line.startswith(what)]
        assert " of 32 comparisons " in line  # 2 nets, 2 other settings, 2 attacks, 4 ε
    assert [axes.get_title() for axes in view.figure.axes] == [
        f"{name}, {attack}"
        for name in dict.fromkeys(view.table["net"])
        for attack in ("step l.l.", "PGD-20")
    ]
    assert [len(axes.lines) for axes in view.figure.axes] == [4] * 4


def test_figure_11_has_the_errors_of_the_resnet(runs):
    view = figure_11([runs["11"]], Reporter())
    model, x, y = subject(runs["11"], 0)
    clean = share(model, x, x, y)
    rows = view.table[view.table["attack"] == "FGSM"]
    assert list(view.table["attack"].unique()) == ["L2-FGSM", "FGSM", "PGD-20", "step l.l."]
    expected = [
        clean - share(model, one_step(model, x, y, e, least_likely=False), x, y)
        for e in rows["epsilon"]
    ]
    np.testing.assert_allclose(rows["adversarial_error"], expected, atol=1.5 / TEST)
    assert max(expected) > 0.1
    (line,) = [line for line in view.lines if line.split()[-7:].count("0.99")]
    assert " FGSM " in line
    assert "L2-FGSM" not in line


@pytest.mark.slow
def test_figure_12_shows_repeat_0_the_images_of_the_others(runs, monkeypatch):
    run = runs["12"]
    view = figure_12([run], Reporter())
    trials = {(r.trial.recipe.entropy_weight, r.trial.repeat): r.number
              for r in map(run.trial, range(4))}  # fmt: skip
    assert set(trials) == {(0.0, 0), (0.0, 1), (3.0, 0), (3.0, 1)}
    table = view.table.set_index(["number", "gradients", "attack", "epsilon"]).sort_index()
    kinds = view.table.drop_duplicates(["number", "gradients", "attack"])
    assert len(kinds) == 4 * 3 + 2 * 2 * 3
    names = {0.0: "plain, repeat 1", 3.0: "λ = 3, repeat 1"}
    for target in names:
        model, x, y = subject(run, trials[target, 0])
        for weight, name in names.items():
            source, _, _ = subject(run, trials[weight, 1])
            for attack in ("FGSM", "step l.l."):
                for epsilon in (4 / 255, 8 / 255):
                    moved = one_step(source, x, y, epsilon, least_likely=attack == "step l.l.")
                    (owner,) = [g for g in kinds["gradients"].unique() if g.endswith(name)]
                    found = table.loc[(trials[target, 0], owner, attack, epsilon)]
                    expected = share(model, moved, x, y)
                    assert found["accuracy"] == pytest.approx(expected, abs=1.5 / TEST)
    assert {n for n, g in zip(kinds["number"], kinds["gradients"], strict=True)
            if g != "its own"} == {trials[0.0, 0], trials[3.0, 0]}  # fmt: skip
    for box, pairs in (("white", 30), ("black", 18)):  # 2, of 3 attacks and 5 ε, or 3 ε
        (line,) = [line for line in view.lines if line.startswith(f"The entropy term, {box} box:")]
        assert f" of {pairs} comparisons " in line

    def no_more(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(figure12, "pointwise_curve", no_more)
    again = figure_12([run], Reporter())
    assert again.lines == view.lines
