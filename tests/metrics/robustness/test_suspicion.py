"""Planted faults raise their flags; nets that were honestly trained raise none."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.answers import logits_of
from metrics.attacks import FGSM, PGD, Attack
from metrics.robustness.accuracy import robust_accuracy
from metrics.robustness.flags import FLAGS, Flag
from metrics.robustness.suspicion import suspicion
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

EPSILON = 0.1


@pytest.fixture(scope="module")
def validation(digits):
    return digits.validation.images(), digits.validation.labels


@pytest.fixture(scope="module")
def few(validation):
    """Return enough images to tell a flag from chance, and no more."""
    return tuple(v[:60] for v in validation)


@pytest.fixture(scope="module")
def robust_net(digits):
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), digits.task, seed=0)
    recipe = Recipe(epochs=6, batch_size=64, epsilon=EPSILON, adversarial_share=1.0, steps=5)
    drain(train(model, digits, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model


class Around(nn.Module):
    """A net with something before it and behind it."""

    def __init__(self, net, before=lambda x: x, behind=lambda z: z):
        super().__init__()
        self.net, self.before, self.behind = net, before, behind

    def forward(self, x):
        return self.behind(self.net(self.before(x)))


def flags(model, validation, **settings):
    generator = torch.Generator().manual_seed(0)
    if len(validation[1]) < 100:
        settings = {"queries": 30, "draws": 3, **settings}
    found = suspicion(model, *validation, epsilon=EPSILON, generator=generator, **settings)
    assert tuple(f.name for f in found) == tuple(FLAGS)
    return {f.name: f for f in found}


def raised(model, validation, **settings):
    return {name for name, flag in flags(model, validation, **settings).items() if flag.raised}


@pytest.mark.parametrize("net", ["digits_net", "robust_net"])
def test_honest_nets_raise_no_flag(net, request, validation):
    found = flags(request.getfixturevalue(net), validation)
    assert not [f for f in found.values() if f.raised]
    # The values are not trivially zero: the attacks were there.
    assert found["noise_beats_gradient"].value < -0.05
    assert found["black_box_beats_white_box"].value < -0.01


@pytest.mark.data
@pytest.mark.parametrize("adversary", ["none", "pgd"])
def test_honest_nets_on_real_images_raise_no_flag(adversary, data_root):
    from nas.data.arrays import prepare
    from nas.data.config import DataConfig, Limit
    from nas.data.datasets import load_images

    limit = Limit(train=3000, validation=250)
    config = DataConfig(name="fashion-mnist", root=str(data_root), limit=limit)
    data = prepare(load_images(config), config)
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), data.task, seed=0)
    recipe = Recipe(epochs=2, batch_size=64, adversary=adversary, steps=2, selection_images=100)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    found = suspicion(model, data.validation.images(), data.validation.labels)
    assert not [f for f in found if f.raised]


def one_hot(z):
    return functional.one_hot(z.argmax(1), 10).float()


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"behind": lambda z: 1000 * z}, {"saturated_logits"}),
        ({"behind": one_hot}, {"zero_gradient", "black_box_beats_white_box"}),
        (
            {"before": lambda x: (x * 8).round() / 8},
            {"zero_gradient", "black_box_beats_white_box", "unbounded_not_zero"},
        ),
        ({"behind": lambda z: z.softmax(1)}, {"logits_are_probabilities"}),
        (
            {"behind": lambda z: torch.where(z[:, :1] > z.median(), torch.nan, z)},
            {"nonfinite_gradient"},
        ),
        (
            {"before": lambda x: (x + 0.2 * torch.randn_like(x)).clamp(0, 1)},
            {"randomized_model", "invariant_violation"},
        ),
        ({"behind": lambda z: functional.dropout(z, 0.3, training=True)}, {"randomized_model"}),
        ({"behind": lambda z: z - z.mean(0)}, {"invariant_violation"}),
    ],
    ids=["saturated", "argmax", "rounding", "softmax", "nan", "noise", "dropout", "batch"],
)
def test_planted_faults_raise_their_flags(planted, expected, digits_net, validation):
    assert expected <= raised(Around(digits_net, **planted), validation)


def test_a_masked_gradient_looks_robust_and_is_flagged(digits_net, validation):
    """The whole point: rounding in front gives PGD accuracy that Square takes away."""
    masked = Around(digits_net, before=lambda x: (x * 8).round() / 8)
    attack = PGD(epsilon=EPSILON, steps=20)
    generator = torch.Generator().manual_seed(0)
    looks = robust_accuracy(masked, *validation, attack, generator=generator).accuracy
    honest = robust_accuracy(digits_net, *validation, attack, generator=generator).accuracy
    assert looks > honest + 0.2
    assert raised(masked, validation)


class TrainMode(Attack):
    def perturb(self, model, x, labels, generator):
        model.train()
        return PGD(epsilon=self.epsilon, steps=2).perturb(model, x, labels, generator)


class TooFar(Attack):
    def perturb(self, model, x, labels, generator):
        return x + 2 * self.epsilon


@pytest.mark.parametrize(("attack", "violations"), [(TrainMode(), 1), (TooFar(epsilon=0.3), 2)])
def test_an_attack_that_breaks_its_promises_is_flagged(attack, violations, digits_net, validation):
    """In train mode: seen so; the batch norms' statistics come back. Too far: ball and box."""
    before = {k: v.clone() for k, v in digits_net.state_dict().items()}
    found = flags(digits_net, validation, attack=attack)["invariant_violation"]
    assert found.raised
    assert found.value == violations
    assert all(torch.equal(v, digits_net.state_dict()[k]) for k, v in before.items())
    assert not flags(digits_net, validation, attack=FGSM())["invariant_violation"].raised


