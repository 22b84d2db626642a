"""The chain of gains: its numbers, its status, and that no attack gets below a valid bound."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn

from metrics.bounds.activations import ACTIVATIONS
from metrics.bounds.chain import Chain
from metrics.bounds.gains import convolution, dense
from metrics.bounds.gains.form import Form
from metrics.bounds.lower import lower_bounds as bounds_of
from metrics.bounds.operations import Activation, Dense
from metrics.bounds.program import read
from metrics.robustness.smallest import gradient_line

MODES = ("paper", "certified", "tight")
VALID = ("certified", "tight")


lower_bounds = partial(bounds_of, linear=False)  # of the chain alone


def radii(model, x, y, **settings):
    return lower_bounds(model.eval(), x, y, **settings).radius


def own_labels(model, x):
    with torch.no_grad():
        return model.eval()(x).argmax(1)


@pytest.mark.parametrize("classes", range(2, 9))
@pytest.mark.parametrize("mode", MODES)
def test_a_linear_classifier_is_exact(classes, mode):
    """Reference test 17: it flips just beyond the bound, along one normal, and not just before."""
    draws = torch.Generator().manual_seed(classes)
    for _ in range(3):
        layer = nn.Linear(12, classes).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(classes, 12, generator=draws))
        model = nn.Sequential(nn.Flatten(), layer)
        x = torch.rand(5, 1, 3, 4, generator=draws, dtype=torch.float64)
        y = own_labels(model, x)
        kappa = radii(model, x, y, mode=mode)
        for i in range(5):
            apart = layer.weight - layer.weight[y[i]]
            lead = model(x[i : i + 1])[0, y[i]] - model(x[i : i + 1])[0]
            distance = lead / apart.norm(dim=1)
            nearest = int(distance.nan_to_num(math.inf).argmin())
            along = (apart[nearest] / apart[nearest].norm()).view(1, 3, 4)
            for factor, flips in ((1 + 1e-7, True), (1 - 1e-7, False)):
                moved = model((x[i] + factor * kappa[i] * along)[None]).argmax()
                assert bool(moved != y[i]) == flips
    assert lower_bounds(model, x, y, mode=mode).certified


def test_classes_with_the_same_weights():
    layer = nn.Linear(4, 3, bias=True)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0]])
        layer.bias[:] = torch.tensor([1.0, 0.0, 0.0])
    model = nn.Sequential(nn.Flatten(), layer)
    x = torch.full((1, 1, 2, 2), 0.5)
    assert float(radii(model, x, torch.tensor([0]))) == pytest.approx(1 / math.sqrt(2), rel=1e-5)
    assert float(radii(model, x, torch.tensor([1]))) == 0  # wrong already


class Brightness(nn.Module):
    """Class 1 where the sum behind a blur is at least ``b``: reference 3.3."""

    def __init__(self, q: int, d: int, share: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, q, bias=False)
        nn.init.ones_(self.conv.weight)
        x = torch.full((1, 1, d, d), 0.5)
        self.b = share * float(self.conv(x).sum().detach())
        self.scale = nn.Parameter(torch.tensor([[0.0], [1.0]]))
        self.shift = nn.Parameter(torch.tensor([self.b, 0.0]))

    def forward(self, x):
        total = self.conv(x).relu().sum((2, 3))
        return nn.functional.linear(total, self.scale, self.shift)


@pytest.mark.parametrize(
    ("q", "d", "paper", "attack", "certified"),
    [(5, 28, 1.2, 0.257143, 0.24), (3, 16, 0.42, 0.149492, 0.14)],
)
def test_the_printed_convolution_theorem_fails(q, d, paper, attack, certified):
    """Reference test 19: a real flip nearer than the paper's bound, and none nearer than ours."""
    model = Brightness(q, d, 0.98).double().eval()
    x = torch.full((1, 1, d, d), 0.5, dtype=torch.float64)
    y = torch.ones(1, dtype=torch.long)
    found = gradient_line(model, x, y, mode="margin", length=2 * attack, scalings=2001)
    assert float(found.size) == pytest.approx(attack, abs=3e-4)
    printed = lower_bounds(model, x, y, mode="paper")
    assert not printed.certified
    assert float(printed.radius) == pytest.approx(paper, rel=1e-4)
    assert float(printed.radius) > float(found.size)
    for mode in VALID:
        bound = lower_bounds(model, x, y, mode=mode)
        assert bound.certified
        assert float(bound.radius) == pytest.approx(certified, rel=1e-4)


def one_unit(activation: str) -> tuple[Dense, Activation, torch.Tensor]:
    layer = Dense(torch.ones(1, 100, dtype=torch.float64), None)
    return layer, ACTIVATIONS[activation](), torch.full((1, 100), -0.1, dtype=torch.float64)


