"""Retraining: the winner enlarged, trained under several recipes, attacked from two sides."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from conftest import one_line, search_here

from launch import retrain as retraining
from launch.config import parse_config
from launch.retrain import default_recipes, retrain_config
from launch.run import best_trial, finished_trial, load_run_config, trial_results
from launch.sections import Retrain
from metrics.accuracy import robust_accuracy
from metrics.attacks import FGSM, StepLL
from nas.data import prepare_test
from nas.datasets import load_test_images
from nas.training import Recipe
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
    assert document["clean"] == pytest.approx(right.float().mean().item())
    assert document["black"]["fgsm"] == pytest.approx((right & fooled).float().mean().item())
    assert document["black"]["step_ll"] == pytest.approx((right & ll).float().mean().item())
    white = robust_accuracy(model, x, y, FGSM(epsilon=0.1)).accuracy
    assert document["white"]["fgsm"] == pytest.approx(white)
    assert document["parameters"] == sum(p.numel() for p in model.parameters())
    assert "Madry et al. 2017" in printed
    assert f"{100 * document['clean']:.1f} ±" in printed


def test_the_chosen_recipe_is_the_best_on_held_out_images(run, psinas, in_process):
    psinas("retrain", run, "--trial", 3, "--out", run / "again")
    results = trial_results(run / "again")
    assert len(results) == 2
    top = max(results, key=lambda r: r["scores"]["pgd_accuracy"])
    chosen = json.loads((run / "again" / "table1.json").read_text())["chosen"]
    assert chosen["learning_rate"] == SETS[top["number"]]["learning_rate"]


def test_a_second_call_goes_on_and_repeats_nothing(run, psinas, in_process, monkeypatch):
    """Killed while it measures: the trainings are there, only the measuring is done."""

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(retraining, "measure", killed)
        assert psinas("retrain", run, "--trial", 3, "--out", run / "again")[0] == 130
    monkeypatch.setattr("nas.evaluation.train", None)  # no training any more
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
    from nas import evaluation
    from nas.errors import Diverged

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
    one_line(psinas("retrain", run, "--scale", "stem"), "key=value")
    one_line(psinas("retrain", run, "--recipes", tmp_path / "no.yaml"), "no.yaml")
    one_line(psinas("retrain", tmp_path), "config.yaml")


def test_fixed_decisions_are_not_searched(tiny):
    plan = parse_config({**tiny, "fix": {"depth": 2}}).plan()
    assert plan.size == 2
    assert plan.trial({"depth": 2, "channels": 4}).architecture["depth"] == 2
