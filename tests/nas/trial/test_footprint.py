"""The estimate of a trial's memory, beside what torch's allocator did while the trial ran."""

from __future__ import annotations

import gc
import statistics
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from metrics import METRICS
from metrics.attacks import ATTACKS
from metrics.engine.folding import fast_copy
from metrics.engine.forwards import Forwards
from nas.data.arrays import Images
from nas.data.config import DataConfig, Limit
from nas.trial.evaluation import evaluate
from nas.trial.footprint import NoEstimate, footprint
from nas.trial.live_bytes import emptied, without_values
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import SEARCH_SPACES, DepthChannels, FeedForward, Task

WITHIN = 0.2
LIGHT = ("depth-channels", "lenet", "feedforward", "vgg-lite")
SPACES = {
    "depth-channels": {},
    "lenet": {},
    "feedforward": {},
    "vgg-lite": {},
    "nasbench201": {"cells": 2},
    "cifar-resnet": {"depth": (20, 32)},
    "nasnet": {"filters": 8, "blocks": 5, "cells": 1, "drop_path": 0.2},
    "resnet": {"depth": (18, 34, 50), "stem": "small"},
    "torchvision": {"model": ("resnet18", "shufflenet_v2_x0_5", "squeezenet1_1")},
}
"""Settings that leave a trial of a few batches seconds long."""


def allocated(work):
    """Return what ``work`` returns and the most bytes that torch's allocator held meanwhile."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        found = work()
    events = seen.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return found, int(np.cumsum([size for _, size in changes]).max())


def images(shape, count):
    """Return noise, of which nearly all is of one class: a net is soon right on it, and stays."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return Images(pixels, (np.arange(count) % 20 == 0).astype(np.int64), ("often", "seldom"))


