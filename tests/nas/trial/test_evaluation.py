"""One trial: the same scores whoever asks, and every failure a status with a reason."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fake_cuda import NAME, fake_cuda
from faulty_spaces import Faulty

import metrics
from metrics.bounds.lower import lower_bounds
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import TRAINING_SCORES, evaluate
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.training import drain
from nas.trial.trial import Trial
from search_spaces import Answers, DepthChannels

METRICS = tuple(
    metrics.METRICS[name](**settings)
    for name, settings in (
        ("clean", {}),
        ("pgd", {"epsilon": 0.1, "steps": 2}),
        ("psi", {"limit": 8}),
        ("cost", {}),
    )
)

AUGMENTED = Recipe(
    epochs=2, batch_size=64, epsilon=0.1, steps=2, selection_images=40, flip=True, crop_padding=1,
    entropy_weight=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig())


@pytest.fixture
def trial():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    return Trial(
        space.architecture({"depth": 2, "channels": 4}),
        Recipe(epochs=2, batch_size=64, epsilon=0.1, steps=2, selection_images=40),
        DataConfig(limit=Limit(train=128, validation=60)),
        METRICS,
    )


def faulty(trial, kind):
    return replace(trial, architecture=Faulty().suggest(Answers({"kind": kind})))


def numbers(evaluation):
    return {k: v for k, v in evaluation.scores.items() if not k.endswith("_seconds")}


def test_a_trial_reports_every_score(trial, images):
    evaluation = evaluate(trial, images)
    names = [name for metric in METRICS for name in metric.score_names]
    assert list(evaluation.scores) == [*names, *TRAINING_SCORES]
    assert (evaluation.status, len(evaluation.epochs)) == ("complete", 2)
    json.dumps(evaluation.to_dict())
    assert evaluation.environment["threads"] == torch.get_num_threads()


def test_the_same_trial_has_the_same_scores(trial, images):
    first = evaluate(trial, images)
    torch.manual_seed(99)  # a worker that did something else before
    torch.rand(10)
    second = evaluate(trial, images)
    assert numbers(first) == numbers(second)
    assert all(torch.equal(first.weights[k], second.weights[k]) for k in first.weights)


def test_dropout_is_decided_by_the_trials_seed(trial, images):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append(evaluate(faulty(trial, "dropout"), images))
    assert numbers(runs[0]) == numbers(runs[1])
    assert all(torch.equal(runs[0].weights[k], runs[1].weights[k]) for k in runs[0].weights)


def test_the_space_that_proposed_it_plays_no_part(trial, images):
    wide = DepthChannels(depth=(1, 2, 8), channels=(16, 4), stem="small")
    other = replace(trial, architecture=wide.architecture({"depth": 2, "channels": 4}))
    assert other.architecture != trial.architecture
    assert other.key == trial.key
    assert numbers(evaluate(other, images)) == numbers(evaluate(trial, images))


def test_seed_repeat_and_recipe_change_the_scores(trial, images):
    reference = numbers(evaluate(trial, images))
    for other in (
        replace(trial, seed=1),
        replace(trial, repeat=1),
        replace(trial, recipe=replace(trial.recipe, entropy_weight=1.0)),
    ):
        assert numbers(evaluate(other, images)) != reference
    assert len({t.key for t in (trial, replace(trial, repeat=1))}) == 2


def test_the_order_of_metrics_plays_no_part(trial, images):
    turned = replace(trial, metrics=METRICS[::-1])
    assert numbers(evaluate(turned, images)) == numbers(evaluate(trial, images))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_global_generators_are_left_as_found(device, trial, images):
    with fake_cuda():
        torch.manual_seed(5)
        torch.rand(3, device="cuda")
        before = [torch.get_rng_state(), torch.cuda.get_rng_state()]
        assert evaluate(faulty(trial, "dropout"), images, device=device).status == "complete"
        after = [torch.get_rng_state(), torch.cuda.get_rng_state()]
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("kind", [None, "dropout"])
def test_a_trial_has_the_cpus_scores_on_a_gpu(kind, trial, images):
    trial = replace(trial if kind is None else faulty(trial, kind), recipe=AUGMENTED)
    on_cpu = evaluate(trial, images)
    with fake_cuda():
        torch.manual_seed(1)  # the trial seeds what it draws from
        on_gpu = evaluate(trial, images, device="cuda")
    environment = {"device": "cuda", "device_name": NAME, "fast_bf16": False}
    assert on_gpu.environment == on_cpu.environment | environment
    assert numbers(on_gpu) == pytest.approx(numbers(on_cpu), rel=1e-4)  # batches have other sizes
    for name, weight in on_cpu.weights.items():
        torch.testing.assert_close(on_gpu.weights[name], weight)


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("raises", "error", "RuntimeError: this architecture raises"),
        ("diverges", "diverged", "the loss is"),
        ("invalid", "invalid", "this architecture does not fit"),
        ("memory", "oom", "MemoryError"),
    ],
)
def test_failures_are_statuses_with_reasons(kind, status, reason, trial, images):
    evaluation = evaluate(faulty(trial, kind), images)
    assert evaluation.status == status
    assert evaluation.reason.startswith(reason)
    assert not evaluation.scores
    assert ("Traceback" in evaluation.traceback) == (status in ("error", "oom"))


def test_no_trial_survives_an_attack_below_its_bound(trial, images, monkeypatch):
    def wrong(*args, **settings):
        found = lower_bounds(*args, **settings)
        return replace(found, radius=10 * found.radius + 1)

    bracket = metrics.METRICS["bracket"](epsilon=0.1, limit=5, budget=20, linear=False)
    trial = replace(trial, metrics=(bracket,))
    assert evaluate(trial, images).status == "complete"
    monkeypatch.setattr("metrics.bounds.both_ends.lower_bounds", wrong)
    result = evaluate(trial, images)
    assert result.status == "error"
    assert "expected no attack below a certified bound" in result.reason


def test_torch_running_out_of_memory_is_oom(trial, images, monkeypatch):
    def greedy(self, architecture, task):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(Faulty, "network", greedy)
    assert evaluate(faulty(trial, "good"), images).status == "oom"


def test_a_wrong_number_of_logits_is_invalid(trial, images):
    five = replace(trial, data=replace(trial.data, classes=(0, 1, 2, 3, 4)))
    evaluation = evaluate(faulty(five, "good"), images)  # Faulty always answers ten
    assert evaluation.status == "invalid"
    assert "(2, 5), got (2, 10)" in evaluation.reason


def test_varied():
    trial = Trial(None, Recipe(), DataConfig(), ())
    assert trial.varied("recipe.entropy_weight", 4.5).recipe.entropy_weight == 4.5
    assert trial.varied("data.classes", [3, 5]).data.classes == (3, 5)
    assert trial.varied("data.limit", {"train": 9}).data.limit == Limit(train=9)
    assert trial.varied("repeat", 2).repeat == 2
    for name in ("recipe.moon", "data.moon", "seed", "moon"):
        with pytest.raises(ValueError, match=r"recipe\.KEY"):
            trial.varied(name, 1)


def test_a_runner_prepares_each_dataset_once_and_fails_one_trial_alone(trial, images, monkeypatch):
    from nas.trial import runner as module

    calls = []
    original = module.prepare

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(module, "prepare", counted)
    runner = TrialRunner(trial, {trial.data.source: images}, device="cpu", threads=1)
    statuses = []
    for classes in (None, None, (3, 77), (3, 7)):
        made = runner.trial(trial.architecture.to_dict(), {"data.classes": classes})
        statuses.append(drain(runner.run(made)).status)
    assert statuses == ["complete", "complete", "invalid", "complete"]
    assert len(calls) == 3
