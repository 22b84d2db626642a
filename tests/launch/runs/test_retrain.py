"""Retraining: the winner enlarged, trained under several recipes, attacked from two sides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from helpers import TINY, one_line, search_here

from launch.config.config import parse_config
from launch.config.sections import Retrain
from launch.papers.cubuk.table1 import PAPER, PAPER_TEST
from launch.runs import retrain as retraining
from launch.runs.retrain import check, default_recipes, directory, retrain_config
from launch.runs.retrained import Retrained, table_lines
from launch.runs.run import Run
from metrics.attacks import FGSM, StepLL
from metrics.robustness.accuracy import robust_accuracy
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images
from nas.errors import InputError
from nas.ledger.lock import RunLock
from nas.trial.recipe import Recipe
from search_spaces import load

SETS = [{"learning_rate": 0.1}, {"learning_rate": 0.02, "weight_decay": 0.0}]
ASKED = {
    "scale": {"stem": "imagenet"},
    "data": {"limit": {"train": 200}},
    "recipes": SETS,
    "held_out": 0.25,
    "test_images": 90,
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return a finished search, which no test writes to."""
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", {**TINY, "retrain": ASKED})


@pytest.fixture
def run(tmp_path, searched):
    """Return a copy of the search."""
    return shutil.copytree(searched, tmp_path / "runs" / "tiny")


@pytest.fixture
def again(run, searched, psinas, in_process):
    """Return ``again`` of the copy: trial 3 retrained by the first test that asks for it."""
    kept = searched.parent / "again"
    if not kept.exists():
        assert psinas("retrain", run, "--trial", 3, "--out", run / "again")[0] == 0
        shutil.copytree(run / "again", kept)
        return run / "again"
    return shutil.copytree(kept, run / "again")


def test_the_retraining_is_a_grid_over_recipes_of_one_enlarged_architecture(run):
    config = Run(run).config
    winner = Run(run).trial(3)
    found = retrain_config(config, winner, Retrain(**ASKED))
    plan = found.plan()
    trials = [plan.trial({n: c[i] if len(c) > 1 else c[0] for n, c in plan.decisions.items()})
              for i in range(2)]  # fmt: skip
    for trial in trials:
        assert dict(trial.architecture.choices) == dict(winner.trial.architecture.choices)
        assert dict(trial.architecture.settings)["stem"] == "imagenet"
        assert trial.data.limit.train == 200
        assert trial.data.validation_share == 0.25
        assert trial.recipe.steps == config.recipe.steps
    assert [t.recipe.learning_rate for t in trials] == [0.1, 0.02]
    assert [t.recipe.weight_decay for t in trials] == [config.recipe.weight_decay, 0.0]
    assert len({t.key for t in trials}) == 2 == plan.size


def test_by_default_there_are_twelve_recipes_and_no_limit_on_images(run):
    config = Run(run).config
    found = retrain_config(config, Run(run).trial(0), Retrain())
    assert found.plan().size == 12
    assert found.data.limit.train is None
    sets = default_recipes(Recipe(learning_rate=0.2, weight_decay=1e-3))
    assert len({tuple(s.items()) for s in sets}) == 12
    assert {"learning_rate": 0.2, "weight_decay": 1e-3, "label_smoothing": 0.0} in sets
    for recipe in (Recipe(weight_decay=0.0), Recipe(label_smoothing=0.1)):
        sets = default_recipes(recipe)
        assert len({tuple(s.items()) for s in sets}) == 12
        assert any(s["label_smoothing"] == recipe.label_smoothing for s in sets)


def test_a_retraining_has_its_own_resources(run, tiny):
    """A child's time limit is not that of a hundred epochs."""
    given = {"resources": {"time_limit_seconds": 60, "workers": 2}}
    config = parse_config({**tiny, **given})
    found = retrain_config(config, Run(run).trial(0), Retrain(resources={"workers": 1}))
    assert (found.resources.time_limit_seconds, found.resources.workers) == (None, 1)


@pytest.mark.parametrize(
    ("search", "asked", "processes", "gpu", "cores"),
    [
        ({}, {"processes": 2}, 2, "auto", 2),
        ({"cpu": 2}, {"gpu": 4}, 4, 4, 8),
        ({"gpu": 0.25}, {"processes": 2}, 2, 2, 2),
        ({"gpu": 0}, {"processes": 2, "cpu": 3}, 2, 0, 6),
        ({"gpu": 0.25}, {}, 1, 0.25, 1),
    ],
)
def test_several_processes_are_for_a_retraining(search, asked, processes, gpu, cores, run, tiny):
    config = parse_config({**tiny, "resources": search})
    found = retrain_config(config, Run(run).trial(0), Retrain(**ASKED, resources=asked)).resources
    assert (found.processes, found.gpu, found.cores) == (processes, gpu, cores)
    one = found.for_one()
    assert (one.processes, one.cpu) == (1, found.cpu)
    assert one.gpu == (min(gpu, 1) if gpu != "auto" else gpu)