def drawn(name, seed):
    """Return a trial with all of it drawn, its task, its micro-batch and its images."""
    rng = np.random.default_rng(seed)

    def pick(*values):
        return values[rng.integers(len(values))]

    space = SEARCH_SPACES[name](**SPACES[name])
    architecture = space.sample(rng)
    batch = pick(16, 24, 32)
    side = 32 if name == "torchvision" else pick(16, 24)
    shape = (3 if name == "torchvision" else pick(1, 3), side, side)
    judged = batch * 3 // 4  # as of 128 images 100
    recipe = Recipe(
        epochs=2, batch_size=batch, steps=1, epsilon=0.001, selection_images=judged,
        adversary=pick("pgd", "pgd", "fgsm", "none"), optimizer=pick("sgd", "adam"),
        learning_rate=0.002, adversarial_share=pick(0.5, 1.0), flip=bool(pick(0, 1)),
        crop_padding=pick(0, 2),
    )  # fmt: skip
    chosen = (("clean", {}), ("pgd", {"epsilon": 0.001, "steps": 1}), ("psi", {"limit": 4}))
    scores = tuple(METRICS[metric](**settings) for metric, settings in chosen)
    data = DataConfig("npz:none", limit=Limit(train=2 * batch, validation=judged))
    trial = Trial(architecture, recipe, data, pick((), (), scores))
    micro_batch = pick(None, None, None, batch // 2)
    return trial, Task.plain(shape, 2), micro_batch, images(shape, 8 * batch)


def share(name, seed, **keys):
    """Return the estimate over the measured peak of one trial, with ``keys`` in its recipe."""
    trial, task, micro_batch, pictures = drawn(name, seed)
    trial = replace(trial, recipe=replace(trial.recipe, **keys))
    estimate = footprint(trial, task, micro_batch=micro_batch)
    evaluation, peak = allocated(lambda: evaluate(trial, pictures, micro_batch=micro_batch))
    assert evaluation.status == "complete", evaluation.reason
    return estimate.peak_bytes / peak


@pytest.mark.parametrize(
    "name",
    [n if n in LIGHT else pytest.param(n, marks=pytest.mark.slow) for n in SEARCH_SPACES],
)
def test_the_estimate_is_near_what_the_allocator_held(name):
    assert share(name, 101) == pytest.approx(1, abs=WITHIN)


@pytest.mark.parametrize("name", ["depth-channels", "feedforward"])
@pytest.mark.parametrize(("loss", "share_of", "awp"), [("trades", None, 0.005), ("mart", 0.5, 0.0)])
def test_so_it_is_where_a_loss_takes_two_batches_and_weights_move(loss, share_of, awp, name):
    keys = {"loss": loss, "adversarial_share": share_of, "awp": awp, "adversary": "pgd"}
    assert share(name, 101, **keys) == pytest.approx(1, abs=WITHIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_fifty_of_every_space(name):
    shares = [share(name, seed) for seed in range(100, 150)]
    print(name, *(f"{f(shares):.3f}" for f in (min, statistics.median, max)))
    assert all(abs(found - 1) <= WITHIN for found in shares)


def dense(units=300):
    space = FeedForward(kinds=("dense",), hidden_layers=(1,), units=(units,), dropout=(0.0,))
    architecture = next(iter(space))
    recipe = Recipe(batch_size=64, epochs=1, selection_images=0)
    limit = Limit(train=128, validation=40)
    return Trial(architecture, recipe, DataConfig(limit=limit), ()), Task.plain((1, 8, 8), 10)


def test_a_dense_net_by_hand():
    """One hidden layer: what autograd keeps are inputs of layers and outputs of ReLUs."""
    trial, task = dense()
    found = footprint(replace(trial, recipe=replace(trial.recipe, adversary="none")), task)
    weights = 4 * (64 * 300 + 300 + 300 * 10 + 10)
    normalisation = 4 * 2
    assert found.state_bytes == 3 * weights + normalisation  # with gradients and momentum
    images, hidden, logits = 4 * 64 * 64, 4 * 64 * 300, 4 * 64 * 10
    assert found.activation_bytes == pytest.approx(images + hidden + logits, rel=0.1)
    assert found.image_bytes == (128 + 40) * (64 + 8)


def test_two_batches_keep_twice_and_moved_weights_a_copy_and_a_step():
    trial, task = dense()
    plain, trades, moved = (
        footprint(replace(trial, recipe=replace(trial.recipe, **keys)), task)
        for keys in ({}, {"loss": "trades"}, {"awp": 0.01})
    )
    assert trades.activation_bytes == pytest.approx(2 * plain.activation_bytes, rel=0.1)
    assert moved.activation_bytes == plain.activation_bytes
    weights = 4 * (64 * 300 + 300 * 10)
    assert weights <= moved.temporary_bytes - plain.temporary_bytes <= 2 * weights + 200
    parts = footprint(
        replace(trial, recipe=replace(trial.recipe, loss="trades")), task, micro_batch=16
    )
    assert parts.activation_bytes == pytest.approx(trades.activation_bytes / 4, rel=0.1)


def test_parts_come_together_and_settings_count():
    trial, task = dense()
    found = footprint(trial, task)
    parts = found.state_bytes + found.activation_bytes + found.temporary_bytes + found.image_bytes
    assert found.training_bytes == parts
    seen = max(found.training_bytes, found.scoring_bytes)
    assert seen < found.peak_bytes == pytest.approx(1.05 * seen, abs=1)
    adam = replace(trial, recipe=replace(trial.recipe, optimizer="adam"))
    weights = (found.state_bytes - 8) // 3
    assert footprint(adam, task).state_bytes == found.state_bytes + weights
    summed = replace(trial, recipe=replace(trial.recipe, accumulate=2))
    assert footprint(summed, task).state_bytes == found.state_bytes + weights
    assert footprint(trial, task, images=(1128, 40)).image_bytes == found.image_bytes + 72_000
    more = footprint(trial, task, device="cuda")
    assert more.peak_bytes > found.peak_bytes
    assert more.state_bytes == found.state_bytes  # bf16 is of what passes through alone
    with pytest.raises(ValueError, match=r"^device: expected one of \['cpu', 'cuda'\], got 'tpu'"):
        footprint(trial, task, device="tpu")


def test_averaged_weights_count():
    """Once as they are, once as the best of them, and while they are in the model its own."""
    trial, task = dense()
    recipe = replace(trial.recipe, adversary="none", selection_images=40)
    footprint(replace(trial, recipe=recipe), task)  # torch.fx warns once, an error in tests
    plain = footprint(replace(trial, recipe=recipe), task)
    recipe = replace(recipe, weight_average=0.9)
    found = footprint(replace(trial, recipe=recipe), task)
    weights = 4 * (64 * 300 + 300 + 300 * 10 + 10) + 4 * 2
    assert found.state_bytes == plain.state_bytes + weights
    assert found.training_bytes >= plain.training_bytes + 2 * weights
    assert found.scoring_bytes == plain.scoring_bytes + 3 * weights


@pytest.mark.parametrize("metrics", [(), (METRICS["clean"](), METRICS["pgd"](epsilon=0.01))])
def test_the_estimate_of_averaged_weights_is_near_what_the_allocator_held(metrics):
    space = FeedForward(kinds=("dense",), hidden_layers=(2,), units=(900,), dropout=(0.0,))
    recipe = Recipe(
        batch_size=32, epochs=1, steps=1, epsilon=0.001, selection_images=40, weight_average=0.9
    )
    data = DataConfig("npz:none", limit=Limit(train=128, validation=40))
    trial = Trial(next(iter(space)), recipe, data, metrics)
    estimate = footprint(trial, Task.plain((1, 16, 16), 2))
    pictures = images((1, 16, 16), 200)
    evaluation, peak = allocated(lambda: evaluate(trial, pictures))
    assert evaluation.status == "complete", evaluation.reason
    assert estimate.peak_bytes / peak == pytest.approx(1, abs=WITHIN)


def test_activations_grow_with_the_micro_batch():
    space = DepthChannels(depth=(4,), channels=(16,), stem="small")
    architecture = next(iter(space))
    trial = Trial(architecture, Recipe(batch_size=64), DataConfig(limit=Limit(64, 64)), ())
    task = Task.plain((3, 32, 32), 10)
    whole, half, eighth = (footprint(trial, task, micro_batch=n) for n in (None, 32, 8))
    assert (whole.batch, half.batch, eighth.batch) == (64, 32, 8)
    assert half.activation_bytes == pytest.approx(whole.activation_bytes / 2, rel=0.02)
    assert eighth.activation_bytes == pytest.approx(whole.activation_bytes / 8, rel=0.05)
    assert whole.peak_bytes > half.peak_bytes > eighth.peak_bytes
    bf16 = footprint(trial, task, device="cuda")
    assert 0.45 < bf16.activation_bytes / whole.activation_bytes < 0.8


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_has_a_footprint(name):
    trial, task = dense()
    recipe = Recipe(batch_size=64, adversary=name, **({"epsilon": 0.5} if "l2" in name else {}))
    assert footprint(replace(trial, recipe=recipe), task).peak_bytes > 0


def test_nothing_is_drawn_and_nothing_stays():
    trial, task = dense()
    state = torch.get_rng_state()
    before = sum(type(o) is nn.Parameter for o in gc.get_objects())
    assert footprint(trial, task) == footprint(trial, task)
    gc.collect()
    assert sum(type(o) is nn.Parameter for o in gc.get_objects()) <= before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.ones(2).sum().item() == 2  # tensors have values again


def test_a_model_that_needs_values_has_no_estimate(monkeypatch):
    trial, task = dense()

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(x.flatten(1).numpy())

    monkeypatch.setattr(FeedForward, "network", lambda self, architecture, task: Asks())
    with pytest.raises(NoEstimate, match="^no estimate of its memory: "):
        footprint(trial, task)


# ----------------------------------------------------------------------------------- live bytes


def test_bytes_are_alive_as_long_as_a_tensor_is():
    with without_values() as live:
        a = torch.empty(1000)
        view = a[:10]
        b = a * 2
        assert (live.now, live.most) == (8000, 8000)
        del a
        assert live.now == 8000  # the view holds it
        del view
        assert live.now == 4000
        live.begin()
        assert live.most == 4000
        b.add_(1)
        assert live.most == 4000
        del b
    assert live.now == 0


def test_autograd_keeps_what_backward_needs():
    with without_values() as live:
        w = torch.empty(100, 100, requires_grad=True)
        x = torch.empty(50, 100)
        kept = (x @ w).exp().sum()
        assert live.now == 40_000 + 20_000 + 20_000 + 4
        kept.backward()
        assert live.now == 40_000 + 40_000 + 20_000 + 4
        # The gradient of the product beside both of w; the exponential is gone by then.
        assert live.most == 40_000 + 40_000 + 20_000 + 20_000 + 4 + 4


def test_a_models_layouts_stay():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    with torch.device("meta"):
        model = space.build(next(iter(space)), Task.plain((3, 8, 8), 10))
    strides = {name: v.stride() for name, v in model.state_dict().items()}
    with without_values():
        found = emptied(model)
        assert {name: v.stride() for name, v in found.state_dict().items()} == strides
        assert found(torch.empty(2, 3, 8, 8)).shape == (2, 10)


def test_a_fast_copy_is_freed_when_nobody_holds_it():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    model = space.build(next(iter(space)), Task.plain((3, 8, 8), 10)).eval()
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gc.collect()
    gc.disable()
    try:
        quick = fast_copy(model, x)
        passes = Forwards(quick, x, clip=False)
        assert passes.split
        left = [weakref.ref(w) for w in quick.parameters()]
        assert left
        del quick, passes
        assert not any(ref() is not None for ref in left)
    finally:
        gc.enable()
