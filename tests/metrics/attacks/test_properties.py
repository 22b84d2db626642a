"""What must hold of every attack, for whatever model, images and settings hypothesis thinks of."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from metrics.attacks import (
    APGD,
    ATTACKS,
    FAB,
    FGSM,
    PGD,
    Noise,
    Square,
    SquareL2,
    TargetedAPGD,
)
from metrics.robustness.accuracy import correct, robust_accuracy
from metrics.robustness.curves import accuracy_curve

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
epsilons = st.one_of(st.just(0.0), st.floats(1e-3, 1.0))
norms = st.sampled_from(["linf", "l2"])
few = st.integers(1, 4)
SETTINGS = {
    "fgsm": st.builds(FGSM, epsilon=epsilons, norm=norms),
    "pgd": st.builds(
        PGD,
        epsilon=epsilons,
        step_size=st.one_of(st.none(), st.floats(1e-3, 1.0)),
        steps=few,
        norm=norms,
        random_start=st.booleans(),
        restarts=st.integers(1, 2),
        target=st.sampled_from([None, "least-likely", "runner-up"]),
    ),
    "apgd": st.builds(
        APGD,
        epsilon=epsilons,
        steps=few,
        norm=norms,
        loss=st.sampled_from(["ce", "dlr"]),
        restarts=st.integers(1, 2),
    ),
    "apgd-t": st.builds(
        TargetedAPGD, epsilon=epsilons, steps=few, norm=norms, loss=st.just("ce"), targets=few
    ),
    "fab": st.builds(FAB, epsilon=epsilons, steps=few, norm=norms, targets=few),
    "square": st.builds(Square, epsilon=epsilons, queries=few),
    "square-l2": st.builds(SquareL2, epsilon=epsilons, queries=few),
    "noise": st.builds(
        Noise,
        epsilon=epsilons,
        region=st.sampled_from(["cube", "ball", "sphere"]),
        distribution=st.sampled_from(["uniform", "gaussian"]),
        draws=few,
    ),
}
attacks = st.one_of(
    *(SETTINGS.get(name, st.builds(kind, epsilon=epsilons)) for name, kind in ATTACKS.items())
)
"""Every attack of the registry; one without an entry above with its own defaults."""


@st.composite
def situations(draw):
    """Return a seeded net in train mode, images and labels."""
    n, channels = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(3, 6)), draw(st.integers(3, 6))
    seed, scale = draw(st.integers(0, 10_000)), draw(st.sampled_from([0.1, 1.0, 30.0]))
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * height * width, 4),
    )
    model[5].weight.data *= scale
    x = torch.rand(n, channels, height, width)
    if draw(st.booleans()):
        x = x.round()  # on the faces of the box
    return model.train(), x, torch.randint(4, (n,))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@quick
@given(situations(), attacks)
def test_inside_the_ball_and_the_box(situation, attack):
    model, x, y = situation
    adversarial = attack(model, x, y, generator=seeded())
    delta = (adversarial - x).flatten(1).double()
    length = delta.abs().amax(1) if attack.distance == "linf" else delta.norm(dim=1)
    assert (length <= attack.epsilon * (1 + 1e-5) + 1e-6).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@quick
@given(situations(), attacks)
def test_epsilon_zero_changes_nothing(situation, attack):
    model, x, y = situation
    still = attack.with_epsilon(0.0)
    assert torch.equal(still(model, x, y, generator=seeded()), x)
    result = robust_accuracy(model, x, y, still, generator=seeded())
    assert torch.equal(result.robust, correct(model, x, y))


@quick
@given(situations(), attacks)
def test_the_model_is_left_as_found(situation, attack):
    model, x, y = situation
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = x.clone()
    attack(model, x, y, generator=seeded())
    robust_accuracy(model, x, y, attack, generator=seeded())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[5].weight.grad is None
    assert torch.equal(x, images)


@quick
@given(situations(), attacks)
def test_seeds_decide_everything(situation, attack):
    model, x, y = situation
    torch.manual_seed(1)
    a = attack(model, x, y, generator=seeded(3))
    first = robust_accuracy(model, x, y, attack, generator=seeded(3))
    torch.manual_seed(2)
    assert torch.equal(a, attack(model, x, y, generator=seeded(3)))
    again = robust_accuracy(model, x, y, attack, generator=seeded(3))
    assert torch.equal(first.robust, again.robust)


@quick
@given(
    situations(),
    st.sampled_from([PGD(epsilon=0.1, steps=2), APGD(epsilon=0.1, steps=3)]),
    st.integers(2, 4),
)
def test_more_restarts_are_never_weaker(situation, attack, restarts):
    """The first start draws the same numbers."""
    from dataclasses import replace

    model, x, y = situation
    once = robust_accuracy(model, x, y, attack, generator=seeded())
    often = robust_accuracy(model, x, y, replace(attack, restarts=restarts), generator=seeded())
    assert not (often.robust & ~once.robust).any()


@quick
@given(situations(), attacks)
def test_early_exit_is_never_weaker_than_what_a_call_returns(situation, attack):
    model, x, y = situation
    early = robust_accuracy(model, x, y, attack, generator=seeded(), fast=False)
    last = robust_accuracy(model, x, y, attack, generator=seeded(), fast=False, early_exit=False)
    assert not (early.robust & ~last.robust).any()
    assert torch.equal(early.clean, last.clean)


@quick
@given(situations(), attacks, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5, unique=True))
def test_curves_never_rise(situation, attack, levels):
    model, x, y = situation
    curve = accuracy_curve(model, x, y, attack, levels, generator=seeded())
    assert curve.epsilons == tuple(sorted(levels))
    assert not (curve.robust[1:] & ~curve.robust[:-1]).any()
    assert not (curve.robust & ~correct(model, x, y)).any()


@quick
@given(attacks)
def test_a_repr_makes_the_attack_again(attack):
    names = {a.__name__: a for a in ATTACKS.values()}
    assert eval(repr(attack), names) == attack
