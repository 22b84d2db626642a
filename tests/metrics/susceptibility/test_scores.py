"""Ψ as scores: of the trained net, the untrained one, after an epoch, at the limit."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import one_line, search_here
from torch import nn

from metrics import METRICS
from metrics.susceptibility import susceptibility, susceptibility_limit
from nas.data.arrays import prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.ledger.table import load_table
from nas.trial.evaluation import evaluate
from nas.trial.recipe import Recipe
from nas.trial.scoring import metric_key
from nas.trial.trial import Trial
from search_spaces import DepthChannels

SPACE = DepthChannels(depth=(2,), channels=(6,), stem="small")
DATA = DataConfig(name="digits", limit=Limit(train=128, validation=40))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trial(epochs, *names, **settings):
    recipe = Recipe(epochs=epochs, batch_size=32, adversary="none", epsilon=0.1, steps=2)
    metrics = tuple(METRICS[name](**settings) for name in names)
    return Trial(SPACE.architecture({"depth": 2, "channels": 6}), recipe, DATA, metrics)


def untrained(trial, data):
    return SPACE.build(trial.architecture, data.task, seed=trial.seed_for("weights"))


def test_psi_init_is_of_the_untrained_net_and_costs_no_training():
    asked = trial(2, "psi-init", "psi-epoch1", "psi", "clean")
    found = evaluate(asked)
    data = prepare(load_images(DATA), DATA)
    x = data.validation.images(slice(32))
    expected = susceptibility(
        untrained(asked, data),
        x,
        batch_norm="frozen",
        generator=generator(asked.seed_for(metric_key(asked.metrics[0]))),
    )
    scores = found.scores
    assert scores["psi_init"] == pytest.approx(expected.value, rel=1e-6)
    assert scores["psi_init_passes"] == expected.passes
    assert scores["psi_init_seconds"] > 0
    assert scores["psi_epoch1_seconds"] > 0
    assert len({scores[name] for name in ("psi_init", "psi_epoch1", "psi")}) == 3
    assert scores["train_seconds"] + scores["score_seconds"] <= found.seconds


def test_psi_epoch1_is_the_net_of_a_single_epoch():
    once, twice = (evaluate(trial(k, "psi-epoch1", "psi")).scores for k in (1, 2))
    assert "psi_epoch1" in once
    # one-cycle differs with the number of epochs, so the constant schedule is compared
    recipes = [
        Recipe(epochs=k, batch_size=32, adversary="none", steps=2, schedule="constant")
        for k in (1, 2)
    ]
    assert once["psi_epoch1"] != twice["psi_epoch1"]
    first = evaluate(Trial(trial(1).architecture, recipes[0], DATA, (METRICS["psi-epoch1"](),)))
    as_end = METRICS["psi"](limit=32, batch_norm="frozen")
    last = evaluate(Trial(trial(1).architecture, recipes[0], DATA, (as_end,)))
    assert first.scores["psi_epoch1"] == pytest.approx(last.scores["psi"], rel=0.1)  # other starts


def test_early_scores_leave_training_as_it_was():
    plain, watched = (
        evaluate(trial(2, *m)) for m in (("clean",), ("psi-init", "psi-epoch1", "clean"))
    )
    assert watched.scores["clean_accuracy"] == plain.scores["clean_accuracy"]
    for name, weight in plain.weights.items():
        assert torch.equal(weight, watched.weights[name])


def test_no_epochs_leave_the_initial_weights():
    asked = trial(0, "psi", "cost")
    found = evaluate(asked)
    assert found.status == "complete"
    model = untrained(asked, prepare(load_images(DATA), DATA))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, found.weights[name])
    assert found.scores["best_epoch"] == 0
    assert "best_epoch_robust_accuracy" not in found.scores
    assert found.last_weights is None


def test_a_search_without_training(tmp_path, tiny):
    tiny["recipe"]["epochs"] = 0
    tiny["metrics"] = [{"name": "psi", "limit": 8, "batch_norm": "frozen"}, "psi-init", "drift"]
    tiny["objectives"] = {"psi": "min"}
    table = load_table(search_here(tmp_path / "run", tiny))
    assert (table["status"] == "complete").all()
    assert (table["epochs"] == 0).all()
    assert table["drift_slope"].notna().all()


def test_the_limit_metric(digits_net, digits):
    x, y = digits.validation.images(slice(20)), digits.validation.labels[:20]
    scores = METRICS["psi-limit"]()(digits_net, x, y, generator=generator())
    expected = susceptibility_limit(digits_net, x, method="exact").log().mean().exp().item()
    assert scores["psi_limit"] == pytest.approx(expected, rel=1e-4)
    assert scores["psi_limit_low"] < scores["psi_limit"] < scores["psi_limit_high"]


class Constant(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * 0 + 1


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * torch.nan


class Half(nn.Module):
    """Constant for one kind of input."""

    def forward(self, x):
        flat = x.flatten(1)[:, :3]
        return torch.where(x.flatten(1)[:, 3:4] > 0.5, flat, flat * 0)


@pytest.mark.parametrize("name", ["psi", "psi-limit", "drift"])
@pytest.mark.parametrize("model", [Constant(), Broken(), Half()])
def test_a_model_that_has_no_ratio_has_no_score(name, model):
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    x[:4, 0, 0, 3], x[4:, 0, 0, 3] = 0.1, 0.9
    scores = METRICS[name]()(model, x, y)
    named = ("drift_lambda", "drift_slope") if name == "drift" else ("", "_low", "_high")
    for score in named:
        assert math.isnan(scores[score if name == "drift" else name.replace("-", "_") + score])


def test_radii_of_the_estimate(digits_net, digits):
    x, y = digits.validation.images(slice(20)), digits.validation.labels[:20]
    scores = METRICS["psi"]()(digits_net, x, y, generator=generator())
    with torch.no_grad():
        top = digits_net(x).topk(2, dim=1).values
    distance = (top[:, 0] - top[:, 1]) / math.sqrt(20) / scores["psi"]
    assert scores["psi_radius_mean"] == pytest.approx(distance.mean().item(), rel=1e-5)
    assert scores["psi_radius_min"] == pytest.approx(distance.min().item(), rel=1e-5)


def test_bad_settings_are_one_line(psinas, tmp_path, tiny):
    for setting, parts in (
        ("[{name: psi, step: leap}]", ("leap", "sign")),
        ("[{name: psi, law: bent}]", ("bent", "log-uniform")),
        ("[{name: psi-limit, rounds: 0}]", ("rounds >= 1",)),
        ("[{name: psi-limit, batch_norm: batch}]", ("eval or frozen",)),
        ("[{name: drift, radius: 0}]", ("RMS lengths > 0",)),
        ("[{name: psi-init, limit: 3}]", ("limit >= 4", "frozen")),
    ):
        result = psinas(
            "search", "digits", "--set", f"metrics={setting}",
            "--set", "objectives={best_epoch: min}", "--out", tmp_path / "run",
        )  # fmt: skip
        one_line(result, *parts)
    result = psinas(
        "search", "digits", "--set", "recipe.epochs=0", "--set", "metrics=[psi, psi-epoch1]",
        "--set", "objectives={psi: min}", "--out", tmp_path / "run",
    )  # fmt: skip
    one_line(result, "first epoch", "recipe.epochs is 0")
    run = search_here(tmp_path / "trained", {**tiny, "metrics": ["psi-init", "clean"],
                                             "objectives": {"psi_init": "min"}})  # fmt: skip
    one_line(psinas("score", run / "best", "--metrics", "psi-init"), "finished model", "psi_init")
    early = search_here(tmp_path / "early", {**tiny, "metrics": ["psi-init"],
                                             "objectives": {"psi_init": "min"}})  # fmt: skip
    one_line(psinas("score", early / "best"), "finished model", "--metrics")
    code, out, _ = psinas("score", run / "best")
    assert code == 0
    assert "psi_init" not in out
    assert "clean_accuracy" in out
