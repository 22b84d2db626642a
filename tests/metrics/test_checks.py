"""What cannot be measured is refused in one line by every function; the rest is measured."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from public import ATTACK, BATCHED, EPSILON, EVERY, LABELLED, images, net, seeded, top
from torch import nn

from metrics import (
    APGD,
    FGSM,
    PGD,
    TargetedAPGD,
    accuracy_curve,
    cascade,
    correct,
    minimal_fgsm,
    robust_accuracy,
    susceptibility,
    suspicion,
)
from metrics.susceptibility import (
    drift,
    estimated_radius,
    robustness_radius,
    sphere_attack,
    susceptibility_limit,
)

X, Y = images(), torch.tensor([0, 1, 2, 3, 0, 1])


def each(cases):
    """Run a test for each of these named cases."""
    return pytest.mark.parametrize("bad", cases.values(), ids=cases.keys())


def answer_of(call, *given, **settings):
    """Return the line in which a call refused, or what else came of it."""
    try:
        return f"accepted, with {call(*given, **settings)}"[:100]
    except ValueError as error:
        line = str(error)
        clear = "expected" in line and "got" in line and "\n" not in line
        return line if clear else f"not a clear line: {line}"
    except Exception as error:
        return repr(error)


def others(match, calls, *given, **settings):
    """Return the answers of those calls that do not refuse in a line that matches."""
    answers = {name: answer_of(call, *given, **settings) for name, call in calls.items()}
    return {name: said for name, said in answers.items() if not re.match(match, said)}


class Wrapper:
    """What other libraries take for a model: a callable."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)


@pytest.mark.parametrize("model", [Wrapper(net()), lambda x: net()(x), net, None, "net"])
def test_only_modules_are_models(model):
    assert others("model: expected a torch.nn.Module", EVERY, model, X, Y) == {}


BAD_IMAGES = {
    "numpy": X.numpy(),
    "a list": X.tolist(),
    "bytes": (X * 255).byte(),
    "int64": X.long(),
    "complex": X.to(torch.complex64),
    "one image": X[0],
    "flat": X.flatten(1),
    "no images": X[:0],
    "no pixels": X[:, :, :0],
    "meta": X.to("meta"),
    "sparse": X.to_sparse(),
}


@each(BAD_IMAGES)
def test_images_that_are_none(bad):
    assert others("images: expected", EVERY, net(), bad, Y[: len(bad)]) == {}


OUTSIDE = {
    "normalised": (X - 0.5) / 0.25,
    "of 255": X * 255,
    "NaN": torch.where(X > 0.9, torch.nan, X),
    "infinite": torch.where(X > 0.9, torch.inf, X),
    "just above": X.clamp_min(0.99) + 0.0101,
    "just below": X - 0.01,
}


@each(OUTSIDE)
def test_images_outside_of_the_box(bad):
    """The two numbers of the line are not both inside [0, 1]."""
    assert others(r"images: expected values in \[0, 1\], got", LABELLED, net(), bad, Y) == {}
    line = answer_of(LABELLED["call"], net(), bad, Y)
    low, high = map(float, line.rpartition("got ")[2].split(" ... "))
    assert not (0 <= low and high <= 1)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_rounding_outside_of_the_box_is_put_back(kind):
    """As images are that were normalised and back: accuracies are those of the clamped ones."""
    above = torch.nextafter(torch.ones(()).to(kind), torch.full((), 2.0).to(kind))
    x = X.to(kind, copy=True)
    x[0, 0, 0, :2] = torch.stack([above, -above * 1e-7]).to(kind)
    given, inside, model = x.clone(), x.clamp(0, 1), net().to(kind)
    for attack in (PGD(epsilon=0.1), APGD(epsilon=0.1, steps=3)):
        adversarial = attack(model, x, Y, generator=seeded())
        assert torch.equal(adversarial, attack(model, inside, Y, generator=seeded()))
        assert adversarial.max() <= 1
        a, b = (robust_accuracy(model, v, Y, attack, generator=seeded()) for v in (x, inside))
        assert torch.equal(a.robust, b.robust)
    assert torch.equal(x, given)


def test_images_that_were_normalised_and_back():
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
    std = torch.tensor([0.2023, 0.1994, 0.2010]).view(1, 3, 1, 1)
    x = images(12)
    x[:, :, 0, 0], x[:, :, 0, 1] = 0, 1
    back = (x - mean) / std * std + mean
    assert back.min() < 0 or back.max() > 1
    for call in LABELLED.values():
        call(net(), back[:6], Y)


