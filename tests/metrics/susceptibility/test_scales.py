"""Ψ, its limit and the drift of nets of any scale, precision and making: right, or refused."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from public import images, net, seeded
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from metrics.susceptibility import (
    drift,
    on_sphere,
    rms,
    robustness_radius,
    sphere_attack,
    susceptibility,
    susceptibility_limit,
)

X = images(6)
SCALES = [1e-30, 1e-12, 1e15, 1e25]


class Scaled(nn.Module):
    """A net with its outputs times a number."""

    def __init__(self, scale, model=None):
        super().__init__()
        self.net, self.scale = model or net(), scale

    def forward(self, x):
        return self.net(x) * self.scale


def psi(model, x=X, **settings):
    return susceptibility(model, x, **{"radii": (1e-2,), "generator": seeded(), **settings})


# ------------------------------------------------------------------------------------------ scales


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("step", ["rel", "norm", "sign", "adam"])
def test_psi_is_homogeneous(step, scale):
    """ψ(c h) = c ψ(h): the same δ is found, whose squares float32 cannot hold."""
    settings = {"step": step, "learning_rate": 0.01}
    expected, found = psi(net(), **settings), psi(Scaled(scale), **settings)
    assert torch.allclose(found.psi / scale, expected.psi, rtol=1e-3)
    assert expected.value > 1.1 * psi(net(), steps=0).value
    assert (found.cancelled, found.nonfinite, found.underflows) == (0, 0, 0)


def test_what_is_rounded_to_nothing_is_flagged():
    """float32 ends at 1e-45, and outputs of 1e-42 are multiples of it."""
    for scale in (1e-42, 1e-44, 0.0):
        found = psi(Scaled(scale))
        assert found.cancelled == len(X)
    assert psi(Scaled(0.0)).underflows == len(X)
    assert psi(Scaled(1e38)).nonfinite + psi(Scaled(1e38)).cancelled == 0
    assert psi(Scaled(torch.inf)).nonfinite == len(X)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_psi_is_homogeneous_where_inputs_share_statistics(scale):
    """There each climbs the sum over the batch, whose parts must not be scaled one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))
    expected = psi(model, batch_norm="batch", fast=False)
    found = psi(Scaled(scale, model), batch_norm="batch", fast=False)
    assert torch.allclose(found.psi / scale, expected.psi, rtol=1e-3)


class Stepped(nn.Module):
    """A net whose outputs are as large as its image is bright: 10, 10^2, ... times."""

    def __init__(self, model):
        super().__init__()
        self.net = model

    def forward(self, x):
        with torch.no_grad():
            power = (x[:, 0, 0, 0] * 8).round()
        return self.net(x) * (10**power)[:, None]