def test_a_recipe_that_several_processes_do_not_train_is_refused_before_the_search(tiny):
    asked = {"recipes": [{"awp": 0.01}], "resources": {"processes": 2}}
    with pytest.raises(InputError, match=r"^retrain: recipe.awp: expected 0 where 2 processes"):
        check(parse_config({**tiny, "retrain": asked}))


def test_a_scale_that_adds_decisions_is_refused(tiny):
    space = {"name": "nasnet", "blocks": 2, "cells": 1, "filters": 4}
    config = parse_config({**tiny, "space": space, "retrain": {"scale": {"blocks": 3}}})
    with pytest.raises(InputError, match=r"retrain.scale: .*blocks.* adds block3_"):
        check(config)
    check(parse_config({**tiny, "space": space, "retrain": {"scale": {"filters": 8}}}))


def test_where_the_files_lie_does_not_name_a_retraining(run, tmp_path):
    config, winner = Run(run).config, Run(run).trial(3)
    grids = [
        retrain_config(config, winner, Retrain(**{**ASKED, **changed}))
        for changed in (
            {},
            {"data": {**ASKED["data"], "root": str(tmp_path), "download": True}},
            {"resources": {"cpu": 2}},
            {"recipe": {"steps": 3}},
        )
    ]
    first, moved, wider, other = (directory(run, winner, grid) for grid in grids)
    assert first == moved == wider != other
    limited = {"resources": {"time_limit_seconds": 60}}
    grid = retrain_config(config, winner, Retrain(**{**ASKED, **limited}))
    assert directory(run, winner, grid) != first  # what ran out of time may have more another time


def test_the_row_holds_what_the_models_do_on_test_images(run, psinas, in_process):
    code, printed, _ = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 0
    document = json.loads((run / "again" / "table1.json").read_text())
    model, copy = load(run / "again" / "best"), load(run / "again" / "copy-1" / "best")
    weights = [m.state_dict()["1.tuple1.0.weight"] for m in (model, copy)]
    assert not torch.equal(*weights)
    best = Run(run / "again").best("pgd_accuracy").trial
    assert Run(run / "again" / "copy-1").best("pgd_accuracy").trial.recipe == best.recipe
    test = prepare_test(load_test_images(best.data), best.data)
    x, y = test.images(slice(90)), test.labels[:90]
    with torch.no_grad():
        right = model(x).argmax(1) == y
        fooled = model(FGSM(epsilon=0.1)(copy, x, y)).argmax(1) == y
        ll = model(StepLL(epsilon=0.1)(copy, x, None)).argmax(1) == y
    assert document["images"] == 90
    made, data = document["made"], best.data
    assert (made["trial"], made["recipes"], made["completed"]) == (3, 2, 2)
    assert made["scale"] == {"stem": "imagenet"}
    assert made["train_images"] == data.limit.train == 200
    pgd = {"steps": best.recipe.steps, "step_size": 0.025}
    assert document["test"] == {**PAPER_TEST, "data": "digits", "epsilon": 0.1, **pgd}
    assert document["clean"] == pytest.approx(right.float().mean().item())
    assert document["black"]["fgsm"] == pytest.approx((right & fooled).float().mean().item())
    assert document["black"]["step_ll"] == pytest.approx((right & ll).float().mean().item())
    white = robust_accuracy(model, x, y, FGSM(epsilon=0.1)).accuracy
    assert document["white"]["fgsm"] == pytest.approx(white)
    assert document["parameters"] == sum(p.numel() for p in model.parameters())
    assert "Madry et al. 2017" not in printed  # no paper's rows
    assert f"{100 * document['clean']:.1f} ±" in printed


def test_on_a_cluster_a_worker_attacks_the_test_images(run, again, psinas, in_process, monkeypatch):
    asked = []

    def on_worker(address, resources, function, *arguments):
        asked.append((address, resources.cpu))
        return function(*arguments, device="cpu", threads=1)

    monkeypatch.setattr("launch.runs.retrained.on_worker", on_worker)
    there = run / "there"
    arguments = ("retrain", run, "--trial", 3, "--out", there, "--address", "host:1")
    assert psinas(*arguments)[0] == 0
    assert asked == [("host:1", 1)]
    assert (there / "table1.json").read_text() == (again / "table1.json").read_text()


