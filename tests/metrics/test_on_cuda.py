"""Every attack and measure on a fake CUDA device: the CPU's numbers, and few waits for the GPU."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass
from itertools import product

import pytest
import torch
from fake_cuda import fake_cuda

from metrics import (
    APGD,
    ATTACKS,
    FGSM,
    METRICS,
    PGD,
    Square,
    Transfer,
    accuracy_curve,
    cascade,
    correct,
    gradient_line,
    minimal_fgsm,
    robust_accuracy,
    stability,
    susceptibility,
    suspicion,
)
from metrics.attacks.noise import DISTRIBUTIONS, REGIONS
from metrics.engine.folding import fast_copy
from metrics.susceptibility import (
    BATCH_NORM,
    LAWS,
    START,
    STEPS,
    drift,
    robustness_radius,
    sphere_attack,
    susceptibility_limit,
)
from nas.trial.scoring import metric_key, score

SYNCS_A_LOOK, SYNCS_AT_ALL = 1, 24  # the most that PGD waits for a GPU: a look, and beside them

EPSILONS = {"linf": 0.05, "l2": 0.5}
SMALL = {"steps": 4, "restarts": 2, "queries": 12, "draws": 3, "targets": 3}
KINDS = {
    "norm": ("linf", "l2"),
    "target": (None, "least-likely", "runner-up"),
    "loss": ("ce", "dlr"),
    "region": REGIONS,
    "distribution": DISTRIBUTIONS,
}
AT_ONCE = 10  # images, so that there are several batches


def variants(kind):
    """Return small attacks of a kind with every combination of its named settings."""
    own = {field.name for field in fields(kind) if field.init}
    named = {name: choices for name, choices in KINDS.items() if name in own}
    small = {name: value for name, value in SMALL.items() if name in own}
    for choices in product(*named.values()):
        attack = kind(**small, **dict(zip(named, choices, strict=True)))
        yield attack.with_epsilon(EPSILONS[attack.distance])


every_attack = pytest.mark.parametrize(
    "attack", [attack for kind in ATTACKS.values() for attack in variants(kind)], ids=repr
)


def accuracy(attack, **settings):
    settings = {"batch_size": AT_ONCE, **settings}
    return lambda m, x, y, g: robust_accuracy(m, x, y, attack, generator=g, **settings)


def transferred(attack):
    """Return a call of ``attack`` and its robust accuracy, both of images made on another net."""

    def measure(m, x, y, g):
        transfer = Transfer(source=noisy(m), attack=attack)
        return transfer(m, x, y, generator=g), accuracy(transfer)(m, x, y, g)

    return measure


def psi(**settings):
    settings = {"batch_size": 40, "steps": 2, **settings}
    return lambda m, x, y, g: susceptibility(m, x, generator=g, **settings)


def limit(method, batch_norm):
    settings = {"method": method, "batch_norm": batch_norm, "rounds": 4, "batch_size": AT_ONCE}
    return lambda m, x, y, g: susceptibility_limit(m, x, generator=g, **settings)


def by_statistics(batch_norm):
    """Return the moved images, the drift there and the radii under statistics of one kind."""

    def measure(m, x, y, g):
        moved = sphere_attack(m, x, 1e-2, batch_norm=batch_norm, generator=g, batch_size=AT_ONCE)
        radius = robustness_radius(m, x, (y + 1).double(), batch_norm=batch_norm)
        return moved, drift(m, x, moved, batch_norm=batch_norm), radius

    return measure


def never_right(m, x, y, g):
    y = 1 - m.eval()(x).argmax(dim=1).clamp_max(1)
    smallest = minimal_fgsm(m, x, y, batch_size=AT_ONCE)
    return suspicion(m, x, y, queries=2, draws=1, generator=g), smallest


IN_TURN = [
    FGSM(epsilon=0.03),
    PGD(epsilon=0.05, steps=3),
    APGD(epsilon=0.05, steps=4),
    Square(epsilon=0.05, queries=8),
]
MEASURES = {
    "correct": lambda m, x, y, g: correct(m, x, y, batch_size=AT_ONCE),
    "last iterate": accuracy(PGD(epsilon=0.05, steps=3, restarts=2), early_exit=False),
    "without a fast copy": accuracy(PGD(epsilon=0.05, steps=3), fast=False),
    "in inference mode": torch.inference_mode()(accuracy(PGD(epsilon=0.05, steps=3))),
    "labels of the model": lambda m, x, y, g: PGD(epsilon=0.1, steps=3)(m, x, generator=g),
    "towards labels": lambda m, x, y, g: PGD(target="labels")(m, x, (y + 1) % 10, generator=g),
    "transfer of pgd": transferred(PGD(epsilon=0.05, steps=3)),
    "transfer of square": transferred(Square(epsilon=0.1, queries=5)),
    "cascade": lambda m, x, y, g: cascade(m, x, y, IN_TURN, generator=g, batch_size=AT_ONCE),
    "accuracy_curve": lambda m, x, y, g: accuracy_curve(
        m, x, y, PGD(steps=3), [0.0, 0.01, 0.03, 0.06, 0.2], generator=g, batch_size=AT_ONCE
    ),
    "accuracy_curve, L2": lambda m, x, y, g: accuracy_curve(
        m, x, y, PGD(steps=3, norm="l2"), [0.1, 0.4, 1.0], generator=g, batch_size=AT_ONCE
    ),
    "minimal_fgsm": lambda m, x, y, g: minimal_fgsm(m, x, y, batch_size=AT_ONCE),
    "gradient_line": lambda m, x, y, g: gradient_line(m, x, y, scalings=40, batch_size=AT_ONCE),
    "gradient_line, margin": lambda m, x, y, g: gradient_line(
        m, x, y, scalings=20, mode="margin", clip=True, batch_size=AT_ONCE
    ),
    "stability": lambda m, x, y, g: stability.measure(
        m, x, y, deltas=[2, 10], draws=30, scalings=40, count=True, batch_size=AT_ONCE
    ),
    "suspicion": lambda m, x, y, g: suspicion(
        m, x, y, epsilon=0.05, queries=12, draws=3, generator=g, batch_size=AT_ONCE
    ),
    "never right": never_right,
    "psi, float64": psi(float64=True),
    **{f"psi, {kind}": psi(batch_norm=kind, limit=True, restarts=2) for kind in BATCH_NORM},
    **{f"psi, {law}": psi(law=law, radii=(1e-3, 1e-2)) for law in LAWS},
    **{f"psi, {step}": psi(step=step, start=START[-1]) for step in STEPS},
    **{f"sphere, {kind}": by_statistics(kind) for kind in BATCH_NORM},
    **{
        f"limit, {method}, {kind}": limit(method, kind)
        for method in ("exact", "krylov")
        for kind in ("eval", "frozen")
    },
}
DRAWING = [
    "without a fast copy",
    "labels of the model",
    "psi, log-uniform",
    "limit, krylov, eval",
]
QUICK = {
    "pgd": {"steps": 3},
    "apgd": {"steps": 4},
    "apgd-t": {"steps": 3, "targets": 2},
    "fab": {"steps": 3, "targets": 2},
    "autoattack": {"steps": 3, "targets": 2, "queries": 8},
    "square": {"queries": 8},
    "square-l2": {"queries": 8},
    "noise": {"draws": 3},
    "cascade": {"attacks": (FGSM(), PGD(steps=3), APGD(steps=4))},
    "suspicion": {"queries": 5, "draws": 2},
    "stability": {"draws": 4, "scalings": 20},
}


@pytest.fixture(scope="module")
def some(digits, digits_net):
    """Return the net and 24 digits, a few of which it gets wrong."""
    return digits_net, digits.validation.images()[:24], digits.validation.labels[:24]


def noisy(model):
    """Return a model whose weights are a little different."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + 0.05 * torch.arange(len(weight), device=weight.device).sin().mean())
    return other