def test_a_sigmoid_unit():
    """Reference test 21: entrywise 1.4370, which is no bound; .1441; .0400; the truth is .7803."""
    layer, sigmoid, x = one_unit("sigmoid")
    kappa = torch.tensor([0.1], dtype=torch.float64)
    printed, forms, _ = dense.smooth(layer, sigmoid, x, kappa, "paper")
    assert float(printed) == pytest.approx(1.4370, abs=1e-4)
    assert not forms[0].valid
    found, forms, taken = dense.smooth(layer, sigmoid, x, kappa, "certified")
    assert float(found) == pytest.approx(0.1441, abs=1e-4)
    assert int(taken) == 0
    assert float(kappa) / forms[1].gain == pytest.approx(0.04, abs=1e-4)
    true = (torch.logit(torch.sigmoid(torch.tensor(-10.0)) + 0.1) + 10) / 10
    assert float(true) == pytest.approx(0.7803, abs=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("mode", VALID)
def test_ascent_inside_a_smooth_layer_never_exceeds_kappa(activation, mode):
    """Reference test 22."""
    draws = torch.Generator().manual_seed(3)
    for inputs, outputs, scale in ((5, 1, 3.0), (20, 30, 1.0), (60, 10, 0.3)):
        weight = scale * torch.randn(outputs, inputs, generator=draws, dtype=torch.float64)
        layer = Dense(weight, torch.randn(outputs, generator=draws, dtype=torch.float64))
        g = ACTIVATIONS[activation]()
        x = torch.randn(16, inputs, generator=draws, dtype=torch.float64)
        kappa = 10 ** (4 * torch.rand(16, generator=draws, dtype=torch.float64) - 3)
        radius, _, _ = dense.smooth(layer, g, x, kappa, mode)
        assert (radius >= kappa / (g.slope * torch.linalg.matrix_norm(weight, 2)) * 0.9999).all()
        here = g.forward(layer.forward(x))
        r = torch.randn(16, inputs, generator=draws, dtype=torch.float64)
        for _ in range(100):
            r = (r / r.norm(dim=1, keepdim=True) * radius[:, None]).requires_grad_()
            moved = (g.forward(layer.forward(x + r)) - here).norm(dim=1)
            (gradient,) = torch.autograd.grad(moved.sum(), r)
            r = (r + radius[:, None] * gradient / gradient.norm(dim=1, keepdim=True)).detach()
        assert (moved <= kappa * (1 + 1e-9)).all()


def test_tighter_modes_of_a_smooth_layer_are_larger():
    draws = torch.Generator().manual_seed(5)
    layer = Dense(torch.randn(40, 30, generator=draws, dtype=torch.float64), None)
    x = torch.randn(8, 30, generator=draws, dtype=torch.float64)
    kappa = torch.linspace(0, 2, 8, dtype=torch.float64)
    simple, tight = (
        dense.smooth(layer, ACTIVATIONS["tanh"](), x, kappa, mode)[0] for mode in VALID
    )
    assert (tight >= simple * (1 - 1e-9)).all()
    assert float(simple[0]) == float(tight[0]) == 0


def lenet() -> nn.Sequential:
    """Reference test 24."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4),
    )  # fmt: skip


def blobs(n: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return four classes of noisy images: which quarter is bright."""
    draws = torch.Generator().manual_seed(0)
    y = torch.randint(4, (n,), generator=draws)
    x = 0.4 * torch.rand(n, 1, size, size, generator=draws)
    half = size // 2
    for i, label in enumerate(y.tolist()):
        down, right = half * (label // 2), half * (label % 2)
        x[i, :, down : down + half, right : right + half] += 0.4
    return x, y


def trained(model: nn.Module, x, y, steps=60) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    x, y = blobs(200, 14)
    return trained(lenet(), x, y), x, y


@pytest.mark.parametrize("mode", MODES)
def test_a_small_lenet(small, mode):
    """Reference test 24: no attack is below any bound; the tight one is nearest."""
    model, x, y = small
    found = gradient_line(model, x, y, length=8.0, scalings=400, mode="margin")
    bound = lower_bounds(model, x, y, mode=mode)
    ratio = (found.size / bound.radius)[found.size.isfinite() & (found.size > 0)]
    assert len(ratio) > 100
    assert float(ratio.min()) >= 1
    assert bound.certified  # convolutions are pooled: the printed theorems hold jointly
    kinds = [layer.kind for layer in bound.layers]
    assert kinds.count("convolution") == kinds.count("pool") == 2


def test_tighter_modes_are_nearer(small):
    """Reference test 25, and what a program of the bounds' modes must keep to."""
    model, x, y = small
    paper, simple, tight = (radii(model, x, y, mode=mode) for mode in MODES)
    assert (tight >= simple).all()
    assert float((tight / simple).median()) > 1.3
    assert float((simple / paper).median()) > 1


@pytest.mark.parametrize("mode", MODES)
def test_bounds_scale_with_the_pixels(small, mode):
    """Reference test 25: as 1/a where the input is multiplied by a inside the net."""
    model, x, y = small

    class Times(nn.Module):
        def forward(self, x):
            return 4 * x

    plain = radii(model, x, y, mode=mode)
    scaled = radii(nn.Sequential(Times(), model), x / 4, y, mode=mode)
    torch.testing.assert_close(scaled, plain / 4, rtol=1e-4, atol=0)


def test_what_is_printed_is_not_certified_without_pools():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.AvgPool2d(2),
                          nn.Flatten(), nn.Linear(8, 2))  # fmt: skip
    x = torch.rand(3, 1, 8, 8)
    bound = lower_bounds(model.eval(), x, own_labels(model, x), mode="paper")
    convs = [layer for layer in bound.layers if layer.kind == "convolution"]
    assert [layer.valid for layer in convs] == [True, False]  # from the logits on
    assert convs[1].form.note == convolution.PRINTED
    assert not bound.certified


def test_a_planted_wrong_bound_is_below_an_attack(small, monkeypatch):
    """What the other tests look for is there to be seen where a gain is too small."""
    model, x, y = small
    monkeypatch.setattr(
        "metrics.bounds.gains.convolution.tight",
        lambda conv, shape: [Form("a tenth", convolution.simple(conv, shape).gain / 100)],
    )
    bound = radii(model, x, y)
    found = gradient_line(model, x, y, length=8.0, scalings=400, mode="margin").size
    assert bool((found < bound)[found > 0].any())


def test_layers_that_are_one_map_are_merged():
    """A batch norm, a 1 x 1 convolution: the merged map's norm is below the product."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.1, 3)
    separable = [nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 1), norm]
    model = nn.Sequential(*separable, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 3)).eval()
    x = torch.rand(4, 6, 7, 7)
    chain = Chain(read(model, x), "tight")
    (layer,) = [s.layer for s in chain.stages if s.layer.kind == "convolution"]
    assert layer.name == "0 + 1 + 2"
    eye = torch.eye(6 * 49).view(-1, 6, 7, 7)
    with torch.no_grad():
        affine = nn.Sequential(*separable)
        matrix = (affine(eye) - affine(torch.zeros(1, 6, 7, 7))).flatten(1).double()
    true = float(torch.linalg.matrix_norm(matrix, 2))
    assert true <= layer.form.gain <= 1.2 * true
    parts = Chain(read(model, x), "certified")
    assert math.prod(s.layer.form.gain for s in parts.stages[:3]) > 2 * true


def test_rounding_lowers_a_lead():
    """An image whose lead float32 could not tell from none has no bound."""
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
        layer.bias[:] = 1000.0
    model = nn.Sequential(nn.Flatten(), layer)
    x = torch.tensor([[0.5001, 0.5, 0, 0], [0.9, 0.1, 0, 0]]).view(2, 1, 2, 2)
    near, far = radii(model, x, torch.tensor([0, 0])).tolist()
    assert near == 0
    assert 0.9 * 0.8 < far * math.sqrt(2) < 0.8


def test_l_infinity_is_a_root_of_the_pixels_less(small):
    model, x, y = small
    torch.testing.assert_close(radii(model, x, y, norm="linf") * 14, radii(model, x, y))


def test_refusals(small):
    model, x, y = small
    with pytest.raises(ValueError, match="mode: expected one of"):
        lower_bounds(model, x, y, mode="exact")
    with pytest.raises(ValueError, match="norm: expected one of"):
        lower_bounds(model, x, y, norm="l1")
    with pytest.raises(ValueError, match="labels: expected.*4"):
        lower_bounds(model, x, y + 4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    lower_bounds(model, x, y)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus])
@pytest.mark.parametrize("pixels", [1, 2])
def test_brute_force_on_one_and_two_pixels(activation, pixels):
    """The nearest of a dense grid of points with another answer lies beyond every valid bound."""
    torch.manual_seed(pixels + 10)
    layers = (nn.Linear(pixels, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3))
    model = nn.Sequential(nn.Flatten(), *layers).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape))
    x = torch.rand(12, 1, 1, pixels, dtype=torch.float64)
    side = torch.linspace(-6, 6, 30_001 if pixels == 1 else 601, dtype=torch.float64)
    offsets = torch.cartesian_prod(*[side] * pixels).view(-1, 1, 1, pixels)
    y = own_labels(model, x)
    bounds = {mode: radii(model, x, y, mode=mode) for mode in VALID}
    reached = 0
    for i in range(len(x)):
        with torch.no_grad():
            other = model(x[i] + offsets).argmax(1) != y[i]
        if other.any():
            nearest = float(offsets[other].flatten(1).norm(dim=1).min())
            for mode in VALID:
                assert 0 < float(bounds[mode][i]) <= nearest
            reached += float(bounds["tight"][i]) > nearest / 100
    assert reached >= 3  # and it is not vacuous


def test_a_smooth_net_has_the_cpus_bounds_on_a_gpu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(),
                          nn.Linear(5, 3)).eval()  # fmt: skip
    x = torch.rand(5, 1, 3, 3)
    y = own_labels(model, x)
    expected = radii(model, x, y)
    with fake_cuda():
        there = radii(copy.deepcopy(model).to("cuda"), x.to("cuda"), y.to("cuda")).cpu()
    torch.testing.assert_close(there, expected)