def test_the_chosen_recipe_is_the_best_on_held_out_images(again):
    results = Run(again).results
    assert len(results) == 2
    top = max(results, key=lambda r: r["scores"]["pgd_accuracy"])
    chosen = json.loads((again / "table1.json").read_text())["chosen"]
    assert chosen["learning_rate"] == SETS[top["number"]]["learning_rate"]


def test_a_second_call_goes_on_and_repeats_nothing(run, psinas, in_process, monkeypatch):
    """Killed while it measures: the trainings are there, only the measuring is done."""

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(retraining, "measure", killed)
        assert psinas("retrain", run, "--trial", 3, "--out", run / "again")[0] == 130
    monkeypatch.setattr("nas.trial.evaluation.train", None)  # no training any more
    code, first, _ = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 0
    monkeypatch.setattr(retraining, "measure", killed)
    code, second, _ = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 0
    assert first.splitlines()[-8:] == second.splitlines()[-8:]
    one_line(
        psinas("retrain", run, "--trial", 0, "--out", run / "again"),
        "another configuration",
        "fix.",
    )


OURS = Retrained(
    "mine",
    1e6,
    0.9,
    {"fgsm": 0.5, "step_ll": 0.6, "pgd": 0.4},
    {"fgsm": 0.7, "step_ll": 0.8, "pgd": 0.6},
    images=100,
    test=PAPER_TEST,
    made={
        "trial": 4,
        "scale": {"filters": 28},
        "epochs": 100,
        "train_images": 45_000,
        "held_out_images": 5_000,
        "epoch": "last epoch",
        "chooser": "fgsm_accuracy",
        "recipes": 12,
        "completed": 12,
    },
    chosen={"learning_rate": 0.1},
)


def test_the_table_says_what_was_made_and_attacked_how():
    text = "\n".join(table_lines([OURS]))
    assert "mine: trial 4 with filters 28; 100 epochs on 45000 images, last epoch" in text
    assert "best fgsm_accuracy of 12 recipes on 5000 held-out images: learning_rate 0.1" in text
    assert "100 test images of cifar10, epsilon 8/255, PGD of 7 steps of 2/255" in text
    assert "differ" not in text
    some = replace(OURS, made={**OURS.made, "completed": 5})
    assert "the 5 of 12 recipes that completed" in "\n".join(table_lines([some]))


def test_a_row_that_another_version_wrote_is_measured_again(run, again, psinas, in_process):
    row = again / "table1.json"
    expected = row.read_text()
    document = json.loads(expected)
    document["of"] = document.pop("test")
    row.write_text(json.dumps(document))
    assert psinas("retrain", run, "--trial", 3, "--out", again)[0] == 0
    assert row.read_text() == expected


@pytest.mark.parametrize(
    "test", [{"data": "fashion-mnist"}, {"classes": [0, 1]}, {"steps": 1}, {"epsilon": 4 / 255}]
)
def test_rows_that_were_attacked_differently_are_said_to(test):
    other = replace(OURS, model="other", test={**PAPER_TEST, **test})
    lines = "\n".join(table_lines([OURS, other]))
    assert f"differ in more than architecture and recipe: {next(iter(test))}." in lines


def test_rows_that_were_trained_differently_are_said_to():
    other = replace(OURS, model="other", made={**OURS.made, "epochs": 3})
    assert table_lines([OURS, other])[-1].endswith("architecture and recipe: epochs.")


def test_a_suspicious_row_is_marked_and_says_why():
    """Masked gradients of the model, or of the copy that makes black-box images."""
    rows = [replace(OURS, flags=["black_box"]), replace(OURS, copy_flags=["zero_gradients"])]
    lines = table_lines(rows)
    marked = [line for line in lines if line.startswith("mine !")]
    assert len(marked) == 2
    assert "  ! the model is suspicious: black_box" in lines
    assert "  ! the black-box source is suspicious: zero_gradients" in lines
    assert not any("!" in line for line in table_lines([OURS]))
    known = table_lines([replace(OURS, flags=["not_converged"])])
    assert [line for line in known if line.startswith("  not_converged: PGD still")]
    lines = table_lines(rows, PAPER)
    assert len({len(line) for line in lines[1 : 2 + len(PAPER) + 2]}) == 1


