"""The laws of random logits against closed forms, scipy, numerical integrals and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from public import seeded
from scipy import integrate, stats

from metrics.universality import LAWS, RandomLogits, random_logits

every_law = pytest.mark.parametrize("law", LAWS)
AT = torch.tensor([1e-9, 1e-4, 0.01, 0.049, 0.051, 0.3, 0.75, 1.0, 2.5, 6.0]).double()


def tensor(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


@pytest.mark.parametrize(("n", "j"), [(2, 2), (10, 2), (10, 3), (10, 10), (100, 2), (1000, 500)])
def test_uniform_logits_differ_by_a_beta_law(n, j):
    law, beta = RandomLogits(n, "uniform"), stats.beta(j - 1, n - j + 2)
    at = torch.cat([torch.linspace(0, 1, 41), torch.tensor([1e-6, 1 - 1e-6, 1.5])]).double()
    assert torch.allclose(law.density(j, at), tensor(beta.pdf(at)), rtol=1e-9, atol=1e-250)
    assert torch.allclose(law.cumulative(j, at), tensor(beta.cdf(at)), rtol=1e-9, atol=1e-250)


def test_two_logits_have_closed_forms():
    uniform, normal, exponential = (RandomLogits(2, law) for law in LAWS)
    assert torch.allclose(uniform.density(2, AT), (2 * (1 - AT)).clamp_min(0), rtol=1e-12)
    half = stats.halfnorm(scale=math.sqrt(2))  # of the difference of two normal numbers
    assert torch.allclose(normal.density(2, AT), tensor(half.pdf(AT)), rtol=1e-10)
    assert torch.allclose(normal.cumulative(2, AT), tensor(half.cdf(AT)), rtol=1e-10)
    assert torch.allclose(exponential.density(2, AT), (-AT).exp(), rtol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 50])
def test_the_lead_of_exponential_logits_is_exponential(n):
    """Their spacings are independent, of rates 1, 2, ...: the first is that of the top two."""
    assert torch.allclose(RandomLogits(n, "exponential").density(2, AT), (-AT).exp(), rtol=1e-12)


def test_exponential_logits_differ_by_a_sum_of_exponentials():
    rates = torch.tensor([1.0, 2.0, 3.0]).double()  # up to the fourth of any number of logits
    weights = [math.prod(b / (b - a) for b in rates if b != a) for a in rates]
    density = sum(w * a * (-a * AT).exp() for w, a in zip(weights, rates, strict=True))
    law = RandomLogits(9, "exponential")
    assert torch.allclose(law.density(4, AT), density, rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize(("n", "j"), [(3, 2), (10, 2), (10, 6), (10, 10), (1000, 2), (1000, 900)])
def test_normal_logits_differ_as_an_integral_says(n, j):
    """The joint density of two order statistics, integrated by scipy."""
    law, normal = RandomLogits(n, "normal"), stats.norm
    factor = math.lgamma(n + 1) - math.lgamma(j - 1) - math.lgamma(n - j + 1)
    mode = normal.ppf(1 - (j - 0.5) / n)

    def joint(z, d):
        between = normal.cdf(z + d) - normal.cdf(z)
        log = factor + (j - 2) * math.log(between) + (n - j) * normal.logcdf(z)
        return math.exp(log + normal.logpdf(z) + normal.logpdf(z + d)) if between > 0 else 0.0

    for d in (0.04, 0.3, 2.0):
        ends = {"limit": 400, "points": [mode - 1, mode, mode + 1], "epsabs": 0}
        expected = integrate.quad(joint, mode - 4, mode + 4, args=(d,), **ends)[0]
        assert law.density(j, d).item() == pytest.approx(expected, rel=1e-6, abs=1e-200)


@every_law
@pytest.mark.parametrize(("n", "j"), [(2, 2), (10, 2), (10, 5), (10, 10), (100, 30)])
def test_the_density_is_the_slope_of_the_distribution_and_holds_all(law, n, j):
    given = RandomLogits(n, law)
    points, weights = (tensor(v) for v in np.polynomial.legendre.leggauss(30))
    edges = torch.cat([torch.linspace(0, 1, 11), torch.linspace(1, 16, 31)[1:]]).double()
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    mass = given.density(j, middle[:, None] + half[:, None] * points) @ weights * half
    assert torch.allclose(mass, given.cumulative(j, edges).diff(), rtol=1e-7, atol=1e-13)
    assert given.cumulative(j, 40.0).item() == pytest.approx(1, abs=1e-10)


@every_law
@pytest.mark.parametrize(("n", "j"), [(2, 2), (10, 2), (10, 3), (10, 10)])
def test_small_differences_grow_like_a_power(law, n, j):
    given = RandomLogits(n, law)
    small = torch.tensor([1e-7, 1e-5]).double()
    power = small ** (j - 2)
    assert torch.allclose(given.density(j, small), given.slope(j) * power, rtol=1e-3)
    whole = given.slope(j) * small ** (j - 1) / (j - 1)
    assert torch.allclose(given.cumulative(j, small), whole, rtol=1e-3)


def test_slopes_have_closed_forms():
    """Of uniform logits N!/((j-2)!(N-j+1)!), of exponential ones j-1, of normal ones if j = N."""
    assert RandomLogits(10).slope(2) == pytest.approx(10)
    assert RandomLogits(10).slope(4) == pytest.approx(10 * 9 * 8 / 2)
    assert RandomLogits(10, "exponential").slope(4) == pytest.approx(3)
    expected = 90 * (2 * math.pi) ** -5 * math.sqrt(2 * math.pi / 10)  # 10 * 9 ∫ f^10
    assert RandomLogits(10, "normal").slope(10) == pytest.approx(expected, rel=1e-10)


@every_law
@pytest.mark.parametrize("n", [2, 10])
def test_draws_have_the_law(law, n):
    given = RandomLogits(n, law)
    drawn = given.sample(4000, seeded(1))
    for j in {2, 3, n} - {3 if n == 2 else 0}:
        found = stats.kstest(
            drawn[:, j - 2].numpy(), lambda d, j=j: given.cumulative(j, tensor(d)).numpy()
        )
        assert found.pvalue > 0.01, (j, found)


@every_law
def test_the_law_is_that_of_logits_that_numpy_draws(law):
    rng = np.random.default_rng(5)
    logits = np.sort({"uniform": rng.random, "normal": rng.standard_normal,
                      "exponential": rng.standard_exponential}[law]((4000, 6)))  # fmt: skip
    given = RandomLogits(6, law)
    for j in (2, 4, 6):
        delta = logits[:, -1] - logits[:, -j]
        found = stats.kstest(delta, lambda d, j=j: given.cumulative(j, tensor(d)).numpy())
        assert found.pvalue > 0.01, (j, found)


@every_law
def test_draws_are_ascending_seeded_and_go_on_over_chunks(law, monkeypatch):
    monkeypatch.setattr(random_logits, "CHUNK", 300)
    given, count = RandomLogits(3, law), 1050  # ten chunks and a half
    drawn = given.sample(count, seeded(3))
    assert drawn.shape == (count, 2)
    assert drawn.dtype == torch.float64
    assert (drawn[:, 0] <= drawn[:, 1]).all()
    assert (drawn >= 0).all()
    assert torch.equal(drawn, given.sample(count, seeded(3)))
    assert not torch.equal(drawn, given.sample(count, seeded(4)))
    assert len(drawn[:, 0].unique()) == count
    assert given.sample(0).shape == (0, 2)


@every_law
def test_outside_there_is_nothing(law):
    given = RandomLogits(5, law)
    at = torch.tensor([[-1.0, math.inf], [math.nan, 1e9]])
    for j in (2, 5):
        assert given.density(j, at).nan_to_num(-1).tolist() == [[0, 0], [-1, 0]]
        below = given.cumulative(j, at).nan_to_num(-1)
        assert torch.allclose(below, torch.tensor([[0.0, 1], [-1, 1]]).double(), atol=1e-10)
        assert given.cumulative(j, 0.0).item() == 0
    assert given.density(2, 0.0).item() == pytest.approx(given.slope(2))
    assert given.density(3, 0.0).item() == 0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: RandomLogits(1), "classes: expected >= 2, got 1"),
        (lambda: RandomLogits(2.5), "classes: expected an integer, got 2.5"),
        (lambda: RandomLogits(3, "cauchy"), "law: expected one of .*normal.*, got 'cauchy'"),
        (lambda: RandomLogits(3).density(1, 0.1), r"j: expected a rank 2 \.\.\. 3, got 1"),
        (lambda: RandomLogits(3).cumulative(4, 0.1), r"j: expected a rank 2 \.\.\. 3, got 4"),
        (lambda: RandomLogits(3).slope(2.0), "j: expected an integer"),
        (lambda: RandomLogits(3).sample(-1), "count: expected >= 0, got -1"),
        (lambda: RandomLogits(3).sample(2, 0), "generator: expected a torch.Generator"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