@pytest.mark.parametrize("call", [EVERY["susceptibility"], EVERY["susceptibility_limit"]])
def test_psi_is_of_any_images(call):
    """Normalised ones have a susceptibility too: the sphere is not cut by the box."""
    call(net(), (X - 0.5) / 0.25)


BAD_LABELS = {
    "numpy": Y.numpy(),
    "a list": Y.tolist(),
    "a number": np.int64(3),
    "floats": Y.float(),
    "one-hot": torch.eye(4)[Y],
    "a column": Y[:, None],
    "one too few": Y[1:],
    "one number": Y[0],
}


@each(BAD_LABELS)
def test_labels_that_are_none(bad):
    assert others("labels: expected", LABELLED, net(), X, bad) == {}


@pytest.mark.parametrize("bad", [4, 10**9, -1, -100])
def test_labels_without_a_logit(bad):
    y = Y.clone()
    y[-1] = bad
    assert others(r"labels: expected classes 0 \.\.\. 3", LABELLED, net(), X, y) == {}


@pytest.mark.parametrize(
    "kind", "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)  # fmt: skip
def test_labels_of_every_integer_type(kind):
    model, y = net(), top(net(), X)
    y[:2] = (y[:2] + 1) % 4
    typed = y.to(getattr(torch, kind))
    assert torch.equal(correct(model, X, typed), correct(model, X, y))
    attack = PGD(epsilon=0.1)
    a, b = (robust_accuracy(model, X, v, attack, generator=seeded()) for v in (typed, y))
    assert torch.equal(a.robust, b.robust)
    images = [attack(model, X, v, generator=seeded()) for v in (typed, y)]
    assert torch.equal(*images)
    assert torch.equal(minimal_fgsm(model, X, typed).size, minimal_fgsm(model, X, y).size)


@pytest.mark.parametrize("size", [0, -1, 4.0, "4", torch.tensor(2.0)], ids=repr)
def test_batch_sizes_that_are_none(size):
    match = "batch_size: expected a number of images >= 1"
    assert others(match, BATCHED, net(), X, Y, batch_size=size) == {}


@pytest.mark.parametrize("size", [1, np.int64(4), 10**12], ids=repr)
def test_batch_sizes_that_are_some(size):
    assert others("accepted", BATCHED, net(), X, Y, batch_size=size) == {}


class Answering(nn.Module):
    """Answers something else than its net's logits."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = net(), change

    def forward(self, x):
        return self.change(self.net(x))


NO_LOGITS = {
    "a tuple": lambda z: (z, z),
    "a dict": lambda z: {"logits": z},
    "None": lambda z: None,
    "classes": lambda z: z.argmax(dim=1),
    "int64": lambda z: z.long(),
    "complex": lambda z: z.to(torch.complex64),
    "one image's": lambda z: z[0],
    "squeezed": lambda z: z[:, 0],
    "one logit": lambda z: z[:, :1],
    "one too few": lambda z: z[1:],
    "maps": lambda z: z[..., None, None],
}
OUTPUTS = ("squeezed", "one logit", "maps")  # which are outputs, though no logits
PSI = ("susceptibility", "sphere_attack", "susceptibility_limit")


@pytest.mark.parametrize("answer", NO_LOGITS)
def test_answers_that_are_no_logits(answer):
    allowed = {"drift", *(PSI if answer in OUTPUTS else ())}
    calls = {name: call for name, call in EVERY.items() if name not in allowed}
    assert others("model: expected", calls, Answering(NO_LOGITS[answer]), X, Y) == {}


@pytest.mark.parametrize("answer", OUTPUTS)
def test_outputs_of_any_shape_have_a_susceptibility(answer):
    for name in PSI:
        EVERY[name](Answering(NO_LOGITS[answer]), X)


@pytest.mark.parametrize("answer", ["a tuple", "a dict", "None", "one too few"])
def test_drift_is_of_tensors(answer):
    said = answer_of(EVERY["drift"], Answering(NO_LOGITS[answer]), X)
    assert said.startswith("state 'output': expected a tensor")


UNFIT = {
    "float64": X.double(),
    "float16": X.half(),
    "one channel": X[:, :1],
    "too small": X[:, :, :2, :2],
}


class Valid(nn.Module):
    """Takes images of 3 x 6 x 6 alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 2, 5), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))


@each(UNFIT)
def test_images_that_the_model_does_not_take(bad):
    assert others("images: expected", EVERY, Valid(), bad, Y) == {}


