"""Small nets for which the printed theorems 4.1 and 4.2 fail, and their smallest perturbations.

Of three the smallest perturbation is known by a formula, and the net itself is asked just beyond
and just before it. Of trained nets the best of two attacks stands for it, from above.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics import gradient_line, smallest_perturbation
from metrics.bounds.activations import sigmoid
from metrics.bounds.gains import dense
from metrics.bounds.gains.form import MODES
from metrics.bounds.lower import lower_bounds
from metrics.bounds.operations import Dense

GREY = 0.5  # of the image that the blurs see
SHARE = 0.98  # of the sum at that image: where the other class begins
SIDE, TRAINING, IMAGES, STEPS = 14, 200, 16, 100  # of the trained nets
MORE = 0.1  # of the sigmoid: where the other class begins
CLOSE = 1e-6  # relative: how near the net is asked to the smallest perturbation


@dataclass(frozen=True)
class Example:
    """One image of one net.

    Attributes:
        name: what the net is.
        smallest: L2 length of the smallest perturbation that changes the answer; an attack's, and
            so an upper bound, where not ``exact``.
        exact: whether it is known.
        bounds: mode -> the lower bound, layer by layer.
        certified: mode -> whether the formulas used hold.
    """

    name: str
    smallest: float
    exact: bool
    bounds: dict[str, float]
    certified: dict[str, bool]

    def refuted(self, mode: str) -> bool:
        """Whether a perturbation shorter than the bound changes the answer."""
        return self.smallest < self.bounds[mode]


@dataclass(frozen=True)
class Trained:
    """A trained net: the share of its training images that it gets right, and some of them."""

    name: str
    accuracy: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Stretch:
    """How much a convolution of ones stretches: in truth, and by the three modes."""

    name: str
    norm: float
    gains: dict[str, float]


class Blur(nn.Module):
    """Class 1 where the ReLU of a sum over q x q windows sums to ``threshold`` at least."""

    def __init__(self, q: int, stride: int = 1, threshold: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, q, stride, bias=False)
        nn.init.ones_(self.conv.weight)
        self.weight = nn.Parameter(torch.tensor([[0.0], [1.0]]))
        self.bias = nn.Parameter(torch.tensor([threshold, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        total = self.conv(images).relu().sum((2, 3))
        return functional.linear(total, self.weight, self.bias)


def known_examples() -> list[Example]:
    """Return the examples whose smallest perturbation is known.

    Raises:
        RuntimeError: a net that does not change its answer where the formula says.
    """
    return [blurred(5, 28), blurred(3, 16), one_sigmoid()]


def blurred(q: int, side: int) -> Example:
    """Return the example against theorem 4.2 (convolutions).

    The sum behind the ReLU is at least the sum before it, which is linear in the image, c x; so no
    perturbation shorter than (sum - threshold) / ||c|| reaches the threshold, and -c of that length
    does: it leaves every window positive.
    """
    image = torch.full((1, 1, side, side), GREY, dtype=torch.float64)
    ones = torch.ones(1, 1, q, q, dtype=torch.float64)
    outputs = torch.ones(1, 1, side - q + 1, side - q + 1, dtype=torch.float64)
    windows = functional.conv_transpose2d(outputs, ones)  # that each pixel lies in
    total = float((windows * image).sum())
    model = Blur(q, threshold=SHARE * total).double().eval()
    distance = (1 - SHARE) * total / float(windows.norm())
    name = f"blur {q} x {q} of {side} x {side} pixels (theorem 4.2)"
    return _known(name, model, image, distance, -windows / windows.norm())


def one_sigmoid() -> Example:
    """Return the example against theorem 4.1 where M bounds each second derivative.

    One unit, h = sigmoid(sum of 100 pixels - 20), at h = sigmoid(-10); another answer where h is
    larger by 0.1.
    """
    unit, head = nn.Linear(100, 1), nn.Linear(1, 2)
    image = torch.full((1, 1, 10, 10), 0.1, dtype=torch.float64)
    here = torch.sigmoid(torch.tensor(-10.0, dtype=torch.float64))
    with torch.no_grad():
        unit.weight.fill_(1.0)
        unit.bias.fill_(-20.0)
        head.weight.copy_(torch.tensor([[0.0], [1.0]]))
    model = nn.Sequential(nn.Flatten(), unit, nn.Sigmoid(), head).double().eval()
    with torch.no_grad():
        head.bias.copy_(torch.stack([here + MORE, torch.zeros_like(here)]))
    distance = (float(torch.logit(here + MORE)) + 10) / 10
    along = torch.full_like(image, 0.1)
    return _known("one sigmoid unit of 100 pixels (theorem 4.1)", model, image, distance, along)


def by_slope() -> float:
    """Return the sigmoid unit's bound from the steepest slope alone, kappa / (sup|g'| ||V||)."""
    layer = Dense(torch.ones(1, 100, dtype=torch.float64), None)
    return MORE / (sigmoid().slope * dense.norm(layer).gain)


def _known(
    name: str, model: nn.Module, image: Tensor, distance: float, direction: Tensor
) -> Example:
    """Return an example, after asking the net on both sides of its smallest perturbation."""
    with torch.no_grad():
        label = model(image).argmax(dim=1)
        before, beyond = (
            model(image + distance * (1 + side * CLOSE) * direction).argmax(dim=1) == label
            for side in (-1, 1)
        )
    if not before or beyond:
        raise RuntimeError(f"{name}: expected another answer from {distance:.7g} on, got none")
    found = {mode: lower_bounds(model, image, label, mode=mode, linear=False) for mode in MODES}
    return Example(
        name,
        distance,
        True,
        {mode: float(bound.radius) for mode, bound in found.items()},
        {mode: bound.certified for mode, bound in found.items()},
    )


def trained_net(seed: int) -> Trained:
    """Return a net that tells bright images from dark ones, and some of them as examples.

    Convolution 5 x 5, ReLU, a dense layer; images of one brightness and noise.
    """
    model, images, labels = bright_or_dark(seed)
    with torch.no_grad():
        answers = model(images).argmax(dim=1)
    accuracy = float((answers == labels).double().mean())
    x, y = images[:IMAGES], answers[:IMAGES]
    line = gradient_line(model, x, y, mode="margin", length=8.0, scalings=801)
    draws = torch.Generator().manual_seed(seed)
    ladder = smallest_perturbation(model, x, y, norm="l2", budget=60, generator=draws)
    smallest = torch.minimum(line.size, ladder.size).tolist()
    found = {mode: lower_bounds(model, x, y, mode=mode, linear=False) for mode in MODES}
    certified = {mode: bound.certified for mode, bound in found.items()}
    name = f"trained net, seed {seed}"
    return Trained(
        name,
        accuracy,
        tuple(
            Example(
                name,
                size,
                False,
                {mode: float(bound.radius[i]) for mode, bound in found.items()},
                certified,
            )
            for i, size in enumerate(smallest)
        ),
    )


def bright_or_dark(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a trained net, and the images and labels that it was trained on."""
    draws = torch.Generator().manual_seed(seed)
    level = torch.rand(TRAINING, 1, 1, 1, generator=draws)
    noise = torch.randn(TRAINING, 1, SIDE, SIDE, generator=draws)
    images, labels = (level + 0.1 * noise).clamp(0, 1), (level.flatten() > GREY).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 1, 5), nn.ReLU(), nn.Flatten(), nn.Linear((SIDE - 4) ** 2, 2)
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval(), images, labels


def stretches() -> list[Stretch]:
    """Return convolutions of ones: windows that overlap, and windows that do not."""
    return [_stretch(5, 1, 28), _stretch(3, 3, 15)]


def _stretch(q: int, stride: int, side: int) -> Stretch:
    model = Blur(q, stride).double().eval()
    with torch.no_grad():
        unit = torch.eye(side**2, dtype=torch.float64).view(-1, 1, side, side)
        matrix = model.conv(unit).flatten(1)
    norm = float(torch.linalg.eigvalsh(matrix.mT @ matrix)[-1].sqrt())
    image = torch.full((1, 1, side, side), GREY, dtype=torch.float64)
    gains = {}
    for mode in MODES:
        layers = lower_bounds(model, image, torch.ones(1).long(), mode=mode, linear=False).layers
        (gains[mode],) = [layer.form.gain for layer in layers if layer.kind == "convolution"]
    return Stretch(f"ones {q} x {q}, stride {stride}, {side} x {side} pixels", norm, gains)