def test_a_longer_search_with_another_winner_is_retrained_beside(
    tmp_path, tiny, psinas, in_process
):
    document = {**tiny, "objectives": {"parameters": "max"}, "trials": 1, "retrain": ASKED}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    arguments = ("search", tmp_path / "s.yaml", "--out", tmp_path / "r")
    assert psinas(*arguments)[0] == 0
    assert psinas(*arguments, "--resume", "--trials", 4)[0] == 0
    trials = {path.name.partition("-")[0] for path in (tmp_path / "r" / "retrain").iterdir()}
    assert "0" in trials
    assert len(trials) == 2


def test_a_copy_that_diverges_gets_another_start(run, psinas, in_process, monkeypatch):
    from nas.errors import Diverged
    from nas.trial import evaluation

    real = evaluation.train

    def train(model, data, recipe, attack, generator, **more):
        if failing.pop(0):
            raise Diverged("on purpose")
        return real(model, data, recipe, attack, generator, **more)

    failing = [False, False, True, False]
    monkeypatch.setattr(evaluation, "train", train)
    assert psinas("retrain", run, "--trial", 3, "--out", run / "again")[0] == 0
    assert (run / "again" / "copy-2" / "best").exists()
    assert not failing


def test_a_copy_that_another_driver_trains_is_not_a_copy_that_diverged(
    run, again, psinas, in_process
):
    """Two commands at once: the second says who is there, and begins no second copy."""
    (again / "table1.json").unlink()
    with RunLock(again / "copy-1"):
        one_line(psinas("retrain", run, "--trial", 3, "--out", again), "another driver")
    assert not (again / "copy-2").exists()


def test_a_retraining_of_which_nothing_completed_says_what_to_delete(
    run, psinas, in_process, monkeypatch
):
    from nas.errors import Diverged
    from nas.trial import evaluation

    def train(*arguments, **more):
        raise Diverged("on purpose")

    monkeypatch.setattr(evaluation, "train", train)
    code, _, errors = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 2
    assert f"delete {run / 'again'} to train them again" in " ".join(errors.split())


def test_copies_that_all_diverge_leave_the_trained_recipes(run, psinas, in_process, monkeypatch):
    from nas.errors import Diverged
    from nas.trial import evaluation

    real, calls = evaluation.train, []

    def train(*arguments, **more):
        calls.append(1)
        if len(calls) > 2:
            raise Diverged("on purpose")
        return real(*arguments, **more)

    monkeypatch.setattr(evaluation, "train", train)
    code, _, errors = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 2
    assert f"delete {run / 'again' / 'copy'}-1 ... 3 to train" in " ".join(errors.split())
    assert len(calls) == 2 + 3


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"scale": {"filters": 8}}, ["filters", "stem"]),
        ({"scale": {"depth": [9]}}, ["fix.depth", "[9]"]),
        ({"recipe": {"epoch": 8}}, ["epoch", "epochs"]),
        ({"recipes": [{"rate": 0.1}]}, ["rate", "learning_rate"]),
        ({"recipes": [{"learning_rate": -1}]}, ["learning_rate", "> 0"]),
        ({"recipes": [SETS[0], SETS[0]]}, ["different"]),
        ({"recipes": [[]]}, ["recipes"]),
        ({"held_out": 1.5}, ["held_out"]),
        ({"beside": ["digits"]}, ["retrain.beside", "unknown key"]),
    ],
)
def test_a_wrong_setting_is_refused_before_the_search(tmp_path, tiny, psinas, wrong, parts):
    document = {**tiny, "name": "digits", "retrain": {**ASKED, **wrong}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    one_line(psinas("search", tmp_path / "s.yaml", "--out", tmp_path / "r"), *parts)
    assert not (tmp_path / "r").exists()


def test_wrong_options_are_one_line(run, psinas, tmp_path):
    one_line(psinas("retrain", run, "--trial", 0, "--best", "psi"), "both")
    one_line(psinas("retrain", run, "--trial", 99), "0 ... 3")
    one_line(psinas("retrain", run, "--scale", "stem"), "--scale", "key=value")
    (tmp_path / "empty.yaml").write_text("")
    one_line(psinas("retrain", run, "--recipes", tmp_path / "empty.yaml"), "empty.yaml", "list")
    one_line(psinas("retrain", run, "--recipes", tmp_path / "no.yaml"), "no.yaml")
    one_line(psinas("retrain", tmp_path), "config.yaml")


def test_fixed_decisions_are_not_searched(tiny):
    plan = parse_config({**tiny, "fix": {"depth": 2}}).plan()
    assert plan.size == 2
    assert plan.trial({"depth": 2, "channels": 4}).architecture["depth"] == 2
