"""What each step lies between: against a dense CROWN in numpy, row norms and sampled images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import metrics.bounds.linear.enclosure as enclosure
from metrics.bounds.linear import margins
from metrics.bounds.linear.ball import Ball
from metrics.bounds.linear.transposes import Transposes
from metrics.bounds.program import read


def enclosed(program, images, norm, epsilon, **settings):
    lengths = torch.full((len(images),), epsilon, dtype=torch.float64)
    ball = Ball(images.double(), norm, lengths)
    last = len(program.steps) - 1
    with torch.no_grad():
        return enclosure.enclosure(program, ball, Transposes(), last, **settings)


class Branches(nn.Module):
    """Windows of several sizes and places of one map, added up and side by side."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.third = nn.Conv2d(8, 3, 3, stride=2, padding=1)
        self.head = nn.Linear(75, 3)

    def forward(self, x):
        h = torch.relu(self.first(x))
        k = torch.cat([h, torch.relu(self.second(h) - 0.5 * h)], 1)
        return self.head(torch.relu(self.third(k)).flatten(1))


def branches():
    torch.manual_seed(0)
    net, images = Branches().eval(), torch.rand(3, 2, 10, 10)
    return net, read(net, images), images


def net_of(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 5, 3, stride=1, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(5, 4, 3, stride=2),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3),
    ).eval()  # fmt: skip
    net[1].weight.data.normal_()
    net[1].running_var.uniform_(0.5, 2)
    images = (1.4 * torch.rand(3, 2, 10, 10) - 0.2).clamp(0, 1)
    return net, read(net, images), images


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.02, 0.2])
def test_every_step_of_sampled_images_lies_within(norm, epsilon):
    _, program, images = net_of()
    found = enclosed(program, images, norm, epsilon)
    random = torch.Generator().manual_seed(0)
    for i in range(50):
        away = torch.randn(images.shape, generator=random, dtype=torch.float64)
        away = away.sign() if i % 2 else away
        flat = away.flatten(1)
        length = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
        points = (images + (1 - 1e-9) * epsilon * away / length.view(-1, 1, 1, 1)).clamp(0, 1)
        values = program.evaluate(points, range(len(program.steps)))
        for i, value in values.items():
            assert (found.intervals[i].lower <= value).all(), program.steps[i].name
            assert (value <= found.intervals[i].upper).all(), program.steps[i].name


@pytest.mark.parametrize("make", [net_of, branches])
def test_windows_give_what_whole_rows_give(monkeypatch, make):
    _, program, images = make()
    real = enclosure.unit_rows
    for norm, epsilon in (("linf", 0.05), ("l2", 0.4)):
        monkeypatch.setattr(enclosure, "unit_rows", real)
        by_window = enclosed(program, images, norm, epsilon)
        monkeypatch.setattr(enclosure, "unit_rows", lambda *a, window: real(*a, window=False))
        by_whole = enclosed(program, images, norm, epsilon)
        plain = enclosed(program, images, norm, epsilon, backwards=False)
        for a, b in zip(by_window.intervals, by_whole.intervals, strict=True):
            torch.testing.assert_close(a.lower, b.lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(a.upper, b.upper, rtol=1e-9, atol=1e-9)
        gains = [
            ((a.lower - b.lower) / (b.upper - b.lower).clamp_min(1e-6)).mean()
            for a, b in zip(by_window.intervals, plain.intervals, strict=True)
        ]
        assert max(gains) > 0.1  # some step was followed back, and gained by it


def test_matrices_of_convolutions_give_what_transposed_convolutions_give(monkeypatch):
    _, program, images = net_of()
    labels = torch.tensor([0, 1, 2])
    want = margins(program, images, labels, "linf", 0.05)
    monkeypatch.setattr("metrics.bounds.linear.transposes.MATRIX", 0)
    got = margins(program, images, labels, "linf", 0.05)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_the_first_layer_goes_as_far_as_its_row_norms_say():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=2, groups=1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Flatten(), nn.Linear(27, 2),
    ).eval()  # fmt: skip
    net[1].weight.data.normal_()
    images = 0.4 + 0.2 * torch.rand(1, 2, 6, 6)
    program = read(net, images)
    jacobian = torch.autograd.functional.jacobian(net[:2], images)[0, :, :, :, 0]
    rows = jacobian.double().flatten(3)
    for norm, length in (("linf", rows.abs().sum(3)), ("l2", rows.norm(dim=3))):
        first = enclosed(program, images, norm, 0.1).intervals[2]
        centre = program.evaluate(images.double(), [2])[2][0]
        torch.testing.assert_close(first.upper[0], centre + 0.1 * length, rtol=0, atol=1e-6)
        torch.testing.assert_close(first.lower[0], centre - 0.1 * length, rtol=0, atol=1e-6)


