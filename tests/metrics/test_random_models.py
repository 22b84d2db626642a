"""What must hold of every public function, for whatever model people may write.

Models come from tests/helpers/random_models.py. Every call is made under :func:`asked`: the model,
the images, torch's settings and its generator are as before, bit for bit, and what is refused is
refused in one line. Where rounding may decide (float32 at a kink or at a boundary, half precision
all the more), two answers may differ if the same recipe in float64 gives the same ones
(:func:`exactly`), which one in 14,000 needs.

Models that answer at random have no answer to repeat: of them only the ball, the box, and what is
left as found is asked. Nor have images whose logits depend on their batch an answer of their own.

PSINAS_EXAMPLES says how many models each test tries; 1,000 take a quarter of an hour.
"""

from __future__ import annotations

import math
import os
import re
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from random_models import Recipe, case_of, portrait, recipes

import metrics
from metrics import (
    APGD,
    FGSM,
    PGD,
    Noise,
    Square,
    StepLL,
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
from metrics.answers import margin_loss, temperatures
from metrics.precision import full_float32
from metrics.robustness.flags import FLAGS
from metrics.susceptibility import (
    drift,
    robustness_radius,
    sphere_attack,
    susceptibility_limit,
)
from metrics.universality import compare, linear_response, logit_differences

EXAMPLES = int(os.environ.get("PSINAS_EXAMPLES", 6))
FORGIVEN: list[Recipe] = []
OURS = Path(metrics.__file__).parent

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

lengths = st.one_of(st.just(0.0), st.sampled_from([1 / 255, 8 / 255, 0.1, 0.3]), st.floats(1e-3, 1))
norms = st.sampled_from(["linf", "l2"])
counts = st.integers(1, 4)
targets = st.sampled_from([None, None, "least-likely", "runner-up"])
steady = st.one_of(
    st.builds(FGSM, epsilon=lengths, norm=norms),
    st.builds(StepLL, epsilon=lengths),
    st.builds(
        PGD, epsilon=lengths, steps=counts, norm=norms, target=targets, random_start=st.just(False)
    ),
)
"""Attacks that draw nothing."""
attacks = st.one_of(
    steady,
    st.builds(
        PGD,
        epsilon=lengths,
        step_size=st.one_of(st.none(), st.floats(1e-3, 1.0)),
        steps=counts,
        norm=norms,
        restarts=st.integers(1, 2),
        target=targets,
    ),
    st.builds(
        APGD,
        epsilon=lengths,
        steps=st.integers(1, 8),
        norm=norms,
        loss=st.sampled_from(["ce", "dlr"]),
        restarts=st.integers(1, 2),
        target=targets,
    ),
    st.builds(Square, epsilon=lengths, queries=st.integers(1, 12)),
    st.builds(
        Noise,
        epsilon=lengths,
        region=st.sampled_from(["cube", "ball", "sphere"]),
        distribution=st.sampled_from(["uniform", "gaussian"]),
        draws=counts,
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _rounding_decides_seldom():
    yield
    assert len(FORGIVEN) <= 1 + EXAMPLES // 100


class Refused:
    """An answer that was none."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        frames = traceback.extract_tb(error.__traceback__)
        text = str(error)
        self.clear = (
            type(error) is ValueError
            and OURS in Path(frames[-1].filename).parents
            and "expected" in text
            and "\n" not in text
        )

    def __repr__(self):
        return "".join(traceback.format_exception(self.error))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def asked(case, call, *, allowed=()):
    """Return what ``call`` gives, or its refusal; whatever happens, all is left as it was.

    What may be refused is a model whose parts say so, one that cannot do itself what it is asked
    (it then raises its own error), and whatever has one of ``allowed`` in its line.
    """
    before = portrait(case)
    try:
        answer = call()
    except Exception as error:
        answer = Refused(error)
    after = portrait(case)
    assert after == before, {k: (before.get(k), v) for k, v in after.items() if before.get(k) != v}
    if isinstance(answer, Refused):
        note(repr(answer))
        text = str(answer.error)
        if answer.clear:
            assert case.refusable or any(part in text for part in allowed), text
        else:
            own = case.own_error()
            assert own is not None or any(part in text for part in allowed), repr(answer)
    return answer


def refusals(*answers):
    """Whether all were refused, in the same words; that one of several was is a failure."""
    refused = [a for a in answers if isinstance(a, Refused)]
    if not refused:
        return False
    assert len(refused) == len(answers), answers
    # Numbers aside: a line may say how many images there were in the batch.
    lines = {(type(a.error), re.sub(r"\d+", "#", str(a.error))) for a in refused}
    assert len(lines) == 1, answers
    return True


def exactly(recipe, same):
    """Assert that ``same(recipe)`` holds, of the recipe itself or, without rounding, in float64."""
    if same(recipe):
        return
    FORGIVEN.append(recipe)
    assert recipe.dtype != "float64"
    assert same(replace(recipe, dtype="float64"))


def few_classes(attack):
    """Return what may be refused of an attack: DLR needs three classes, or four."""
    return ("loss dlr",) if getattr(attack, "loss", "") == "dlr" else ()


@many
@given(recipes(), attacks, st.booleans(), st.booleans())
def test_a_call_stays_inside(recipe, attack, labelled, transferred):
    """Inside the ball and the box; in L infinity without any tolerance."""
    with case_of(recipe) as case:
        x, y = case.images, case.labels if labelled else None
        allowed = few_classes(attack)
        if transferred:
            attack = Transfer(source=case.twin, attack=attack)
        first, again = (
            asked(case, lambda: attack(case.model, x, y, generator=seeded()), allowed=allowed)
            for _ in range(2)
        )
        if isinstance(first, Refused):
            return
        assert first.shape == x.shape
        assert first.dtype == x.dtype
        assert first.device == x.device
        assert not first.requires_grad
        assert first.isfinite().all()
        assert first.min() >= 0
        assert first.max() <= 1
        delta = (first.double() - x.detach().double()).flatten(1)
        if attack.distance == "linf":
            assert (delta.abs() <= attack.epsilon).all()
        else:
            assert (delta.norm(dim=1) <= attack.epsilon * (1 + 1e-6)).all()
        if not case.random:
            assert torch.equal(first, again)


def masks_of(recipe, attack, **settings):
    """Return the result under every one of ``settings``; None where there is none to compare."""
    with case_of(recipe) as case:
        each = [dict(zip(settings, v, strict=True)) for v in zip(*settings.values(), strict=True)]
        results = [
            asked(
                case,
                lambda s=s: robust_accuracy(
                    case.model, case.images, case.labels, attack, generator=seeded(), **s
                ),
                allowed=few_classes(attack),
            )
            for s in each
        ]
        if refusals(*results):
            return None
        for result in results:
            assert not (result.robust & ~result.clean).any()
            assert result.accuracy == result.robust.double().mean().item()
            if not case.random:
                assert torch.equal(result.clean, ~case.wrong(case.images)) or case.coupled
        return None if case.random else results


@many
@given(recipes(), attacks, st.booleans())
def test_the_fast_mask_is_the_plain_one(recipe, attack, early):
    def same(recipe):
        found = masks_of(recipe, attack, fast=[True, False], early_exit=[early] * 2)
        return found is None or torch.equal(found[0].robust, found[1].robust)

    exactly(recipe, same)


@many
@given(recipes(), attacks, st.booleans())
def test_batches_play_no_part(recipe, attack, fast):
    """But where the model itself looks at the others in the batch, or takes not every size."""

    def same(recipe):
        found = masks_of(recipe, attack, batch_size=[1, 2, None], fast=[fast] * 3)
        return found is None or all(torch.equal(r.robust, found[0].robust) for r in found)

    with case_of(recipe) as case:
        if case.coupled or recipe.ending == "squeezed" or case.own_error() is not None:
            return
    exactly(recipe, same)


@many
@given(recipes(), attacks)
def test_seeds_decide_the_mask(recipe, attack):
    found = masks_of(recipe, attack, fast=[True, True])
    assert found is None or torch.equal(found[0].robust, found[1].robust)


@many
@given(recipes(), steady, st.booleans())
def test_what_a_call_breaks_is_broken(recipe, attack, fast):
    """The last iterate is one of those that a search visits."""

    def same(recipe):
        with case_of(recipe) as case:
            x, y = case.images, case.labels
            adversarial = asked(case, lambda: attack(case.model, x, y, generator=seeded()))
            if isinstance(adversarial, Refused) or case.coupled:
                return True
            results = [
                asked(
                    case,
                    lambda e=early: robust_accuracy(
                        case.model, x, y, attack, fast=fast, early_exit=e, generator=seeded()
                    ),
                )
                for early in (True, False)
            ]
            if refusals(*results):
                return True
            early, last = results
            broken = case.wrong(adversarial) & last.clean
            return not (early.robust & broken).any() and torch.equal(
                last.robust, last.clean & ~broken
            )

    exactly(recipe, same)


@many
@given(recipes(), st.lists(attacks, min_size=1, max_size=3))
def test_a_cascade(recipe, several):
    allowed = ("loss dlr",)

    def same(recipe):
        with case_of(recipe) as case:
            x, y = case.images, case.labels
            fast, plain = (
                asked(
                    case,
                    lambda f=f: cascade(case.model, x, y, several, generator=seeded(), fast=f),
                    allowed=allowed,
                )
                for f in (True, False)
            )
            if refusals(fast, plain):
                return True
            clean = asked(case, lambda: correct(case.model, x, y))
            assert torch.equal(fast.broken_by == -1, ~clean) or case.random
            assert torch.equal(fast.robust, fast.broken_by == len(several))
            assert list(fast.accuracies) == sorted(fast.accuracies, reverse=True)
            return case.random or torch.equal(fast.broken_by, plain.broken_by)

    exactly(recipe, same)


@many
@given(recipes(), attacks, st.lists(lengths, min_size=1, max_size=4, unique=True))
def test_a_curve(recipe, attack, levels):
    def same(recipe):
        with case_of(recipe) as case:
            x, y = case.images, case.labels
            fast, plain = (
                asked(
                    case,
                    lambda f=f: accuracy_curve(
                        case.model, x, y, attack, levels, generator=seeded(), fast=f
                    ),
                    allowed=few_classes(attack),
                )
                for f in (True, False)
            )
            if refusals(fast, plain):
                return True
            assert fast.epsilons == tuple(sorted(levels))
            assert not (fast.robust[1:] & ~fast.robust[:-1]).any()
            return case.random or torch.equal(fast.robust, plain.robust)

    exactly(recipe, same)


@many
@given(recipes(), st.sampled_from([0.05, 0.3, 1.0]))
def test_the_smallest_sign_step(recipe, limit):
    tolerance = limit / 100

    def same(recipe):
        return smallest(
            recipe,
            lambda case, fast: minimal_fgsm(
                case.model, case.images, case.labels, limit=limit, tolerance=tolerance, fast=fast
            ),
            step=tolerance,
            norm=math.inf,
        )

    exactly(recipe, same)


@many
@given(
    recipes(),
    st.sampled_from(["cross-entropy", "margin"]),
    st.booleans(),
    st.sampled_from([0.5, 5.0]),
)
def test_the_smallest_step_along_the_gradient(recipe, mode, clip, length):
    def same(recipe):
        return smallest(
            recipe,
            lambda case, fast: gradient_line(
                case.model,
                case.images,
                case.labels,
                mode=mode,
                length=length,
                scalings=20,
                clip=clip,
                fast=fast,
            ),
            step=length / 19,
            norm=2,
        )

    exactly(recipe, same)


def smallest(recipe, search, *, step, norm):
    """Whether both searches find sizes within a ``step``, at which the model itself is wrong."""
    with case_of(recipe) as case:
        fast, plain = (asked(case, lambda f=f: search(case, f)) for f in (True, False))
        if refusals(fast, plain) or case.random:
            return True
        found = fast.size.isfinite()
        delta = (fast.images.double() - case.images.detach().double()).flatten(1)
        rounding = 2 * torch.finfo(case.images.dtype).eps
        assert (delta.norm(norm, dim=1)[found] <= fast.size[found] * (1 + 1e-5) + rounding * (
            1 if norm == math.inf else math.sqrt(delta.shape[1]))).all()  # fmt: skip
        assert (delta[~found] == 0).all()
        if case.coupled:
            return True
        if not torch.equal(found, plain.size.isfinite()):
            return False
        broken = case.wrong(fast.images)
        near = (fast.size - plain.size)[found].abs() <= 1.001 * step
        return bool(broken[found].all() and near.all())


@many
@given(recipes(), st.booleans(), st.booleans())
def test_noise_breaks_what_it_breaks(recipe, clip, count):
    def same(recipe):
        with case_of(recipe) as case:
            fast, plain = (
                asked(
                    case,
                    lambda f=f: stability.measure(
                        case.model,
                        case.images,
                        case.labels,
                        deltas=[1, 8],
                        draws=6,
                        scalings=12,
                        clip=clip,
                        count=count or not f,
                        fast=f,
                    ),
                )
                for f in (True, False)
            )
            if refusals(fast, plain) or case.random or case.coupled:
                return True
            counted = torch.equal(fast.hits, plain.hits) if count else fast.hits is None
            sizes = torch.equal(fast.size.nan_to_num(-1), plain.size.nan_to_num(-1))
            return sizes and counted and torch.equal(fast.hit, plain.hit)

    exactly(recipe, same)


@many
@given(recipes())
def test_right_is_right(recipe):
    with case_of(recipe) as case:
        right = asked(case, lambda: correct(case.model, case.images, case.labels))
        if not isinstance(right, Refused) and not case.random:
            assert torch.equal(right, ~case.wrong(case.images))


@many
@given(recipes(), lengths)
def test_suspicion_finds_no_fault_of_ours(recipe, epsilon):
    with case_of(recipe) as case:

        def call():
            return suspicion(
                case.model, case.images, case.labels, epsilon=epsilon, queries=5, draws=2,
                generator=seeded(),
            )  # fmt: skip

        first, again = (asked(case, call) for _ in range(2))
        if refusals(first, again):
            return
        assert [flag.name for flag in first] == list(FLAGS)
        flags = {flag.name: flag for flag in first}
        if case.random:
            return
        assert repr(first) == repr(again)
        assert not flags["randomized_model"].raised, flags["randomized_model"]
        if not case.coupled:
            assert not flags["invariant_violation"].raised, flags["invariant_violation"]


@many
@given(
    recipes(),
    st.sampled_from(["eval", "eval", "frozen", "batch"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["rel", "norm", "sign", "adam", "plain"]),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from(["fixed", "log-uniform", "uniform"]),
)
def test_the_susceptibility_ratio(recipe, batch_norm, float64, limit, step, steps, restarts, law):
    """Within 1 %, or said to be noise."""
    allowed = ("batch_norm", "batch norms", "float64", "more than 1 value")

    def same(recipe):
        with case_of(recipe) as case:
            settings = dict(
                batch_norm=batch_norm, float64=float64, limit=limit, step=step, steps=steps,
                restarts=restarts, law=law,
            )  # fmt: skip
            fast, again, plain = (
                asked(
                    case,
                    lambda f=f: susceptibility(
                        case.model, case.images, fast=f, generator=seeded(), **settings
                    ),
                    allowed=allowed,
                )
                for f in (True, True, False)
            )
            if refusals(fast, again, plain) or case.random:
                return True
            assert repr(fast) == repr(again)
            assert fast.psi.shape == fast.radii.shape == (3, recipe.n)
            doubtful = any(r.cancelled or r.nonfinite or r.underflows for r in (fast, plain))
            return doubtful or bool(((fast.psi / plain.psi).log().abs() <= 0.01).all())

    exactly(recipe, same)


@many
@given(
    recipes(),
    st.sampled_from(["eval", "frozen", "batch"]),
    st.sampled_from([1e-3, 1e-2, 0.1]),
    st.integers(0, 3),
)
def test_a_point_on_the_sphere_its_drift_and_radius(recipe, batch_norm, radius, steps):
    allowed = ("batch_norm", "more than 1 value")
    with case_of(recipe) as case:
        x = case.images
        moved = asked(
            case,
            lambda: sphere_attack(
                case.model, x, radius, batch_norm=batch_norm, steps=steps, generator=seeded()
            ),
            allowed=allowed,
        )
        if isinstance(moved, Refused):
            return
        assert moved.shape == x.shape
        assert moved.dtype == x.dtype
        length = (moved.double() - x.detach().double()).square().flatten(1).mean(1).sqrt()
        rounding = 2 * torch.finfo(x.dtype).eps
        assert ((length - radius).abs() <= 1e-5 * radius + rounding).all()
        found = asked(
            case,
            lambda: drift(case.model, x, moved, batch_norm=batch_norm),
            allowed=(*allowed, "TorchScript"),
        )
        if not isinstance(found, Refused):
            assert found.distance.shape == (len(found.states), recipe.n)
            assert torch.allclose(found.distance[0], length)
            if batch_norm == "eval" and not case.coupled:
                change = (case.answers(moved) - case.answers(x.detach())).flatten(1)
                assert torch.allclose(
                    found.distance[-1],
                    change.square().mean(1).sqrt(),
                    rtol=1e-3,
                    atol=1e-3 * float(case.answers(x.detach()).nan_to_num(0, 0, 0).abs().max()),
                    equal_nan=True,
                )
        estimate = asked(
            case,
            lambda: robustness_radius(case.model, x, 2.0, batch_norm=batch_norm),
            allowed=allowed,
        )
        if not isinstance(estimate, Refused) and batch_norm == "eval" and not case.random:
            top = case.answers(x.detach()).topk(2, dim=1).values
            expected = (top[:, 0] - top[:, 1]) / math.sqrt(2 * recipe.classes) / 2
            close = torch.allclose(
                estimate.radius, expected, atol=1e-3 * float(top.nan_to_num(0, 0, 0).abs().max()),
                equal_nan=True,
            )  # fmt: skip
            assert close


@many
@given(recipes(), st.sampled_from(["eval", "frozen"]), st.integers(1, 12))
def test_the_limit_of_the_ratio(recipe, batch_norm, rounds):
    """Against the Jacobian that torch gives; ``krylov`` is a lower bound."""
    with case_of(recipe) as case:
        auto, exact, krylov = (
            asked(
                case,
                lambda m=method: susceptibility_limit(
                    case.model, case.images, method=m, rounds=rounds, batch_norm=batch_norm,
                    generator=seeded(),
                ),
                allowed=("batch_norm", "batch norms", "krylov"),
            )
            for method in ("auto", "exact", "krylov")
        )  # fmt: skip
        if isinstance(exact, Refused) or case.random:
            return
        assert torch.equal(auto.nan_to_num(-1), exact.nan_to_num(-1))
        if not isinstance(krylov, Refused) and not case.coupled:
            slack = 1 + 100 * rounding(case)
            assert (krylov <= exact * slack + 1e-30)[exact.isfinite() & krylov.isfinite()].all()
        if batch_norm == "eval" and not case.coupled:
            expected = jacobian_limit(case)
            assert torch.allclose(
                exact, expected, rtol=max(1e-4, 20 * rounding(case)), atol=1e-30, equal_nan=True
            )


@many
@given(recipes(), norms)
def test_the_linear_response(recipe, norm):
    """Γ against the Jacobian that torch gives, where rounding and kinks leave it one."""

    def same(recipe):
        with case_of(recipe) as case:
            x, y = case.images, case.labels
            found, both, differences = (
                asked(case, call, allowed=("more than 1 value",))
                for call in (
                    lambda: linear_response(case.model, x, y, norm=norm),
                    lambda: compare(case.model, x, y, norm=norm, tolerance=0.01),
                    lambda: logit_differences(case.model, x),
                )
            )
            if refusals(found, both) or case.random or case.coupled:
                return True
            assert torch.equal(found.right, ~case.wrong(x))
            assert torch.equal(both.measured.isnan(), ~found.right)
            broke = both.successful
            assert (both.measured[broke] <= both.limit).all()
            ours = found.differences[found.right]
            assert not isinstance(differences, Refused)  # which asks for less
            assert torch.allclose(
                ours, differences[found.right], rtol=1e-3, atol=1e-3 * size_of(case), equal_nan=True
            )
            if rounding(case) > 1e-6:
                return True
            return all(gamma_fits(case, i, found.gamma[i], norm) for i in found.right.nonzero())

    exactly(recipe, same)


def size_of(case):
    """Return the largest logit of a case."""
    return float(case.answers(case.images.detach()).nan_to_num(0, 0, 0).abs().max())


def gamma_fits(case, i, gamma, norm):
    """Whether Γ is J u for the u of torch's own Jacobian; a u of rounding errors has no signs."""
    x, label = case.images.detach()[i], case.labels[i]
    with torch.inference_mode(False), torch.enable_grad(), full_float32():
        x = x.clone()
        matrix = torch.autograd.functional.jacobian(lambda v: case.twin(v.clone()).flatten(), x)
        matrix = matrix.reshape(len(matrix), -1).double()
        logits = case.twin(x.clone()).detach().double().requires_grad_()
        loss = margin_loss(logits / temperatures(logits), label.long().clone()).sum()
        delta = torch.autograd.grad(loss, logits)[0][0]
    pulled = matrix.T @ delta
    scale = (matrix.abs().T @ delta.abs()).max()
    faint = (pulled != 0) & (pulled.abs() <= 1e-5 * scale) if norm == "linf" else pulled[:0] > 0
    if not matrix.isfinite().all() or faint.any() or pulled.norm() <= 1e-4 * scale:
        return True
    u = pulled.sign() if norm == "linf" else pulled / pulled.norm()
    expected = (matrix @ u)[logits.detach()[0].argsort(descending=True, stable=True)]
    reach = (matrix.abs() @ u.abs()).max()
    return bool(((gamma - expected).abs().sort().values <= 1e-3 * reach).all())


def rounding(case):
    """Return the relative rounding error of the coarsest precision in a model, float32 at best."""
    kinds = {case.recipe.dtype, case.recipe.forward, case.recipe.ending}
    return 2**-7 if kinds & {"float16", "bfloat16", "autocast", "half"} else 2**-23


def jacobian_limit(case):
    """Return sigma_max(J) sqrt(N/M) of each image, by torch's own Jacobian and norm.

    In full float32, whatever the caller's setting: ``medium`` multiplies in bfloat16.
    """
    found = []
    for x in case.images.detach().split(1):
        with torch.inference_mode(False), torch.enable_grad(), full_float32():
            jacobian = torch.autograd.functional.jacobian(
                lambda v: case.twin(v.clone()).flatten(), x.clone()
            )
        pixels, outputs = x.numel(), len(jacobian)
        matrix = jacobian.reshape(outputs, pixels).double()
        if not matrix.isfinite().all():
            found.append(math.nan)
        else:
            largest = torch.linalg.matrix_norm(matrix, 2).item()
            found.append(largest * math.sqrt(pixels / outputs))
    return torch.tensor(found, dtype=torch.float64)