def compare(measure, some, draws_on="same"):
    """Measure on the CPU and on a fake GPU, must come to the same, and return it.

    ``draws_on`` is the generator's device; None is torch's own generator.
    """
    model, x, y = some
    expected = measure(model, x, y, seeded("cpu" if draws_on else None))
    with fake_cuda():
        there = copy.deepcopy(model).to("cuda")
        generator = seeded("cuda" if draws_on == "same" else draws_on)
        same(measure(there, x.to("cuda"), y.to("cuda"), generator), expected)
        kept = zip(there.state_dict().values(), model.state_dict().values(), strict=True)
        assert all(torch.equal(one.cpu(), other) for one, other in kept)
    return expected


def seeded(device):
    torch.manual_seed(0)
    return None if device is None else torch.Generator(device).manual_seed(0)


def same(found, expected):
    """Compare to the last digit; of float64, whose sums BLAS may order otherwise, nearly so."""
    if is_dataclass(expected):
        assert type(found) is type(expected)
        for field in (field for field in fields(expected) if field.compare):
            same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, torch.Tensor):
        nearly = 1e-9 if expected.dtype == torch.float64 else 0
        torch.testing.assert_close(found.cpu(), expected, rtol=nearly, atol=0, equal_nan=True)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)
    else:
        assert found == expected