def test_a_type_that_a_part_of_the_model_does_not_take():
    """A batch norm in float16 behind a convolution that autocast makes bfloat16."""

    class Autocast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net().half()

        def forward(self, x):
            with torch.autocast("cpu"):
                return self.net(x)

    expected = "images: expected a type that the model takes, got torch.float16"
    assert others(expected, EVERY, Autocast(), X.half(), Y) == {}


def test_a_fault_of_the_model_is_its_own():
    """An error that is not about the images comes as it was raised."""

    def fail(z):
        raise RuntimeError("out of ideas")

    assert others(r"RuntimeError\('out of ideas'\)$", EVERY, Answering(fail), X, Y) == {}


def frozen():
    return torch.jit.freeze(torch.jit.script(net()))


def traced_in_training():
    return torch.jit.trace(net().train(), X, check_trace=False)


def traced_with_dropout():
    model = nn.Sequential(net(), nn.Dropout(0.5))
    model[1].train()
    return torch.jit.trace(model, X, check_trace=False)


def exported():
    batch = torch.export.Dim("batch")
    return torch.export.export(net(), (X,), dynamic_shapes=({0: batch},)).module()


def made_in_inference_mode():
    with torch.inference_mode():
        return net()


def keeping_an_inference_tensor():
    model = Answering(lambda z: z)
    with torch.inference_mode():
        model.kept = torch.ones(1)
    return model


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))


