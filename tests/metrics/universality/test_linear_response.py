"""Γ against dense Jacobians, ε̂ against its formula, on nets of many kinds."""

from __future__ import annotations

import math

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics.answers import input_gradient, margin_loss, temperatures
from metrics.universality import LinearResponse, linear_response

every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


class Once(torch.autograd.Function):
    """A square whose gradient says that it cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Silently(torch.autograd.Function):
    """A square whose gradient is a constant for torch, which does not say so."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return (2 * x * gradient).detach()


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (x + self.inner(x)).relu_()


def flat(*layers, width=108):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 12), *layers, nn.Linear(12, 4))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        Residual(nn.Conv2d(6, 6, 3, padding=1)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, 4),
    )


def settled(model, seed=3):
    """Return ``model`` with batch norms that have seen images, in ``train()``."""
    model.train()(images(50, seed=seed))
    return model


NETS = {
    "dense": lambda: flat(nn.ReLU(), nn.Linear(12, 12), nn.Tanh()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 4)),
    "dropout": lambda: flat(nn.Dropout(0.5), nn.LeakyReLU(0.1, inplace=True)),
    "convolutional": lambda: settled(convolutional()),
    "channels_last": lambda: settled(convolutional()).to(memory_format=torch.channels_last),
    "scripted": lambda: torch.jit.script(settled(convolutional()).eval()),
    "traced": lambda: torch.jit.trace(settled(convolutional()).eval(), images(2)),
    "once": lambda: flat(Applied(Once), nn.Linear(12, 12), nn.ReLU()),
    "silently once": lambda: flat(nn.ReLU(), nn.Linear(12, 12), Applied(Silently)),
    "transformer": lambda: nn.Sequential(
        nn.Flatten(2),
        nn.TransformerEncoderLayer(36, 2, dim_feedforward=16, batch_first=True),
        nn.Flatten(),
        nn.Linear(108, 4),
    ),
}


def made(name, seed=0):
    torch.manual_seed(seed)
    return NETS[name]()


def expected_of(model, x, y, norm):
    """Return differences and Γ of one image at a time, by torch's dense Jacobian, in float64."""
    differences, gamma = [], []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        matrix = torch.autograd.functional.jacobian(lambda v: model(v)[0], image).flatten(1)
        matrix = matrix.double()
        logits = model(image).detach().double().requires_grad_()
        loss = margin_loss(logits / temperatures(logits), label).sum()
        pulled = matrix.T @ torch.autograd.grad(loss, logits)[0][0]
        u = pulled.sign() if norm == "linf" else pulled / pulled.norm()
        order = logits[0].argsort(descending=True)
        differences.append((logits[0].max() - logits[0][order[1:]]).detach())
        gamma.append((matrix @ u)[order])
    return torch.stack(differences), torch.stack(gamma)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning"
)
@every_norm
@pytest.mark.parametrize("name", NETS)
def test_gamma_is_the_jacobian_times_the_attack(name, norm):
    model, x = made(name), images(12)
    y = top(model, x)
    y[::4] = (y[::4] + 1) % 4
    training = model.training
    found = linear_response(model, x, y, norm=norm)
    assert model.training == training
    right = torch.arange(12) % 4 != 0
    differences, gamma = expected_of(model.eval(), x[right], y[right], norm)
    assert torch.equal(found.right, right)
    assert torch.allclose(found.differences[right], differences, rtol=1e-4, atol=1e-6)
    # The Jacobian is that 1e-4 of a pixel ahead.
    assert torch.allclose(found.gamma[right], gamma, rtol=1e-3, atol=5e-4 * gamma.abs().max())
    assert gamma.abs().max() > 0
    for part in (found.differences, found.gamma, found.epsilon, found.crossings, found.mean_field):
        assert part[~right].isnan().all()
        assert part.dtype == torch.float64
    assert (found.first[~right] == 0).all()


