"""Models that random ones (tests/metrics/test_random_models.py) found to be got wrong once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics import (
    FGSM,
    PGD,
    Noise,
    Square,
    accuracy_curve,
    gradient_line,
    minimal_fgsm,
    suspicion,
)
from metrics.engine.folding import fast_copy
from metrics.robustness.accuracy import correct, robust_accuracy
from metrics.susceptibility import sphere_attack, susceptibility

pytestmark = [  # of the models themselves
    pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def images(n=4, channels=1, side=4):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """Logits ±(sum of pixels - bound)."""

    def __init__(self, bound=8.0):
        super().__init__()
        self.bound = bound

    def forward(self, x):
        z = x.double().flatten(1).sum(1) - self.bound
        return torch.stack([z, -z], 1)


class Unused(nn.Module):
    """Has a module that forward does not call, such as an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("batch_norm", ["eval", "frozen"])
def test_a_traced_model_with_a_module_that_is_not_called(batch_norm):
    model, x = Unused().eval(), images()
    y = model(x).argmax(1)
    traced = torch.jit.trace(model, x)
    attack = FGSM(epsilon=0.3)
    expected = robust_accuracy(model, x, y, attack)
    assert torch.equal(robust_accuracy(traced, x, y, attack).robust, expected.robust)
    psi = susceptibility(model, x, batch_norm=batch_norm, generator=torch.Generator())
    got = susceptibility(traced, x, batch_norm=batch_norm, generator=torch.Generator())
    assert got.value == pytest.approx(psi.value, rel=1e-3)


class Doubling(nn.Module):
    """Doubles a buffer at every pass."""

    def __init__(self, buffer):
        super().__init__()
        self.net = Linear()
        self.register_buffer("held", buffer)

    def forward(self, x):
        self.held.mul_(2)
        return self.net(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.arange(6.0)[::2],
        lambda: torch.ones(4)[::4],
        lambda: torch.full((2,), 1 + 1j).conj(),
        lambda: torch.full((2,), 1 + 1j).conj().imag,
    ],
    ids=["sparse", "strided", "strided, of one", "conjugate", "negative"],
)
def test_buffers_of_any_layout_come_back(make):
    model, x = Doubling(make()), images()
    correct(model, x, torch.zeros(4, dtype=torch.long))
    assert torch.equal(model.held.to_dense(), make().to_dense())


def test_a_buffer_that_is_expanded():
    model, x = Doubling(torch.ones(1)), images()
    model.held = torch.ones(1).expand(4)
    model.forward = model.net.forward
    assert torch.equal(correct(model, x, model(x).argmax(1)), torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_moves_images_of_its_own_type(kind):
    """Of a linear model the smallest steps are its distances, z / 16 and z / 4."""
    x = images().to(kind)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).to(kind)
    model[1].weight.data = torch.stack([torch.ones(16), -torch.ones(16)]).to(kind)
    model[1].bias.data = torch.tensor([-7.5, 7.5]).to(kind)
    y = model(x).argmax(1)
    distance = (x.double().flatten(1).sum(1) - 7.5).abs()
    near = 16 * torch.finfo(kind).eps
    sign = minimal_fgsm(model, x, y, limit=1.0, tolerance=1e-3)
    line = gradient_line(model, x, y, length=4.0, scalings=401)
    for found, expected in ((sign, distance / 16), (line, distance / 4)):
        assert found.images.dtype is kind
        assert ((found.size - expected).abs() <= near).all()


def test_half_precision_shrinks_no_further_than_the_level():
    """Pixels at 0.75 are 1/256 apart there: one step up breaks them, no level below it does."""
    x = torch.full((1, 1, 2, 2), 0.75, dtype=torch.bfloat16)
    step = 2.0**-8
    y = torch.ones(1, dtype=torch.long)
    curve = accuracy_curve(Linear(3.001), x, y, FGSM(), [0.6 * step, step])
    assert curve.robust.squeeze(1).tolist() == [True, False]


def test_half_precision_breaks_no_promise():
    """The distance of two images in half precision is not one of its values."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 3)).bfloat16()
    x = images().bfloat16()
    flags = suspicion(model, x, model(x).argmax(1), epsilon=0.6327, queries=2, draws=1)
    assert {flag.name: flag.value for flag in flags}["invariant_violation"] == 0


class Writing(nn.Module):
    """Writes over its input."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x.sub_(0.5))