def quietly(make):
    """Make what torch warns of making."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


REFUSED_MODELS = {
    "frozen": (frozen, "eval.. and train.. reach, got a frozen TorchScript"),
    "traced in train()": (traced_in_training, "traced in eval"),
    "dropout traced": (traced_with_dropout, "traced in eval"),
    "exported": (exported, "put in eval"),
    "inference mode": (made_in_inference_mode, "ordinary parameters.*inference_mode"),
    "an inference tensor": (keeping_an_inference_tensor, "ordinary parameters.*inference_mode"),
    "lazy": (lazy, "initialised parameters"),
}


@pytest.mark.parametrize(("make", "match"), REFUSED_MODELS.values(), ids=REFUSED_MODELS.keys())
def test_models_that_cannot_be_left_as_found_or_attacked(make, match):
    assert others(f"model: expected .*{match}", EVERY, quietly(make), X, Y) == {}


@pytest.fixture(scope="module")
def scripts():
    return {
        "script": quietly(lambda: torch.jit.script(net())),
        "trace": quietly(lambda: torch.jit.trace(net(), X)),
    }


def numbers(result):
    """Return the tensor that a result is made of."""
    names = ("robust", "size", "psi", "radius", "gamma", "measured")
    held = [vars(result)[name] for name in names if name in getattr(result, "__dict__", ())]
    return (held[0] if held else result).double()


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_torchscript_has_the_numbers_of_its_module(kind, scripts):
    plain = net()
    for name, call in EVERY.items():
        if name in ("drift", "suspicion"):
            continue
        draws = name in ("call", "robust_accuracy", "cascade", "accuracy_curve", *PSI)
        settings = [{"generator": seeded()} if draws else {} for _ in range(2)]
        a, b = (call(m, X, Y, **s) for m, s in zip((plain, scripts[kind]), settings, strict=True))
        assert torch.allclose(numbers(a), numbers(b), rtol=1e-3, atol=1e-5, equal_nan=True), name
    flags = [
        [(f.name, f.raised) for f in EVERY["suspicion"](m, X, Y)] for m in (plain, scripts[kind])
    ]
    assert flags[0] == flags[1]


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_torchscript_keeps_its_states_and_statistics_to_itself(kind, scripts):
    assert "TorchScript" in answer_of(drift, scripts[kind], X, X)
    for batch_norm in ("frozen", "batch"):
        for name in ("susceptibility", "sphere_attack", "robustness_radius"):
            said = answer_of(EVERY[name], scripts[kind], X, batch_norm=batch_norm)
            assert said.startswith(f"batch_norm {batch_norm}: expected batch norms within reach")


def test_a_lazy_module_that_has_run_is_a_model():
    model = lazy()
    model(X)
    for call in EVERY.values():
        call(model, X, Y)


def test_images_of_inference_mode_are_images():
    with torch.inference_mode():
        x, y = X.clone(), Y.clone()
        for call in EVERY.values():
            call(net_outside(), x, y)
    for call in EVERY.values():
        call(net(), x, y)


def net_outside():
    with torch.inference_mode(False):
        return net()


WRONG_SETTINGS = {
    "an attack's class": lambda m: robust_accuracy(m, X, Y, PGD),
    "an attack's name": lambda m: robust_accuracy(m, X, Y, "pgd"),
    "a cascade of classes": lambda m: cascade(m, X, Y, [FGSM, PGD]),
    "a cascade of one": lambda m: cascade(m, X, Y, ATTACK),
    "a cascade of none": lambda m: cascade(m, X, Y, []),
    "a curve of a class": lambda m: accuracy_curve(m, X, Y, PGD, [0.1]),
    "a seed, call": lambda m: ATTACK(m, X, Y, generator=0),
    "a seed, accuracy": lambda m: robust_accuracy(m, X, Y, ATTACK, generator=0),
    "a seed, suspicion": lambda m: suspicion(m, X, Y, generator=0),
    "a seed, psi": lambda m: susceptibility(m, X, generator=0),
    "a seed, sphere": lambda m: sphere_attack(m, X, 0.01, generator=0),
    "a seed, limit": lambda m: susceptibility_limit(m, X, generator=0),
    "one radius": lambda m: susceptibility(m, X, radii=0.01),
    "radii that are words": lambda m: susceptibility(m, X, radii="small"),
    "no radii": lambda m: susceptibility(m, X, radii=()),
    "a radius of 0": lambda m: sphere_attack(m, X, 0.0),
    "rounds 2.5": lambda m: susceptibility_limit(m, X, rounds=2.5),
    "epsilon as a word": lambda m: PGD(epsilon="8/255"),
    "epsilon as a tensor": lambda m: PGD(epsilon=torch.tensor([0.1, 0.2])),
    "epsilon True": lambda m: PGD(epsilon=True),
    "epsilon NaN": lambda m: FGSM(epsilon=float("nan")),
    "steps 2.5": lambda m: PGD(steps=2.5),
    "steps as a word": lambda m: APGD(steps="3"),
    "tolerance 0": lambda m: minimal_fgsm(m, X, Y, tolerance=0.0),
    "states as a list": lambda m: drift(m, X, X, states=["0"]),
    "batch_norm": lambda m: robustness_radius(m, X, 1.0, batch_norm="train"),
}


@each(WRONG_SETTINGS)
def test_settings_of_the_wrong_kind(bad):
    said = answer_of(bad, net())
    assert "expected" in said
    assert not said.startswith("not a clear line")


@pytest.mark.parametrize(
    "psi", [torch.ones(6, 1), torch.ones(1, 6), torch.ones(5), torch.ones(0), "one", None]
)
def test_psi_is_one_number_or_one_for_each_image(psi):
    """Of shape (N, 1) it would broadcast to N x N radii."""
    assert answer_of(robustness_radius, net(), X, psi).startswith("psi: expected")
    assert answer_of(estimated_radius, torch.rand(6, 4), psi).startswith("psi: expected")


def test_psi_of_one_number_in_any_shape():
    for psi in (2, 2.0, torch.tensor(2.0), torch.tensor([2.0]), torch.full((6,), 2.0)):
        found = robustness_radius(net(), X, psi)
        assert found.radius.shape == (6,)
        assert torch.equal(found.radius, robustness_radius(net(), X, 2.0).radius)


@pytest.mark.parametrize(
    ("classes", "attack", "least"),
    [
        (2, APGD(loss="dlr"), 3),
        (3, APGD(loss="dlr", target="runner-up"), 4),
        (2, APGD(loss="dlr", target="runner-up"), 4),
        (3, TargetedAPGD(), 4),
        (2, TargetedAPGD(), 4),
    ],
    ids=repr,
)
def test_dlr_with_too_few_classes(classes, attack, least):
    attack, model = replace(attack, steps=2, epsilon=EPSILON), net(classes)
    for said in (
        answer_of(attack, model, X),
        answer_of(robust_accuracy, model, X, top(model, X), attack),
    ):
        assert said.startswith(f"loss dlr: expected at least {least} classes, got {classes}")


def test_tolerances_that_float64_cannot_close():
    """The bracket ends where it can no longer be halved."""
    y = top(net(), X)
    fine = minimal_fgsm(net(), X, y, tolerance=1e-10).size
    for tolerance in (1e-16, 1e-30, 5e-324):
        assert torch.allclose(minimal_fgsm(net(), X, y, tolerance=tolerance).size, fine, atol=1e-9)
