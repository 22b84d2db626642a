"""Cubuk et al. 2017's regulariser: loss - λ Σ p log p, over minibatches that are half step-l.l."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nas.trial.minibatch import batch_loss
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import FeedForward

WEIGHT = 4.5  # of MNIST
STEP_LL = Recipe(
    epochs=12, batch_size=32, learning_rate=0.05, adversary="step-ll", epsilon=0.1,
    adversarial_share=0.5, entropy_weight=WEIGHT, selection_images=0,
)  # fmt: skip


def net(digits):
    space = FeedForward(kinds=("dense",), hidden_layers=(1,), units=(30,))
    return space.build(next(iter(space)), digits.task, seed=0)


def by_hand(model, x, y, weight):
    """Return (loss, its derivatives by the logits of x, those by the two layers' weights).

    With H(p) = -Σ p log p, ∂(-log p_y)/∂z_j = p_j - [j = y] and ∂H/∂z_j = -p_j (log p_j + H).
    """
    layer, head = model[1].layer1[0], model[1].head
    flat = model[0](x).flatten(1)
    pre = flat @ layer.weight.T + layer.bias
    z = pre.clamp(min=0) @ head.weight.T + head.bias
    log_p = z - z.exp().sum(1, keepdim=True).log()
    p = log_p.exp()
    entropy = -(p * log_p).sum(1, keepdim=True)
    rows = torch.arange(len(y))
    loss = (-log_p[rows, y] + weight * entropy[:, 0]).mean()
    slope = p.clone()
    slope[rows, y] -= 1
    slope -= weight * p * (log_p + entropy)
    back = slope @ head.weight * (pre > 0)
    n = len(y)
    return loss, slope, {
        "1.layer1.0.weight": back.T @ flat / n, "1.layer1.0.bias": back.sum(0) / n,
        "1.head.weight": slope.T @ pre.clamp(min=0) / n, "1.head.bias": slope.sum(0) / n,
    }  # fmt: skip


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_a_step_is_the_gradient_of_the_formula(digits, weight):
    """Half the images moved by ε against the sign of the least likely label's gradient."""
    model = net(digits).double()
    x, y = digits.train.images(slice(21)).double(), digits.train.labels[:21]
    recipe = replace(STEP_LL, entropy_weight=weight)
    loss = batch_loss(model, x, y, recipe, recipe.attack(), torch.Generator())
    loss.backward()
    with torch.no_grad():
        half = x[:10]
        least = model(half).argmin(1)
        _, slope, _ = by_hand(model, half, least, 0.0)
        layer, head = model[1].layer1[0], model[1].head
        open_ = model[0](half).flatten(1) @ layer.weight.T + layer.bias > 0
        towards = (slope @ head.weight * open_ @ layer.weight).reshape(half.shape)
        moved = (half - recipe.epsilon * towards.sign()).clamp(0, 1)
        assert not torch.equal(moved, half)
        expected, _, gradients = by_hand(model, torch.cat([moved, x[10:]]), y, weight)
    # The logits of training are float32.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_nets_trained_with_it_are_right_and_surer(digits):
    """Step l.l., half of each minibatch and λ together: lower entropy, larger Δ_12, no divergence.

    The paper's networks keep their accuracy; here within 5 points.
    """
    found = []
    for weight in (0.0, WEIGHT):
        recipe = replace(STEP_LL, entropy_weight=weight)
        model = net(digits)
        drain(train(model, digits, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
        with torch.no_grad():
            logits = model(digits.validation.images())
        p = logits.softmax(1)
        right = (logits.argmax(1) == digits.validation.labels).double().mean().item()
        first, second = logits.topk(2).values.unbind(1)
        entropy = torch.special.entr(p).sum(1).mean().item()
        found.append((right, entropy, (first - second).median().item()))
    plain, surer = found
    assert surer[0] > plain[0] - 0.05 > 0.8
    assert surer[1] < plain[1] / 2
    assert surer[2] > 1.5 * plain[2]
