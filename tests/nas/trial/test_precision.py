"""bf16 is for training alone, on devices that compute it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_cuda import NAME, fake_cuda
from torch import nn

import nas.trial.evaluation
import nas.trial.precision
import nas.trial.training
from metrics import METRICS
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluate
from nas.trial.machine import environment_of
from nas.trial.precision import check_precision, training_precision
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def fast(monkeypatch):
    """Return a function that decides which kinds of device have fast bf16."""

    def decide(*kinds):
        monkeypatch.setattr(nas.trial.precision, "fast_bf16", lambda device: device.type in kinds)

    return decide


@pytest.mark.parametrize(
    ("precision", "device", "kinds", "expected"),
    [
        ("auto", CUDA, ("cuda",), "bf16"),
        ("auto", CUDA, (), "float32"),
        ("auto", CPU, ("cpu",), "float32"),
        ("bf16", CUDA, ("cuda",), "bf16"),
        ("bf16", CPU, (), "bf16"),
        ("float32", CUDA, ("cuda",), "float32"),
    ],
)
def test_which_precision_a_model_is_trained_in(fast, precision, device, kinds, expected):
    fast(*kinds)
    recipe = Recipe(precision=precision)
    check_precision(recipe, device)
    assert training_precision(recipe, device) == expected
    with fake_cuda():
        assert environment_of(device, recipe)["training_precision"] == expected


def trial(**settings):
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    recipe = Recipe(
        epochs=1, batch_size=16, epsilon=0.1, steps=1, adversarial_share=1.0, selection_images=8,
        **settings,
    )  # fmt: skip
    metrics = (
        METRICS["clean"](), METRICS["pgd"](steps=1), METRICS["psi"](limit=4),
        METRICS["cost"](),
    )  # fmt: skip
    data = DataConfig(limit=Limit(train=32, validation=16))
    return Trial(space.architecture({"depth": 2, "channels": 4}), recipe, data, metrics)


def test_bf16_is_refused_on_a_card_that_only_emulates_it():
    asked = trial(precision="bf16")
    images = load_images(asked.data)
    with fake_cuda():
        found = evaluate(asked, images, device="cuda")
        auto = evaluate(replace(asked, recipe=replace(asked.recipe, precision="auto")), images,
                        device="cuda")  # fmt: skip
    assert found.status == "error"
    assert "precision: expected auto or float32" in found.reason
    assert NAME in found.reason
    assert auto.status == "complete"
    assert auto.environment["training_precision"] == "float32"


def test_only_training_runs_in_bf16(monkeypatch):
    """Every convolution of judging and scoring computes in float32, whatever training does."""
    seen = {"gradients": set(), "_judge": set(), "score_stage": set()}
    inside = []
    convolution = nn.Conv2d.forward

    def watched(module, x):
        out = convolution(module, x)
        if inside:
            seen[inside[-1]].add(out.dtype)
        return out

    def watch(module, name):
        work = getattr(module, name)

        def watching(*arguments, **settings):
            inside.append(name)
            try:
                return work(*arguments, **settings)
            finally:
                inside.pop()

        monkeypatch.setattr(module, name, watching)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    watch(nas.trial.training, "gradients")
    watch(nas.trial.training, "_judge")
    watch(nas.trial.evaluation, "score_stage")
    found = evaluate(trial(precision="bf16"))
    assert found.status == "complete"
    assert found.environment["training_precision"] == "bf16"
    assert torch.bfloat16 in seen["gradients"]
    assert seen["_judge"] == seen["score_stage"] == {torch.float32}
    assert {w.dtype for w in found.weights.values()} == {torch.float32, torch.int64}