@every_norm
def test_a_tie_in_a_pool_responds_as_it_does_along_the_attack(norm):
    """A flat background: which pixel is the largest is decided by the attack."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    model, x = model.double(), torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    y = top(model, x)
    found = linear_response(model, x, y, norm=norm)
    probe = x.clone().requires_grad_()
    gradient = torch.autograd.grad(margin_loss(model(probe), y).sum(), probe)[0]
    u = gradient.sign() if norm == "linf" else gradient / gradient.norm()
    step = 1e-5
    change = (model(x + step * u) - model(x))[0] / step
    order = model(x)[0].argsort(descending=True)
    assert torch.allclose(found.gamma[0], change[order].detach(), rtol=1e-6)


@every_norm
def test_float64_is_exact(norm):
    model, x = settled(convolutional()).double(), images(8).double()
    y = top(model, x)
    found = linear_response(model, x, y, norm=norm)
    differences, gamma = expected_of(model, x, y, norm)
    assert torch.allclose(found.differences, differences, rtol=1e-10)
    assert torch.allclose(found.gamma, gamma, rtol=1e-9, atol=1e-12)


@every_norm
def test_the_predictions_are_their_formulas(norm):
    """By loops, over Γ and Δ as given."""
    model, x = made("convolutional"), images(30)
    y = top(model, x)
    found = linear_response(model, x, y, norm=norm)
    means = [sum(column) / len(column) for column in found.gamma.T.tolist()]
    for i in range(30):
        gamma, delta = found.gamma[i].tolist(), [0.0, *found.differences[i].tolist()]
        each = [
            delta[j] / (gamma[j] - gamma[0]) if gamma[j] > gamma[0] else math.inf
            for j in range(1, 4)
        ]
        assert found.crossings[i].tolist() == pytest.approx(each, rel=1e-12)
        assert found.epsilon[i].item() == pytest.approx(min(each), rel=1e-12)
        assert found.first[i].item() == each.index(min(each)) + 2
        expected = delta[1] / (means[1] - means[0])
        assert found.mean_field[i].item() == pytest.approx(expected, rel=1e-9)
    assert means[1] > means[0]


def test_a_difference_that_grows_is_never_crossed():
    """By hand, and a tie that opens is none either; in the mean field as for one image."""
    gamma = torch.tensor([[1.0, 2.0, 0.5], [1.0, 0.5, 3.0], [1.0, 0.5, 0.2]]).double()
    differences = torch.tensor([[0.25, 0.1], [0.0, 1.0], [0.0, 0.5]]).double()
    found = LinearResponse(torch.ones(3).bool(), differences, gamma, "l2")
    inf = math.inf
    assert found.crossings.tolist() == [[0.25, inf], [inf, 0.5], [inf, inf]]
    assert found.epsilon.tolist() == [0.25, 0.5, inf]
    assert found.first.tolist() == [2, 3, 0]
    assert found.mean_field.tolist() == [inf] * 3  # the means of both are 1


def test_the_direction_is_that_of_the_cross_entropy():
    """Where it does not saturate: h changes by J u, u along its gradient, by finite differences."""
    model, x = made("dense").double(), images(5).double()
    y = top(model, x)
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
    gradient = torch.autograd.grad(loss, leaf)[0]
    assert torch.allclose(
        nn.functional.cosine_similarity(
            gradient.flatten(1), input_gradient(model, x, y).flatten(1)
        ),
        torch.ones(5).double(),
    )
    u = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        change = (model(x + 1e-6 * u) - model(x - 1e-6 * u)) / 2e-6
        order = model(x).argsort(dim=1, descending=True)
    found = linear_response(model, x, y)
    assert torch.allclose(found.gamma, change.gather(1, order), rtol=1e-5, atol=1e-8)


def test_some_difference_shrinks_wherever_there_is_a_gradient():
    """Γ · δ > 0 with δ the label's -1 and shares of 1 for the others: one of them gains on it."""
    for seed in range(20):
        model, x = net(classes=8, seed=seed), images(20, seed=seed)
        found = linear_response(model, x, top(model, x))
        assert torch.equal(found.epsilon.isfinite(), (found.gamma != 0).any(dim=1))
        assert found.epsilon.isfinite().sum() > 10


@every_norm
@pytest.mark.parametrize("size", [1, 5, 100])
def test_batches_play_no_part(size, norm):
    model, x = made("convolutional"), images(11)
    y = top(model, x)
    one = linear_response(model, x, y, norm=norm, batch_size=size)
    whole = linear_response(model, x, y, norm=norm)
    assert torch.allclose(one.gamma, whole.gamma, rtol=1e-4, atol=1e-6)
    assert torch.allclose(one.epsilon, whole.epsilon, rtol=1e-4)


def test_the_gradient_of_the_attack_raises_the_loss():
    """Γ · δ is the length of the gradient, in the norm dual to epsilon's."""
    model, x = made("dense").double(), images(6).double()
    y = top(model, x)
    gradient = input_gradient(model, x, y).flatten(1)
    logits = model(x).detach().requires_grad_()
    delta = torch.autograd.grad(margin_loss(logits / temperatures(logits), y).sum(), logits)[0]
    order = logits.argsort(dim=1, descending=True)
    for norm, dual in (("l2", 2), ("linf", 1)):
        gamma = linear_response(model, x, y, norm=norm).gamma
        assert torch.allclose((gamma * delta.gather(1, order)).sum(1), gradient.norm(dual, dim=1))


