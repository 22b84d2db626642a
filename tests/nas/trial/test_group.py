"""Two processes train one model: the weights are those that one process trains, to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from other_process import Alone
from torch import nn
from torch.nn import functional

from metrics.attacks import ATTACKS, PGD
from nas.data.arrays import Data, Split
from nas.errors import Diverged
from nas.trial.group import Group
from nas.trial.optimizing import learning_rate
from nas.trial.recipe import Recipe
from nas.trial.team import join
from nas.trial.training import drain, train
from search_spaces import Task

HELPERS = Path(__file__).parents[2] / "helpers"
SETTINGS = {
    "square": {"queries": 5},
    "square-l2": {"queries": 5},
    "apgd": {"steps": 5},
    "apgd-t": {"steps": 5, "targets": 2},
    "fab": {"steps": 5, "targets": 2},
    "noise": {"draws": 3},
}
RECIPE = Recipe(
    epochs=2, batch_size=30, epsilon=0.1, steps=2, selection_images=20, flip=True, crop_padding=1,
    entropy_weight=0.5, label_smoothing=0.1, gradient_clip=0.5,
)  # fmt: skip


def images_of(count: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count + 30, 1, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(count + 30) % 4
    train, judged = (Split(pixels[s], labels[s]) for s in (slice(count), slice(count, None)))
    return Data(train, judged, Task.plain((1, 6, 6), 4))


def net(norm: bool = False) -> nn.Module:
    torch.manual_seed(1)
    parts = [nn.Conv2d(1, 6, 3), *([nn.BatchNorm2d(6)] if norm else []), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(96, 4)).double()


# ----------------------------------------------------------------------------- rows, in one process


@pytest.mark.parametrize("size", [2, 3, 5])
def test_every_image_is_one_process_s_and_none_has_one_alone(size):
    for of in range(1, 40):
        parts = [Group(rank, size).part(of) for rank in range(size)]
        every = torch.arange(of)
        rows = [part.take(every) for part in parts]
        assert sorted(torch.cat(rows).tolist()) == every.tolist()
        assert of == 1 or all(len(r) != 1 for r in rows)
        assert sum(part.share for part in parts) == pytest.approx(1)
        taking = [r for r in rows if len(r)]
        assert max(map(len, taking)) - min(map(len, taking)) <= 1
        for first in range(of + 1):
            attacked = [int((r < first).sum()) for r in taking]
            assert [len(p.among(first)) for p in parts if len(p.among(of))] == attacked
            assert max(attacked) - min(attacked) <= 1
    assert Group().part(7) is None


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("name", list(ATTACKS))
def test_rows_that_are_attacked_apart_are_those_of_the_whole_batch(name, batch_size):
    attack = ATTACKS[name](epsilon=0.1, **SETTINGS.get(name, {}))
    x, y, model = images_of(23).train.pixels, images_of(23).train.labels, net()
    generator = torch.Generator().manual_seed(5)
    whole = attack(model, x[:13], y[:13], generator=generator)
    right = model(x[:13]).argmax(dim=1) == y[:13]
    assert 0 < right.sum() < 13  # FAB leaves images that are wrong already where they are
    assert (whole != x[:13]).flatten(1).any(dim=1)[right].all()
    for rank in range(3):
        part = Group(rank, 3).part(23)
        own, labels = (part.take(t)[: len(part.among(13))] for t in (x, y))
        mine = torch.Generator().manual_seed(5)
        found = part.attacked(attack, model, own, labels, 13, generator=mine, batch_size=batch_size)
        torch.testing.assert_close(found, whole[rank::3], rtol=0, atol=1e-12)
        assert torch.equal(mine.get_state(), generator.get_state())


def test_an_attack_that_draws_for_a_batch_draws_for_each_process_by_itself():
    class Mine(PGD):
        draws_by_image = False

        def perturb(self, model, x, labels, generator):
            return x + 0.01 * torch.rand(x.shape, generator=generator, dtype=x.dtype)

    x, found, states = images_of(20).train.pixels * 0.5, [], []
    for rank in range(2):
        part, generator = Group(rank, 2).part(20), torch.Generator().manual_seed(5)
        own = part.take(x)
        made = part.attacked(Mine(epsilon=0.1), net(), own, None, 20, generator=generator)
        found.append((made - own).flatten(1).float())  # but for rounding
        states.append(generator.get_state())
    assert len(torch.cat(found).mul(1e6).round().unique(dim=0)) == 20
    assert torch.equal(*states)


@pytest.mark.parametrize("wrong", [{"awp": 0.01}, {"carry_perturbations": True}])
def test_a_recipe_that_no_group_trains_is_refused(wrong):
    recipe, key = replace(RECIPE, flip=False, crop_padding=0, **wrong), next(iter(wrong))
    with pytest.raises(ValueError, match=rf"^{key}: expected .* where 2 processes train"):
        Group(0, 2).check(recipe)
    Group().check(recipe)


# ---------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return what trains a case in two processes: the training here, what the other one left."""
    place = tmp_path_factory.mktemp("meeting")
    path = {"PYTHONPATH": os.pathsep.join(map(str, (HELPERS.parents[1], HELPERS)))}
    command = [sys.executable, str(HELPERS / "other_process.py"), str(place)]
    with subprocess.Popen(command, env={**os.environ, **path}) as other:
        join(place, 0, 2, torch.device("cpu"))
        group = Group(0, 2, Alone())

        def trained(model, data, recipe, micro_batch=None):
            group.told((model, data, recipe, 3, micro_batch))
            generator = torch.Generator().manual_seed(3)
            steps = train(
                model, data, recipe, recipe.attack(), generator, micro_batch=micro_batch,
                group=group,
            )  # fmt: skip
            found = drain(steps)
            group.told("done")
            return found, torch.load(place / "other.pt", weights_only=False)

        try:
            yield trained
            group.told(None)
        finally:
            torch.distributed.destroy_process_group()
            other.kill()