@pytest.mark.parametrize(
    "behind",
    [
        lambda z: z.detach() * 0 + torch.arange(10.0),  # has no gradient at all
        lambda z: z * 0 + torch.arange(10.0),
        lambda z: z * 0,  # a tie of all classes
        lambda z: z * 1e-9 + torch.arange(10.0),  # moved by rounding alone
    ],
    ids=["constant", "times 0", "a tie", "rounding"],
)
def test_of_a_constant_model_only_that_is_said(behind, digits_net, few):
    """Attacks that change nothing are no sign of a masked gradient there."""
    found = flags(Around(digits_net, behind=behind), few)
    assert {name for name, flag in found.items() if flag.raised} == {"constant_classifier"}
    assert found["constant_classifier"].value == 1
    left_out = [name for name, flag in found.items() if flag.left_out]
    assert "zero_gradient" in left_out
    assert "saturated_logits" not in left_out
    assert all(math.isnan(found[name].value) for name in left_out)
    assert all("same answer" in found[name].left_out for name in left_out)


def test_a_collapsed_model_is_named(digits_net, few):
    """One class for all, as a diverged training leaves: a low accuracy that no attack explains."""
    collapsed = Around(digits_net, behind=lambda z: z + 1e3 * torch.eye(10)[3])
    found = flags(collapsed, few)
    assert found["constant_classifier"].raised
    assert not found["zero_gradient"].raised


def test_one_class_of_images_is_no_collapse(digits_net, validation):
    x, y = validation
    same = logits_of(digits_net.eval(), x).argmax(1) == 3
    chosen = (x[same & (y == 3)], y[same & (y == 3)])
    assert not flags(digits_net, chosen)["constant_classifier"].raised
    lone = (x[:1], y[:1])
    assert not flags(digits_net, lone)["constant_classifier"].raised


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_honest_nets_in_half_precision_raise_no_flag(kind, digits_net, few):
    model = copy.deepcopy(digits_net).to(kind)
    assert raised(model, (few[0].to(kind), few[1])) == set()


@pytest.mark.parametrize("scale", [2.0, 10.0, 40.0])
def test_honest_nets_with_large_logits_are_saturated_at_most(scale, digits_net, few):
    model = Around(digits_net, behind=lambda z: scale * z)
    assert raised(model, few) <= {"saturated_logits"}


def test_a_check_that_cannot_run_is_left_out_and_named(digits_net, few):
    """A model that cannot be copied: the promises of an attack are not checked on it."""

    class Uncopied(Around):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle 'generator' object")

    found = flags(Uncopied(digits_net), few)
    assert [name for name, flag in found.items() if flag.left_out] == ["invariant_violation"]
    left = found["invariant_violation"]
    assert left.left_out == "TypeError: cannot pickle 'generator' object"
    assert math.isnan(left.value)
    assert not left.raised
    plain = flags(digits_net, few)
    assert all(found[n].value == plain[n].value for n in found if n != "invariant_violation")
    masked = Uncopied(digits_net, before=lambda x: (x * 8).round() / 8)
    assert {"zero_gradient", "black_box_beats_white_box"} <= raised(masked, few)


class Failing(Attack):
    def perturb(self, model, x, labels, generator):
        raise KeyError("what this attack needs\nand more")


def test_an_attack_that_fails_is_left_out_and_named(digits_net, few):
    found = flags(digits_net, few, attack=Failing())
    left = found.pop("invariant_violation")
    assert left.left_out.startswith("KeyError: ")
    assert "\n" not in left.left_out
    assert not any(flag.left_out or flag.raised for flag in found.values())


def test_running_out_of_memory_is_no_check_that_is_left_out(digits_net, few):
    """It is a failed trial: with more memory the check would run."""

    class Greedy(Attack):
        def perturb(self, model, x, labels, generator):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        flags(digits_net, few, attack=Greedy())


def test_nan_counts_as_above_where_the_check_ran():
    assert Flag("zero_gradient", math.nan, 0.1).raised
    assert not Flag("zero_gradient", math.nan, 0.1, "it could not").raised
    assert not Flag("zero_gradient", 0.1, 0.1).raised


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_answers_nothing_is_flagged(value, digits_net, few):
    """Its images are all wrong, so that no attack has any to find fault with."""
    found = flags(Around(digits_net, behind=lambda z: z * 0 + value), few)
    assert found["nonfinite_gradient"].raised
    assert found["nonfinite_gradient"].value == 1
    assert not found["saturated_logits"].raised


def test_two_classes_and_a_model_that_is_never_right(validation):
    x = validation[0][:50]
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    y = linear(x).argmin(1)
    assert raised(linear, (x, y)) == set()


def test_a_class_that_cannot_be_is_no_randomness(digits_net, validation):
    """Minus infinity is the logit of a class that cannot be; its difference to itself is no NaN."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = digits_net

        def forward(self, x):
            logits = self.net(x).clone()
            logits[:, 9] = -torch.inf
            return logits

    x, y = (part[validation[1] != 9][:40] for part in validation)
    found = {flag.name: flag for flag in suspicion(Masked(), x, y, queries=5, draws=2)}
    for name in ("randomized_model", "invariant_violation"):
        assert found[name].value == 0
        assert not found[name].raised