@every_attack
def test_adversarial_images_are_the_cpus(attack, some):
    images = compare(lambda m, x, y, g: attack(m, x, y, generator=g), some)
    assert not torch.equal(images, some[1])


@every_attack
def test_robust_accuracy_is_the_cpus(attack, some):
    compare(accuracy(attack), some)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_the_cpus(name, some):
    compare(MEASURES[name], some)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_the_cpus_scores(name, some):
    metric = METRICS[name](limit=16, **QUICK.get(name, {}))
    seeds = {metric_key(metric): 5}
    scores = compare(lambda m, x, y, g: tuple(score(m, x, y, (metric,), seeds).items()), some)
    assert [key for key, _ in scores] == list(metric.score_names)


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("draws_on", ["cpu", None])
def test_whoever_draws_may_do_so_elsewhere(draws_on, name, some):
    compare(MEASURES[name], some, draws_on)


def test_results_are_where_the_images_are(some):
    with fake_cuda():
        model, x, y = (copy.deepcopy(v).to("cuda") for v in some)
        result = robust_accuracy(model, x, y, FGSM())
        made = [result.robust, result.clean, FGSM()(model, x, y), minimal_fgsm(model, x, y).size]
        made += [sphere_attack(model, x, 1e-3), susceptibility_limit(model, x)]
        assert {v.device for v in made} == {x.device}


def test_a_model_on_the_gpu_has_a_fast_copy(some):
    with fake_cuda():
        model, x, _ = (copy.deepcopy(v).to("cuda") for v in some)
        assert fast_copy(model, x[:2]) is not None


def test_a_look_of_pgd_seldom_waits_for_the_gpu(digits, digits_net):
    attack = PGD(epsilon=0.05, step_size=0.005, steps=10)  # images break at one look after another
    with fake_cuda() as gpu:
        model = copy.deepcopy(digits_net).to("cuda")
        x, y = digits.validation.images().to("cuda"), digits.validation.labels.to("cuda")
        generator = torch.Generator("cuda").manual_seed(0)
        gpu.syncs.clear()
        result = robust_accuracy(model, x, y, attack, generator=generator, batch_size=len(x))
        count = gpu.syncs.total()
    assert 0 < result.accuracy < result.clean.double().mean()
    assert count <= SYNCS_A_LOOK * (attack.steps + 1) + SYNCS_AT_ALL, gpu.syncs