def by_one(model, data, recipe):
    return drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("count", "changed", "micro_batch"),
    [
        (64, {}, None),  # batches of 30, 30 and 4
        (61, {}, None),  # a last batch of 1, which is dropped
        (93, {"batch_size": 31, "adversarial_share": 1.0}, None),
        (33, {}, 4),  # a last batch of 3, too few for two
        (64, {"adversarial_share": 0.04, "weight_decay": 0.0}, None),  # one image is attacked
        (8, {"batch_size": 3}, None),  # each batch is one process's
        (1, {}, None),
        (64, {"adversary": "none", "optimizer": "adamw", "learning_rate": 1e-3}, None),
    ],
)
def test_without_batch_norm_the_weights_are_those_of_one_process(count, changed, micro_batch, pair):
    data, recipe = images_of(count), replace(RECIPE, **changed)
    expected = by_one(net(), data, recipe)
    found, (others, epochs) = pair(net(), data, recipe, micro_batch)
    start = net().state_dict()
    for name, weight in expected.last_weights.items():
        torch.testing.assert_close(found.last_weights[name], weight, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(weight, start[name], rtol=1e-3, atol=1e-4)
        assert torch.equal(others[name], found.last_weights[name])
    for mine, one, other in zip(found.epochs, expected.epochs, epochs, strict=True):
        assert mine.train_loss == pytest.approx(one.train_loss, rel=1e-6)
        assert (mine.clean_accuracy, mine.robust_accuracy) == (
            one.clean_accuracy,
            one.robust_accuracy,
        )
        assert replace(other, seconds=0) == replace(mine, seconds=0)


def test_batch_norm_normalises_by_a_process_s_own_rows_and_keeps_their_mean(pair):
    """One step on seven images, by hand: four rows and three, each normalised by itself."""
    data = images_of(7)
    recipe = Recipe(
        epochs=1, batch_size=7, adversary="none", selection_images=0, learning_rate=0.5,
        momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    found, (others, _) = pair(net(norm=True), data, recipe)
    generator = torch.Generator().manual_seed(3)
    torch.randint(2**62, (), generator=generator)
    order = torch.randperm(7, generator=generator)
    total, means, variances = 0.0, 0.0, 0.0
    model = net(norm=True)
    for rows in (order[0::2], order[1::2]):
        features = model[0](data.train.pixels[rows].float().double())
        mean, var = features.mean((0, 2, 3)), features.var((0, 2, 3), unbiased=False)
        normed = (features - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        logits = model[-1](functional.relu(normed).flatten(1))
        total = total + functional.cross_entropy(logits, data.train.labels[rows], reduction="sum")
        share = len(rows) / 7
        means += share * mean.detach()
        variances += share * features.detach().var((0, 2, 3), unbiased=True)
    total = total / 7
    weights = [model[0].weight, model[0].bias, model[-1].weight, model[-1].bias]
    rate = learning_rate(recipe, 0, 1)
    last = found.last_weights
    for w, g, name in zip(
        weights,
        torch.autograd.grad(total, weights),
        ("0.weight", "0.bias", "4.weight", "4.bias"),
        strict=True,
    ):
        torch.testing.assert_close(last[name], w.detach() - rate * g, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(last["1.running_mean"], 0.1 * means, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(last["1.running_var"], 0.9 + 0.1 * variances, rtol=1e-6, atol=1e-9)
    assert found.last.train_loss == pytest.approx(total.item(), rel=1e-6)
    assert all(torch.equal(others[name], weight) for name, weight in last.items())


def test_all_processes_agree_over_epochs_with_batch_norm(pair):
    found, (others, _) = pair(net(norm=True), images_of(33), RECIPE)
    assert all(torch.equal(others[name], w) for name, w in found.last_weights.items())
    assert found.last_weights["1.num_batches_tracked"] == 4


def test_a_loss_that_is_not_finite_ends_all_alike(pair):
    wrong = replace(RECIPE, learning_rate=1e38, gradient_clip=None)
    with pytest.raises(Diverged):
        pair(net(), images_of(64), wrong)
    pair(net(), images_of(64), RECIPE)  # the other one has gone on too
