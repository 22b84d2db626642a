"""AWP: its step by hand, the gradient at moved weights, and weights that are back to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas.trial import minibatch
from nas.trial.minibatch import gradients
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from nas.trial.weight_perturbation import perturbed
from search_spaces import DepthChannels, FeedForward, Task

GAMMA = 0.25
AWP = Recipe(adversary="none", awp=GAMMA, selection_images=0, epsilon=0.1, steps=2)


def bits(model):
    return {name: v.clone() for name, v in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


class Linear(nn.Module):
    """Logits W x + b of flat images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
            self.layer.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, x):
        return self.layer(x.flatten(1))


def slope(weight, bias, x, label):
    """Return the gradient of the cross entropy of one image in W, and in b, by hand."""
    logits = [sum(w * v for w, v in zip(row, x, strict=True)) + c
              for row, c in zip(weight, bias, strict=True)]  # fmt: skip
    powers = [math.exp(z) for z in logits]
    errors = [p / sum(powers) - (k == label) for k, p in enumerate(powers)]
    return [[e * v for v in x] for e in errors], errors


def test_a_step_by_hand():
    """W moves by γ ||W|| G / ||G||, b does not; the gradient is that of the moved net."""
    x, label, bias = [0.25, 0.75], 1, [0.5, 0.0]
    weight = [[3.0, 0.0], [0.0, -4.0]]  # of norm 5
    first, _ = slope(weight, bias, x, label)
    norm = math.sqrt(sum(g * g for row in first for g in row))
    moved = [[w + GAMMA * 5 * g / norm for w, g in zip(*rows, strict=True)]
             for rows in zip(weight, first, strict=True)]  # fmt: skip
    expected, errors = slope(moved, bias, x, label)
    model = Linear()
    before = bits(model)
    images, labels = torch.tensor(x).view(1, 1, 1, 2), torch.tensor([label])
    loss = gradients(model, images, labels, AWP, None, torch.Generator(), None, perturb=True)
    torch.testing.assert_close(model.layer.weight.grad, torch.tensor(expected))
    torch.testing.assert_close(model.layer.bias.grad, torch.tensor(errors))
    assert loss.item() == pytest.approx(-math.log(1 + errors[label]), rel=1e-5)
    assert same(model, before)
    plain = gradients(model, images, labels, AWP, None, torch.Generator(), None)
    assert loss > plain  # it went up


def test_every_weight_moves_by_its_own_norm_and_vectors_stay():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
    )
    x, y = torch.rand(6, 1, 4, 4), torch.arange(6) % 4
    functional.cross_entropy(model(x), y).backward()
    before, pulls = bits(model), {n: p.grad.clone() for n, p in model.named_parameters()}
    with perturbed(model, GAMMA):
        assert all(p.grad is None for p in model.parameters())
        for name, parameter in model.named_parameters():
            delta = parameter.detach() - before[name]
            if parameter.ndim == 1:
                assert not delta.any()
                continue
            along = functional.cosine_similarity(delta.flatten(), pulls[name].flatten(), dim=0)
            assert along.item() == pytest.approx(1, abs=1e-5)
            assert delta.norm() / before[name].norm() == pytest.approx(GAMMA, rel=1e-4)
    assert same(model, before)