def test_every_input_has_a_scale_of_its_own():
    """A large one beside a small one takes no digit from it."""
    x = X.clone()
    powers = torch.tensor([-20.0, -10.0, 0.0, 5.0, 10.0, 20.0])
    x[:, 0, 0, 0] = powers / 8
    expected, found = psi(net(), x, radii=(1e-3,)), psi(Stepped(net()), x, radii=(1e-3,))
    assert torch.allclose(found.psi / 10 ** powers.double(), expected.psi, rtol=1e-2)
    limits = [susceptibility_limit(model, x) for model in (net(), Stepped(net()))]
    assert torch.allclose(limits[1] / 10 ** powers.double(), limits[0], rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_lengths_of_any_size(kind):
    """float16 cannot hold the square of 1e-4, nor float32 that of 1e-30."""
    sizes = {torch.float16: [1e-4, 1e3], torch.bfloat16: [1e-30, 1e30]}
    for size in sizes.get(kind, [1e-37, 1e-30, 1.0, 1e30]):
        v = torch.full((2, 3, 4, 4), size).to(kind)
        assert rms(v).flatten().tolist() == pytest.approx([size] * 2, rel=1e-2)
        assert rms(on_sphere(v, 0.01)).flatten().tolist() == pytest.approx([0.01] * 2, rel=1e-5)
    zero = torch.zeros(1, 3, 2, 2).to(kind)
    assert rms(zero).item() == 0
    assert torch.equal(on_sphere(zero, 0.1), zero.to(on_sphere(zero, 0.1).dtype))
    odd = torch.zeros(2, 1, 1, 2).to(kind)
    odd[0, 0, 0, 0], odd[1, 0, 0, 0] = torch.inf, torch.nan
    assert rms(odd)[0].item() == math.inf
    assert math.isnan(rms(odd)[1].item())


@pytest.mark.parametrize("radius", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_right_or_cancelled(kind, radius):
    expected = psi(net(), radii=(radius,)).value
    model, x = net().to(kind), X.to(kind)
    found = psi(model, x, radii=(radius,))
    assert found.psi.isfinite().all()
    assert found.value == pytest.approx(expected, rel=0.1) or found.cancelled == len(x)
    moved = sphere_attack(model, x, radius, generator=seeded())
    assert moved.dtype == kind
    assert moved.isfinite().all()


class Coarse(nn.Module):
    """A net that ends in half precision, and does not show it."""

    def forward(self, x):
        return (x.flatten(1)[:, :4] + 1).bfloat16().float()


def test_precision_on_the_way_counts():
    assert psi(Coarse(), radii=(1e-3,)).cancelled == len(X)
    assert psi(Coarse(), radii=(1e-3,), batch_size=1).cancelled == len(X)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_what_is_cancelled_does_not_depend_on_batches(batch_size):
    model = Scaled(1.0)
    model.net[5].bias.data += 3000.0
    expected = psi(model, radii=(1e-3, 1e-2, 1e-1))
    found = psi(model, radii=(1e-3, 1e-2, 1e-1), batch_size=batch_size)
    assert 0 < expected.cancelled < 18
    assert found.cancelled == expected.cancelled


# ------------------------------------------------------------------------------------------- limit


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_the_limit_is_homogeneous(method, scale):
    expected, found = (
        susceptibility_limit(model, X, method=method, generator=seeded())
        for model in (net(), Scaled(scale))
    )
    assert torch.allclose(found / scale, expected, rtol=1e-3)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_the_limit_of_small_outputs_in_half_precision(kind, method):
    """Gradients of 1e-5 are nothing in float16, unless they are scaled."""
    expected = susceptibility_limit(net(), X)
    for scale in (1.0, 2.0**-10):
        model = net()
        model[5].weight.data *= scale
        model[5].bias.data *= scale
        found = susceptibility_limit(model.to(kind), X.to(kind), method=method, generator=seeded())
        assert torch.allclose(found / scale, expected, rtol=0.1)


class Once(torch.autograd.Function):
    """A sine whose gradient says that it cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class Silently(Once):
    """The same, of which torch does not know."""

    @staticmethod
    def forward(ctx, x):
        ctx.cosine = x.detach().cos()
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return (gradient.detach() * ctx.cosine).detach()


class Attention(nn.Module):
    """Attention over rows of pixels; torch has no second derivative of the fused one."""

    def forward(self, x):
        rows = x.flatten(1).view(len(x), 1, 6, 18)
        return functional.scaled_dot_product_attention(3 * rows, 2 * rows, rows)


class Ending(nn.Module):
    """Something, and 40 outputs: too many for ``auto`` to begin with the exact limit."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.head = function, nn.Linear(108, 40)

    def forward(self, x):
        return self.head(self.function(x).flatten(1))


TWICE = {
    "once": lambda x: Once.apply(x),
    "silently": lambda x: Silently.apply(x),
    "attention": Attention(),
    "a plain sine": torch.sin,
}


@pytest.mark.parametrize("function", TWICE.values(), ids=TWICE.keys())
def test_the_limit_of_what_cannot_be_differentiated_twice(function):
    model, x = Ending(function), X[:3]
    jacobians = [
        torch.autograd.functional.jacobian(lambda v: model(v)[0], image[None]).reshape(40, -1)
        for image in x
    ]
    scale = math.sqrt(108 / 40)
    expected = [torch.linalg.svdvals(j.double())[0].item() * scale for j in jacobians]
    for method in ("auto", "exact"):
        found = susceptibility_limit(model, x, method=method, rounds=40, generator=seeded())
        assert found.tolist() == pytest.approx(expected, rel=1e-3)
    if function is TWICE["a plain sine"]:
        found = susceptibility_limit(model, x, method="krylov", rounds=40, generator=seeded())
        assert found.tolist() == pytest.approx(expected, rel=1e-3)
    else:
        with pytest.raises(ValueError, match="krylov: expected operations that torch diff"):
            susceptibility_limit(model, x, method="krylov")
    both = psi(model, x, limit=True)
    assert both.limit == pytest.approx(math.exp(sum(map(math.log, expected)) / 3), rel=1e-2)


# ------------------------------------------------------------------------------------- batch norms


class Norms(nn.Module):
    """A small net whose norm is called as asked."""

    def __init__(self, call, norm=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        self.norm, self.call = norm or nn.BatchNorm2d(4), call

    def forward(self, x):
        return self.head(self.call(self.norm, self.conv(x)).square().mean((2, 3)))


def plainly(norm, z):
    return norm(z)


def by_name(norm, z):
    return norm(input=z)


def as_a_function(norm, z):
    return functional.batch_norm(z, norm.running_mean, norm.running_var, training=norm.training)


def twice(norm, z):
    return norm(3 * norm(z) + 1)


def scripted_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.BatchNorm2d(4))


def instance_norm():
    return nn.InstanceNorm2d(4, track_running_stats=True)


UNREACHED = {
    "a function": (lambda: Norms(as_a_function), "called as a function"),
    "TorchScript": (lambda: Norms(plainly, scripted_norm()), "TorchScript"),
    "an instance norm": (lambda: Norms(plainly, instance_norm()), "InstanceNorm2d with a running"),
}
CALLS = {
    "susceptibility": lambda m, mode: psi(m, batch_norm=mode),
    "sphere_attack": lambda m, mode: sphere_attack(m, X, 0.01, batch_norm=mode),
    "drift": lambda m, mode: drift(m, X, X + 0.01, batch_norm=mode),
    "robustness_radius": lambda m, mode: robustness_radius(m, X, 1.0, batch_norm=mode),
}


@pytest.mark.parametrize(("make", "match"), UNREACHED.values(), ids=UNREACHED.keys())
def test_statistics_out_of_reach_are_refused(make, match):
    """Their statistics would silently be those of ``eval``."""
    for name, call in CALLS.items():
        for mode in ("frozen", "batch"):
            if name == "drift" and match == "TorchScript":
                continue  # refused for its states
            with pytest.raises(ValueError, match=rf"batch_norm.*: expected .*{match}"):
                call(make(), mode)
    with pytest.raises(ValueError, match="expected"):
        susceptibility_limit(make(), X, batch_norm="frozen")
    psi(make(), batch_norm="eval")


def test_a_norm_that_is_called_twice():
    """It has statistics of one of the two: frozen ones do not give the clean batch's outputs."""
    with pytest.raises(ValueError, match="batch norms that are called once, got 'norm'"):
        psi(Norms(twice), batch_norm="frozen")
    for mode in ("eval", "batch"):
        assert psi(Norms(twice), batch_norm=mode).psi.isfinite().all()


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(4))

    def forward(self, weight):
        return weight * self.mask


def parametrised():
    norm = nn.BatchNorm2d(4)
    parametrize.register_parametrization(norm, "weight", Masked())
    return norm


@pytest.mark.parametrize("mode", ["eval", "frozen", "batch"])
@pytest.mark.parametrize(
    "make", [lambda: Norms(by_name), lambda: Norms(plainly, parametrised())], ids=["name", "mask"]
)
def test_norms_called_by_name_or_parametrised(make, mode):
    """The numbers of plain ones."""
    expected, found = (
        psi(model, batch_norm=mode, fast=False) for model in (Norms(plainly), make())
    )
    assert torch.allclose(found.psi, expected.psi, rtol=1e-5)


# ------------------------------------------------------------------------------- drift and float64


def deep():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


WRAPPERS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("n", [8, 6])
def test_a_parametrised_weight_is_no_hidden_state(wrap, n):
    """Of 8 images it would look like one: it has 8 rows."""
    plain, model, x = deep(), deep(), images(n)
    wrap(model[0])
    plain[0].weight.data.copy_(model.eval()[0].weight)
    expected, found = drift(plain, x, x + 0.01), drift(model, x, x + 0.01)
    assert len(found.states) == len(expected.states) == 3
    assert found.layers == expected.layers
    assert found.growth == pytest.approx(expected.growth, rel=1e-4)
    assert found.slope == pytest.approx(expected.slope, abs=1e-4)


def test_a_compiled_model_is_measured_as_it_was_written():
    """What is compiled sees neither hooks nor statistics that are exchanged."""
    moved = X + 0.01 * torch.randn(X.shape, generator=seeded())
    compiled = torch.compile(net(), backend="eager")
    compiled(X)  # compiled by now
    for mode in ("eval", "frozen"):
        expected = psi(net(), batch_norm=mode)
        assert torch.allclose(psi(compiled, batch_norm=mode).psi, expected.psi, rtol=1e-3)
        plain = drift(net(), X, moved, batch_norm=mode)
        found = drift(compiled, X, moved, batch_norm=mode)
        assert found.growth == pytest.approx(plain.growth, rel=1e-4)


def normed():
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the way of old checkpoints
        nn.utils.weight_norm(model[0])
    return model


def pruned():
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


class Keeping(nn.Module):
    """Keeps its features, with their graph, which cannot be copied."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        self.kept = self.net[:5](x)
        return self.net[5](self.kept)


def kept():
    model = Keeping()
    model(X)
    return model


@pytest.mark.parametrize("make", [net, normed, pruned, kept, Keeping])
def test_float64_of_models_that_are_hard_to_copy(make):
    """By hand: a net that is in float64 from the beginning."""
    if make in (kept, Keeping):
        exact = net().double()
    else:
        exact = make()
        with torch.no_grad():
            exact(X)
        exact = copy.deepcopy(exact).double()
    expected = psi(exact, X.double(), fast=False)
    model = make()
    found = psi(model, float64=True, fast=False)
    assert torch.allclose(found.psi, expected.psi, rtol=1e-6)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("step", ["rel", "norm", "sign", "adam", "plain"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_where_outputs_are_not_finite_a_point_stays_on_its_sphere(step, value):
    class Overflowing(nn.Module):
        def forward(self, x):
            return x.flatten(1) * torch.where(x[:, :1, 0, 0] > 0.5, value, 1.0)

    x = torch.full((2, 1, 3, 3), 0.3)
    x[1] = 0.8
    moved = sphere_attack(Overflowing(), x, 0.01, step=step, steps=3)
    length = (moved - x).double().square().flatten(1).mean(dim=1).sqrt()
    assert length.tolist() == pytest.approx([0.01, 0.01], rel=1e-4)
