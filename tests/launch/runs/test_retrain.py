"""Retraining: the winner enlarged, trained under several recipes, attacked from two sides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from helpers import one_line, search_here

from launch.config.config import load_config, parse_config
from launch.config.sections import Retrain
from launch.papers.cubuk.table1 import PAPER, PAPER_TEST, Row, table_lines
from launch.runs import retrain as retraining
from launch.runs.retrain import check, default_recipes, directory, retrain_config
from launch.runs.run import (
    best_trial,
    finished_trial,
    load_run_config,
    make_directory,
    open_search,
    settle_config,
    trial_results,
)
from metrics.attacks import FGSM, StepLL
from metrics.robustness.accuracy import robust_accuracy
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images
from nas.errors import InputError
from nas.ledger.study import RunLock
from nas.trial.training import Recipe
from search_spaces import load

SETS = [{"learning_rate": 0.1}, {"learning_rate": 0.02, "weight_decay": 0.0}]
ASKED = {
    "scale": {"stem": "imagenet"},
    "data": {"limit": {"train": 200}},
    "recipes": SETS,
    "held_out": 0.25,
    "test_images": 90,
}


@pytest.fixture
def run(tmp_path, tiny):
    return search_here(tmp_path / "runs" / "tiny", {**tiny, "retrain": ASKED})


def test_the_retraining_is_a_grid_over_recipes_of_one_enlarged_architecture(run):
    config = load_run_config(run)
    winner = finished_trial(run, 3)
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
    config = load_run_config(run)
    found = retrain_config(config, finished_trial(run, 0), Retrain())
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
    found = retrain_config(config, finished_trial(run, 0), Retrain(resources={"workers": 1}))
    assert (found.resources.time_limit_seconds, found.resources.workers) == (None, 1)


def test_a_scale_that_adds_decisions_is_refused(tiny):
    space = {"name": "nasnet", "blocks": 2, "cells": 1, "filters": 4}
    config = parse_config({**tiny, "space": space, "retrain": {"scale": {"blocks": 3}}})
    with pytest.raises(InputError, match=r"retrain.scale: .*blocks.* adds block3_"):
        check(config)
    check(parse_config({**tiny, "space": space, "retrain": {"scale": {"filters": 8}}}))


def test_where_the_files_lie_does_not_name_a_retraining(run, tmp_path):
    config, winner = load_run_config(run), finished_trial(run, 3)
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
    best = best_trial(run / "again", "pgd_accuracy").trial
    assert best_trial(run / "again" / "copy-1", "pgd_accuracy").trial.recipe == best.recipe
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
    assert "Madry et al. 2017" in printed
    assert f"{100 * document['clean']:.1f} ±" in printed


def test_on_a_cluster_a_worker_attacks_the_test_images(run, psinas, in_process, monkeypatch):
    from launch.cluster import session as ray_session

    asked = []

    def on_worker(address, resources, function, *arguments):
        asked.append((address, resources.cpu))
        return function(*arguments, device="cpu", threads=1)

    monkeypatch.setattr(ray_session, "on_worker", on_worker)
    for out, address in ((run / "there", ("--address", "host:1")), (run / "here", ())):
        assert psinas("retrain", run, "--trial", 3, "--out", out, *address)[0] == 0
    assert asked == [("host:1", 1)]
    assert (run / "there" / "table1.json").read_text() == (run / "here" / "table1.json").read_text()


def test_the_chosen_recipe_is_the_best_on_held_out_images(run, psinas, in_process):
    psinas("retrain", run, "--trial", 3, "--out", run / "again")
    results = trial_results(run / "again")
    assert len(results) == 2
    top = max(results, key=lambda r: r["scores"]["pgd_accuracy"])
    chosen = json.loads((run / "again" / "table1.json").read_text())["chosen"]
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


def test_a_search_that_asks_for_it_goes_on_to_the_table(tmp_path, tiny, psinas, in_process):
    """With a search beside it; both rows stand in one table."""
    for name, beside in (("first", [str(tmp_path / "second.yaml")]), ("second", [])):
        document = {**tiny, "name": name, "retrain": {**ASKED, "beside": beside}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    arguments = ("search", tmp_path / "first.yaml", "--out", tmp_path / "runs" / "first")
    code, printed, _ = psinas(*arguments, "--set", "recipe.steps=1")
    assert code == 0
    table = printed[printed.index("white box") :].splitlines()
    assert [line.split()[0] for line in table[2:6]] == ["Madry", "Cubuk", "first", "second"]
    assert load_run_config(tmp_path / "runs" / "second").recipe.steps == 1
    assert psinas(*arguments, "--set", "recipe.steps=1", "--resume")[0] == 0
    shutil.rmtree(tmp_path / "runs" / "second")
    assert psinas("search", "--resume", "--out", tmp_path / "runs" / "first")[0] == 0
    assert load_run_config(tmp_path / "runs" / "second").recipe.steps == 1
    other = ("search", tmp_path / "first.yaml", "--out", tmp_path / "runs" / "third")
    one_line(psinas(*other, "--set", "seed=5"), "second", "seed")


def test_what_tells_searches_apart_is_laid_over_one_alone(tmp_path, tiny, psinas, monkeypatch):
    """An adversary and a name are; steps, epochs of the retraining and a length are laid on all."""
    from launch.papers.cubuk.beside import searches_beside, with_laid

    for name, adversary in (("first", "pgd"), ("second", "none")):
        beside = [str(tmp_path / "second.yaml")] if name == "first" else []
        recipe = {**tiny["recipe"], "adversary": adversary}
        document = {**tiny, "name": name, "recipe": recipe, "retrain": {**ASKED, "beside": beside}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    source = str(tmp_path / "first.yaml")
    told = []
    monkeypatch.setattr("launch.papers.cubuk.beside.say", told.append)

    def others_of(source, *assignments):
        config = load_config(source, assignments)
        config = with_laid(config, source, assignments)
        others = searches_beside(config, tmp_path / "runs" / "first")
        return config, *others

    config, other = others_of(
        source, "recipe.adversary=fgsm", "recipe.steps=3", "trials=3", "recipe.steps=2",
        "retrain.recipe.epochs=7", "name=renamed",
    )  # fmt: skip
    assert (config.recipe.adversary, other.recipe.adversary) == ("fgsm", "none")
    assert (other.recipe.steps, other.trials, other.name) == (2, 3, "second")
    assert config.retrain.recipe == other.retrain.recipe == {"epochs": 7}
    assert other.retrain.laid == config.retrain.laid
    assert len(told) == 1
    assert told[0].startswith("recipe.adversary is laid over renamed alone")
    # a resume reads the run's own file, and lays more over it
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump(config.resolved()))
    assert others_of(str(saved), "trials=4")[1].trials == 4
    assert others_of(str(saved))[1].recipe.steps == 2
    more = yaml.safe_dump([str(tmp_path / "second.yaml"), "digits"], default_flow_style=True)
    with pytest.raises(InputError, match=r"got digits: search anew"):
        others_of(str(saved), f"retrain.beside={more.strip()}")
    # a length and a place are always laid; nothing is while there is none beside, nor later
    longer = tmp_path / "longer.yaml"
    longer.write_text(yaml.safe_dump({**config.resolved(), "trials": 16}))
    assert others_of(str(longer), "trials=32")[1].trials == 32
    beside = yaml.safe_dump([str(tmp_path / "second.yaml")], default_flow_style=True)
    alone, *none = others_of(source, "retrain.beside=[]", "recipe.adversary=fgsm")
    assert (alone.retrain.laid, none) == ([], [])
    again, other = others_of(source, f"retrain.beside={beside.strip()}", "name=first2")
    assert (again.retrain.laid, other.name) == ([], "second")


def test_what_is_valid_with_its_options_alone_is_searched(tmp_path, tiny):
    from launch.papers.cubuk.beside import with_laid

    document = {**tiny, "sampler": {"name": "random"}, "trials": None, "retrain": ASKED}
    source = tmp_path / "s.yaml"
    source.write_text(yaml.safe_dump(document))
    config = with_laid(load_config(source, ["trials=2"]), str(source), ["trials=2"])
    assert config.trials == 2


def test_the_hint_of_a_stopped_search_beside_is_the_whole_command(
    tmp_path, tiny, psinas, in_process, monkeypatch
):
    for name, beside in (("first", [str(tmp_path / "second.yaml")]), ("second", [])):
        document = {**tiny, "name": name, "retrain": {**ASKED, "beside": beside}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    from launch.cluster import driver

    real = driver.run_search

    def run_search(going, config, run, display, *, address):
        return config.name != "second" and real(going, config, run, display, address=address)

    monkeypatch.setattr(driver, "run_search", run_search)
    first = tmp_path / "runs" / "first"
    code, printed, _ = psinas("search", tmp_path / "first.yaml", "--out", first)
    assert code == 130
    last = " ".join(printed.split()).rpartition("stopped: ")[2]
    assert last.endswith(f"go on with: psinas search --resume --out {first}")


def test_the_row_beside_is_that_of_the_winner_as_its_own_search_retrains_it(
    tmp_path, tiny, psinas, in_process
):
    """An experiment with another trial of it, made later, does not stand in for it."""
    for name, beside in (("first", [str(tmp_path / "second.yaml")]), ("second", [])):
        document = {**tiny, "name": name, "retrain": {**ASKED, "beside": beside}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    runs = tmp_path / "runs"
    first, second = (search_here(runs / n, yaml.safe_load((tmp_path / f"{n}.yaml").read_text()))
                     for n in ("first", "second"))  # fmt: skip
    winner = best_trial(second, "pgd_accuracy").number
    assert psinas("retrain", second, "--trial", 3 - winner)[0] == 0
    code, printed, _ = psinas("retrain", first)
    assert code == 0
    assert "second" not in printed[printed.index("white box") :]
    assert "second.yaml beside it: its winner has not been retrained" in " ".join(printed.split())
    assert psinas("retrain", second)[0] == 0
    code, printed, _ = psinas("retrain", first)
    assert f"second: trial {winner} with" in " ".join(printed.split())


OURS = Row(
    "mine",
    1e6,
    0.9,
    {"fgsm": 0.5, "step_ll": 0.6, "pgd": 0.4},
    {"fgsm": 0.7, "step_ll": 0.8, "pgd": 0.6},
    images=100,
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
    assert "not to be compared" not in text
    assert "differ" not in text
    some = replace(OURS, made={**OURS.made, "completed": 5})
    assert "the 5 of 12 recipes that completed" in "\n".join(table_lines([some]))


def test_a_search_beside_that_is_not_done_is_left_out(tmp_path, tiny, psinas, in_process):
    """Begun by another driver, or with a file that has gone: no reason to refuse this one."""
    for beside in (tmp_path / "second.yaml", tmp_path / "gone.yaml", tmp_path / "third.yaml"):
        run = tmp_path / "runs" / beside.stem / "first"
        if beside.stem != "gone":
            beside.write_text(yaml.safe_dump({**tiny, "name": beside.stem}))
        document = {**tiny, "name": "first", "retrain": {**ASKED, "beside": [str(beside)]}}
        search_here(run, document)
        if beside.stem == "second":
            begun = parse_config({**tiny, "name": "second"})
            make_directory(run.parent / "second")
            settle_config(run.parent / "second", begun, resume=False, keep_trials=False)
            open_search(run.parent / "second", begun)
        code, printed, _ = psinas("retrain", run)
        assert code == 0
        assert f"without {beside} beside it: " in printed.replace("\n", "")
        assert "first: trial" in printed


def test_a_row_that_another_version_wrote_is_measured_again(run, psinas, in_process):
    again = ("retrain", run, "--trial", 3, "--out", run / "again")
    assert psinas(*again)[0] == 0
    row = run / "again" / "table1.json"
    expected = row.read_text()
    document = json.loads(expected)
    document["of"] = document.pop("test")
    row.write_text(json.dumps(document))
    assert psinas(*again)[0] == 0
    assert row.read_text() == expected


@pytest.mark.parametrize(
    "test", [{"data": "fashion-mnist"}, {"classes": [0, 1]}, {"steps": 1}, {"epsilon": 4 / 255}]
)
def test_another_test_than_the_papers_is_not_compared_with_it(test):
    other = replace(OURS, model="other", test={**PAPER_TEST, **test})
    lines = "\n".join(table_lines([OURS, other]))
    assert "not to be compared" in lines
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

    def train(model, data, recipe, attack, generator):
        if failing.pop(0):
            raise Diverged("on purpose")
        return real(model, data, recipe, attack, generator)

    failing = [False, False, True, False]
    monkeypatch.setattr(evaluation, "train", train)
    assert psinas("retrain", run, "--trial", 3, "--out", run / "again")[0] == 0
    assert (run / "again" / "copy-2" / "best").exists()
    assert not failing


def test_a_copy_that_another_driver_trains_is_not_a_copy_that_diverged(
    run, psinas, in_process, monkeypatch
):
    """Two commands at once: the second says who is there, and begins no second copy."""
    again = ("retrain", run, "--trial", 3, "--out", run / "again")
    assert psinas(*again)[0] == 0
    (run / "again" / "table1.json").unlink()
    with RunLock(run / "again" / "copy-1"):
        one_line(psinas(*again), "another driver")
    assert not (run / "again" / "copy-2").exists()


def test_a_retraining_of_which_nothing_completed_says_what_to_delete(
    run, psinas, in_process, monkeypatch
):
    from nas.errors import Diverged
    from nas.trial import evaluation

    def train(*arguments):
        raise Diverged("on purpose")

    monkeypatch.setattr(evaluation, "train", train)
    code, _, errors = psinas("retrain", run, "--trial", 3, "--out", run / "again")
    assert code == 2
    assert f"delete {run / 'again'} to train them again" in " ".join(errors.split())


def test_copies_that_all_diverge_leave_the_trained_recipes(run, psinas, in_process, monkeypatch):
    from nas.errors import Diverged
    from nas.trial import evaluation

    real, calls = evaluation.train, []

    def train(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise Diverged("on purpose")
        return real(*arguments)

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
        ({"beside": ["nowhere"]}, ["nowhere"]),
        ({"beside": ["digits"]}, ["different names"]),
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