def test_weights_come_back_also_when_the_loss_raises(monkeypatch):
    """Weights of all sizes, among which w + v - v would lose bits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight.mul_(10.0 ** torch.arange(-6, 6).view(3, 4))
    before = bits(model)
    x, y = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    losses = []

    def failing(logits, labels, recipe):
        losses.append(functional.cross_entropy(logits, labels))
        if len(losses) == 2:
            assert not torch.equal(model[1].weight, before["1.weight"])
            raise KeyboardInterrupt
        return losses[-1]

    monkeypatch.setattr(minibatch, "mean_loss", failing)
    model.train()
    with pytest.raises(KeyboardInterrupt):
        gradients(model, x, y, AWP, None, torch.Generator(), None, perturb=True)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_batch_norm_counts_the_pass_at_the_moved_weights_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).train()
    x, y = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    start = bits(model)
    gradients(model, x, y, AWP, None, torch.Generator(), None)
    plain = bits(model)
    model.load_state_dict(start)
    gradients(model, x, y, AWP, None, torch.Generator(), None, perturb=True)
    assert model[2].num_batches_tracked == start["2.num_batches_tracked"] + 1
    assert not torch.allclose(model[2].running_mean, plain["2.running_mean"], atol=1e-3)
    # By hand: 0.9 times what was, and 0.1 times the mean at the moved weights.
    model.load_state_dict(start)
    gradients(model, x, y, AWP, None, torch.Generator(), None)
    model.load_state_dict(start)
    with torch.no_grad():
        weight, pull = model[1].weight, model[1].weight.grad
        moved = weight + GAMMA * weight.norm() * pull / pull.norm()
        mean = (x.flatten(1) @ moved.T + model[1].bias).mean(dim=0)
    gradients(model, x, y, AWP, None, torch.Generator(), None, perturb=True)
    torch.testing.assert_close(model[2].running_mean, 0.1 * mean, rtol=1e-3, atol=1e-5)


def test_zero_norms_and_parts_without_a_gradient_move_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 3))
    model.spare = nn.Linear(5, 5)  # takes no part
    with torch.no_grad():
        model[2].weight.zero_()  # so the first layer has no gradient, and this one no norm
    before = bits(model)
    model.forward = lambda x: model[2](model[1](x.flatten(1)))
    x, y = torch.rand(6, 1, 2, 2), torch.arange(6) % 3
    functional.cross_entropy(model(x), y).backward()
    assert not model[1].weight.grad.any()
    with perturbed(model, GAMMA):
        assert same(model, before)
    loss = gradients(model, x, y, AWP, None, torch.Generator(), None, perturb=True)
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("loss", ["cross-entropy", "trades", "mart"])
def test_without_batch_norm_micro_batches_are_whole_ones(loss):
    space = FeedForward(kinds=("conv",), channels=(6,), units=(30,), dropout=(0.0,))
    answers = {name: choices[0] for name, choices in space.decisions().items()}
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(10, 1, 6, 6, generator=generator, dtype=torch.float64)
    y = torch.arange(10) % 3
    recipe = replace(AWP, loss=loss, adversary="pgd", awp=0.01)
    found = []
    for micro_batch in (None, 4):
        task = Task.plain((1, 6, 6), 3)
        model = space.build(space.architecture(answers), task, seed=1).double()
        before = bits(model)
        seeded = generator.manual_seed(3)
        attack = recipe.attack()
        total = gradients(model, x, y, recipe, attack, seeded, micro_batch, perturb=True)
        assert same(model, before)
        found.append((total, [p.grad for p in model.parameters()]))
    assert found[1][0].item() == pytest.approx(found[0][0].item(), rel=1e-6)
    for part, whole in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-7)


def test_a_net_learns_under_perturbation_from_the_epoch_after_the_warm_up(digits):
    def trained(**settings):
        settings = {"awp": 0.01, "selection_images": 100, **settings}
        recipe = replace(AWP, batch_size=32, epochs=3, learning_rate=0.05, **settings)
        space = DepthChannels(depth=(2,), channels=(8,), stem="small")
        model = space.build(next(iter(space)), digits.task, seed=0)
        generator = torch.Generator().manual_seed(0)
        return drain(train(model, digits, recipe, recipe.attack(), generator))

    without, late, always = trained(awp=0.0), trained(awp_warmup=2), trained()
    losses = [[epoch.train_loss for epoch in run.epochs] for run in (without, late, always)]
    assert losses[1][:2] == losses[0][:2]
    assert losses[1][2] > losses[0][2]  # the loss at weights that make it worse
    assert losses[2][0] > losses[0][0]
    assert always.last.clean_accuracy > 0.5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"awp": -0.1}, "^awp: expected a finite number >= 0, got -0.1"),
        ({"awp": math.inf}, "^awp: expected a finite number >= 0, got inf"),
        ({"awp_warmup": -1}, "^awp_warmup: expected a finite number >= 0, got -1"),
    ],
)
def test_bad_sizes_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings)


def test_a_recipe_says_which_epochs_are_perturbed():
    assert [Recipe(awp=0.01, awp_warmup=2).perturbs(epoch) for epoch in (1, 2, 3)] == [
        False, False, True,
    ]  # fmt: skip
    assert not Recipe(awp_warmup=2).perturbs(5)
    assert Recipe(awp=0.01).perturbs(1)