def test_a_trial_in_float64_leaves_float64_images_alone():
    x = images().double()
    susceptibility(Writing().double(), x, float64=True, generator=torch.Generator())
    assert torch.equal(x, images().double())


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_noise_stays_in_the_cube_exactly(kind):
    """In float32 0.3 is more than 0.3."""
    x = torch.full((1, 1, 20, 20), 0.5, dtype=kind)
    noise = Noise(epsilon=0.3, distribution="gaussian", draws=3)
    adversarial = noise(Linear(), x, generator=torch.Generator().manual_seed(0))
    assert ((adversarial.double() - x.double()).abs() <= 0.3).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_small_outputs_in_half_precision_are_climbed(kind):
    """One over their change is no float16: the gradient was infinite."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    model[1].weight.data *= 2e-4
    x = images()
    moves = []
    for dtype in (torch.float32, kind):
        v = x.to(dtype)
        generator = torch.Generator().manual_seed(0)
        moved = sphere_attack(model.to(dtype), v, 0.01, generator=generator)
        moves.append((moved.double() - v.double()).flatten(1))
    assert (nn.functional.cosine_similarity(*moves) > 0.9).all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.AlphaDropout(),
        nn.Dropout(inplace=True),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.RReLU(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_was_traced_in_training_is_refused(layer):
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten()), images()
    y = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="expected a module traced in eval"):
        correct(torch.jit.trace(model.train(), x, check_trace=False), x, y)
    traced = torch.jit.trace(model.eval(), x)
    assert torch.equal(correct(traced, x, y), correct(model, x, y))


def test_a_recurrent_net_traced_in_training_is_refused_if_it_drops():
    class Recurrent(nn.Module):
        def __init__(self, dropout):
            super().__init__()
            self.net = nn.LSTM(4, 3, 2, dropout=dropout, batch_first=True)

        def forward(self, x):
            return self.net(x.squeeze(1))[0][:, -1]

    y = torch.zeros(4, dtype=torch.long)
    correct(torch.jit.trace(Recurrent(0.0).train(), images()), images(), y)
    with pytest.raises(ValueError, match="whose lstm was traced"):
        correct(torch.jit.trace(Recurrent(0.5).train(), images(), check_trace=False), images(), y)


def test_a_model_that_runs_without_gradients_only():
    """What needs none is measured; what does says so."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.count = Linear(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            self.count.mul_(2)
            return self.net(x)

    x = images()
    y = Linear()(x).argmax(1)
    assert correct(Counting(), x, y).all()
    square = Square(epsilon=1.0, queries=50)
    result = robust_accuracy(Counting(), x, y, square, generator=torch.Generator())
    assert result.accuracy == 0
    with pytest.raises(RuntimeError, match="leaf Variable"):
        robust_accuracy(Counting(), x, y, FGSM())


def test_images_that_depend_on_each_other_are_attacked_without_a_copy():
    """What breaks an image was checked beside the broken ones alone: they have another mean."""

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))

        def forward(self, x):
            return self.net(x - x.mean(0))

    torch.manual_seed(2)
    model, x = Centred(), torch.rand(20, 1, 4, 4)
    y = model(x).argmax(1)
    for epsilon in (0.02, 0.05):
        attack = PGD(epsilon=epsilon, steps=4, random_start=False)
        fast, plain = (robust_accuracy(model, x, y, attack, fast=f) for f in (True, False))
        assert torch.equal(fast.robust, plain.robust)
        assert 0 < plain.accuracy < 1


@pytest.mark.parametrize("forks", [False, True])
def test_a_model_that_seeds_its_own_noise_has_no_copy(forks):
    """The same at every pass; a recording has the noise, but not the seed."""

    class Seeded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

        def forward(self, x):
            with torch.random.fork_rng(enabled=forks):
                torch.manual_seed(0)
                return self.net(x + 1e-5 * torch.randn_like(x))

    model = Seeded().eval()
    for _ in range(2):  # at the second time the state is what a pass leaves
        assert fast_copy(model, images()) is None


def test_suspicion_leaves_torchs_generator_alone():
    x = images()
    state = torch.get_rng_state()
    suspicion(Linear(), x, Linear()(x).argmax(1), queries=2, draws=1, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)