class Fixed(nn.Module):
    """Answers the same logits to all, with or without a gradient of zero."""

    def __init__(self, *logits, graph=True):
        super().__init__()
        self.logits, self.graph = torch.tensor(logits), graph

    def forward(self, x):
        logits = self.logits.to(x.dtype).expand(len(x), -1)
        return logits + 0 * x.flatten(1)[:, :1] if self.graph else logits.clone()


@every_norm
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("logits", [(2.0, 0.5, 1.0), (1.0, 1.0, 1.0)])
def test_what_does_not_move_never_crosses(logits, graph, norm):
    x, y = images(3), torch.tensor([0, 0, 1])
    found = linear_response(Fixed(*logits, graph=graph), x, y, norm=norm)
    assert found.right.tolist() == [True, True, False]
    assert (found.gamma[:2] == 0).all()
    assert found.epsilon[:2].tolist() == [math.inf, math.inf]
    assert found.mean_field[:2].tolist() == [math.inf, math.inf]
    assert found.first.tolist() == [0, 0, 0]


def test_of_a_tie_the_label_is_the_first():
    """The answer is class 0; the other overtakes at once."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(12), -torch.ones(12)]))
    x = torch.full((1, 3, 2, 2), 0.5).double()
    model = nn.Sequential(Shift(), model)
    found = linear_response(model, x, torch.tensor([0]))
    assert found.right.all()
    assert found.differences.tolist() == [[0.0]]
    assert found.gamma.tolist() == [[pytest.approx(-math.sqrt(12)), pytest.approx(math.sqrt(12))]]
    assert found.epsilon.tolist() == [0.0]
    assert found.first.tolist() == [2]


class Shift(nn.Module):
    def forward(self, x):
        return x - 0.5


def test_two_classes_have_one_crossing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    x = images(5)
    found = linear_response(model, x, top(model, x))
    assert found.crossings.shape == (5, 1)
    assert torch.equal(found.epsilon, found.crossings[:, 0])
    assert (found.first == 2).all()


def test_a_model_right_on_nothing_has_no_response():
    x = images(3)
    found = linear_response(Fixed(1.0, 0.0, 0.0), x, torch.tensor([1, 2, 1]))
    assert not found.right.any()
    assert found.gamma.shape == (3, 3)
    for part in (found.gamma, found.epsilon, found.mean_field):
        assert part.isnan().all()


class Spoilt(nn.Module):
    """A linear net with one logit that is no number for dark images."""

    def __init__(self, value):
        super().__init__()
        self.net, self.value = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), value

    def forward(self, x):
        logits = self.net(x)
        dark = (x.flatten(1).mean(1) < 0.5)[:, None] & (torch.arange(3) == 2)
        return logits.masked_fill(dark, self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers(value):
    """NaN and infinity are wrong answers; minus infinity is a class that cannot be."""
    torch.manual_seed(1)
    model = Spoilt(value)
    x = torch.rand(8, 3, 2, 2, generator=seeded()) / 2
    x[4:] += 0.5
    with torch.no_grad():
        y = model(x)[:, :2].argmax(1)
        model.net[1].bias[2] -= 10  # class 2 is the last one
        logits = model(x)
    found = linear_response(model, x, y)
    assert found.right[4:].all()
    assert found.epsilon[4:].isfinite().all()
    assert found.right[:4].tolist() == [value == -math.inf] * 4
    if value == -math.inf:
        lead = (logits[:4, 0] - logits[:4, 1]).abs().double()
        assert torch.allclose(found.differences[:4, 0], lead)
        assert (found.differences[:4, 1] == math.inf).all()
        w = model.net[1].weight.detach().double()
        assert torch.allclose(found.epsilon[:4], lead / (w[0] - w[1]).norm(), rtol=1e-4)
        assert (found.first[:4] == 2).all()
        assert found.mean_field.isfinite().all()


def test_the_model_is_not_asked_for_its_parameters_gradients():
    model, x = net(), images()
    linear_response(model, x, top(model, x))
    assert all(p.grad is None for p in model.parameters())


def test_a_wrong_norm_is_refused():
    with pytest.raises(ValueError, match="norm: expected one of"):
        linear_response(net(), images(), torch.zeros(6, dtype=torch.long), norm="l1")