def test_in_l2_a_pixel_at_the_end_of_its_range_counts_for_one_way_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
                        nn.Linear(48, 2)).eval()  # fmt: skip
    net[1].weight.data.normal_()
    image = torch.randint(0, 3, (1, 1, 6, 6)) / 2.0  # black, grey and white
    program = read(net, image)
    rows = torch.autograd.functional.jacobian(net[:2], image)[0, :, :, :, 0].double().flatten(3)
    up, down = (image.double() < 1).flatten(), (image.double() > 0).flatten()
    rise = (rows.clamp_min(0) * up + rows.clamp_max(0) * down).norm(dim=3)
    fall = (rows.clamp_min(0) * down + rows.clamp_max(0) * up).norm(dim=3)
    first = enclosed(program, image, "l2", 0.1).intervals[2]
    centre = program.evaluate(image.double(), [2])[2][0]
    torch.testing.assert_close(first.upper[0], centre + 0.1 * rise, rtol=0, atol=1e-6)
    torch.testing.assert_close(first.lower[0], centre - 0.1 * fall, rtol=0, atol=1e-6)


def crown(weights, biases, x, epsilon):
    """Return lower bounds of the outputs of a ReLU net, with dense matrices, from the paper."""
    before = []  # bounds of each hidden layer
    for depth in range(len(weights)):
        ends = []
        for sign in (1, -1):
            a, constant = sign * weights[depth], sign * biases[depth]
            for k in range(depth - 1, -1, -1):
                low, high = before[k]
                lower = np.where(low >= 0, 1.0, np.where(high > -low, 1.0, 0.0) * (high > 0))
                upper = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, high / (high - low)))
                shift = np.where((low < 0) & (high > 0), -low * upper, 0.0)
                constant = constant + np.minimum(a, 0) @ shift
                a = np.maximum(a, 0) * lower + np.minimum(a, 0) * upper
                constant, a = constant + a @ biases[k], a @ weights[k]
            ends.append(sign * (a @ x + constant - epsilon * np.abs(a).sum(1)))
        before.append(ends)
    return before[-1][0]


def test_dense_nets_have_the_bounds_of_the_paper():
    for seed in range(10):
        torch.manual_seed(seed)
        layers = [nn.Linear(16, 10), nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 3)]
        hidden = [part for layer in layers[:-1] for part in (layer, nn.ReLU())]
        net = nn.Sequential(nn.Flatten(), *hidden, layers[-1])
        image = 0.3 + 0.4 * torch.rand(1, 1, 4, 4)
        label = net(image).argmax(1)
        weights = [layer.weight.detach().double().numpy() for layer in layers]
        biases = [layer.bias.detach().double().numpy() for layer in layers]
        apart = np.eye(3)[int(label)] - np.eye(3)
        weights[-1], biases[-1] = apart @ weights[-1], apart @ biases[-1]
        for epsilon in (0.02, 0.1, 0.25):
            want = crown(weights, biases, image.flatten().double().numpy(), epsilon)
            got = margins(read(net, image), image, label, "linf", epsilon)[0].numpy()
            other = np.arange(3) != int(label)
            # Ours are cut with interval arithmetic as well, which tells where the ball is large.
            assert (got[other] >= want[other] - 1e-8).all()
            if epsilon < 0.1:
                np.testing.assert_allclose(got[other], want[other], rtol=0, atol=1e-8)
