"""Measured epsilons against closed forms and fine grids; their summaries against scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from public import images, net, seeded, top
from scipy import stats
from torch import nn

from metrics import gradient_line, minimal_fgsm
from metrics.universality import Agreement, LinearResponse, compare, linear_response

every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


def linear(classes, kind, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).to(kind)


@every_norm
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-4)])
def test_a_linear_model_responds_linearly(norm, classes, kind, tolerance):
    """On every image: to 1e-7 in float64, which is ITP's; float32 rounds logits that lead little.

    The other half of the line's first crossing is the formula by loops.
    """
    model = linear(classes, kind)
    x = torch.rand(100, 1, 8, 8, dtype=torch.float64, generator=seeded()).to(kind)
    y = top(model, x)
    found = compare(model, x, y, norm=norm, limit=1.0, tolerance=1e-8)
    attacked = found.successful
    assert attacked.sum() > 60
    assert ((found.ratio - 1).abs()[attacked] < tolerance).all()
    assert (found.predicted[~attacked] > 1).all()
    assert torch.equal(found.response.gamma, linear_response(model, x, y, norm=norm).gamma)
    assert found.foreseen() > 0.97  # two may cross within the tolerance
    assert found.lowest_decile == pytest.approx(1, abs=tolerance)
    assert found.rank_correlation > 0.999


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
@every_norm
def test_small_epsilons_are_as_accurate(size, norm):
    """Images a hair before the boundary of a plane in float64."""
    model = linear(2, torch.float64)
    w = (model[1].weight[0] - model[1].weight[1]).detach()
    b = (model[1].bias[0] - model[1].bias[1]).detach()
    x = torch.rand(20, 1, 8, 8, dtype=torch.float64, generator=seeded()) * 0.5 + 0.25
    lead = x.flatten(1) @ w + b
    exact = size * torch.linspace(1, 2, 20).double()
    x = x + ((exact * w.norm() - lead) / w.norm() ** 2)[:, None].mul(w).view_as(x)
    expected = exact * w.norm() / w.norm(1) if norm == "linf" else exact
    found = compare(model, x, torch.zeros(20, dtype=torch.long), norm=norm)
    assert torch.allclose(found.measured, expected, rtol=max(2e-5, 1e-15 / size))


def grid_of(model, x, y, direction, limit, points):
    """Return the first of a grid of epsilons that changes each answer, and the class there."""
    sizes = torch.linspace(0, limit, points).double()
    first, label = [], []
    for image, u, own in zip(x, direction, y, strict=True):
        line = (image.double() + sizes.view(-1, 1, 1, 1) * u.double()).to(x.dtype)
        with torch.no_grad():
            answers = model(line).argmax(dim=1)
        wrong = (answers != own).nonzero().flatten()
        first.append(sizes[wrong[0]].item() if len(wrong) else math.inf)
        label.append(answers[wrong[0]].item() if len(wrong) else -1)
    return torch.tensor(first).double(), torch.tensor(label)


@every_norm
def test_the_first_crossing_is_that_of_a_fine_grid(norm, digits_net, digits):
    x, y = digits.validation.images()[:80], digits.validation.labels[:80]
    model = digits_net.eval()
    limit = 2.0 if norm == "l2" else 0.25
    found = compare(model, x, y, norm=norm, limit=limit)
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(leaf).double(), y, reduction="sum")
    gradient = torch.autograd.grad(loss, leaf)[0]
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    direction = gradient.sign() if norm == "linf" else gradient / length
    first, label = grid_of(model, x, y, direction, limit, 1001)
    right = top(model, x) == y
    assert torch.equal(found.response.right, right)
    assert found.measured[~right].isnan().all()
    assert found.successful.sum() > 20
    assert torch.equal(found.successful, right & first.isfinite())
    apart = (first - found.measured)[found.successful]
    assert (apart > -1e-3 * limit).all()
    assert (apart < 2e-3 * limit).all()
    with torch.no_grad():
        order = model(x).argsort(dim=1, descending=True)
    place = (order == label[:, None]).int().argmax(dim=1) + 1
    agree = (place == found.first_rank)[found.successful].double().mean()
    assert agree > 0.9  # two classes may cross within a step of the grid
    assert (found.first_rank[~found.successful] == 0).all()


@every_norm
def test_it_is_the_line_of_the_searches_in_robustness(norm, digits_net, digits):
    """Within a step of theirs; they may have found a later crossing, never an earlier one."""
    x, y = digits.validation.images()[:80], digits.validation.labels[:80]
    found = compare(digits_net, x, y, norm=norm, clip=norm == "linf")
    if norm == "linf":
        other, step = minimal_fgsm(digits_net, x, y, tolerance=1e-5, limit=50 / 255).size, 1e-5
    else:
        other, step = gradient_line(digits_net, x, y, length=found.limit).size, found.limit / 255
    both = found.successful & (other > 0) & other.isfinite()
    assert both.sum() > 20
    assert (found.measured[both] <= other[both] + 1e-5).all()
    assert (found.measured[both] >= other[both] - 1.01 * step).double().mean() > 0.95


class Profile(nn.Module):
    """Two classes, whose margin is a function of the first pixel's distance from 0.5."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def forward(self, x):
        lead = self.margin(x.flatten(1)[:, 0] - 0.5)
        return torch.stack([lead, torch.zeros_like(lead)], dim=1)


CENTRE = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
FIRST = torch.tensor([0])


def test_a_later_crossing_is_not_taken_for_the_first():
    """A margin that is lost from 0.1 to 0.13, and again from 0.2 on; its slope points to 0.2."""

    def dented(s):
        return (0.2 - s) * torch.where((s > 0.1) & (s < 0.13), -1.0, 1.0)

    found = compare(Profile(dented), CENTRE, FIRST, limit=0.4)
    assert found.predicted.item() == pytest.approx(0.2)
    assert found.measured.item() == pytest.approx(0.1, rel=2e-5)


@pytest.mark.parametrize(("rate", "where"), [(400.0, 0.001), (0.02, 0.09)])
def test_predictions_that_are_far_off(rate, where):
    """A boundary far before and far behind the one that the slope points to."""

    def bent(s):
        return 0.1 - s.clamp_max(where) - rate * (s - where).clamp_min(0)

    found = compare(Profile(bent), CENTRE, FIRST, limit=0.7)
    assert found.predicted.item() == pytest.approx(0.1)
    sizes = torch.linspace(0, 0.7, 70_001).double()
    first = sizes[(bent(sizes) < 0).nonzero()[0]].item()
    assert found.measured.item() == pytest.approx(first, abs=2e-5)


def test_a_tie_breaks_at_once():
    model = Profile(lambda s: -s)
    found = compare(model, CENTRE, FIRST, limit=0.25)
    assert found.response.right.all()
    assert found.predicted.item() == 0
    assert 0 < found.measured.item() < 1e-9
    assert found.first_rank.item() == 2


def test_clipping_keeps_to_the_box():
    """Bright pixels go no further: the step that crosses is a longer one."""
    model = linear(2, torch.float64)
    w = (model[1].weight[0] - model[1].weight[1]).detach()
    x = torch.rand(60, 1, 8, 8, dtype=torch.float64, generator=seeded())
    y = top(model, x)
    free, boxed = (compare(model, x, y, norm="linf", limit=1.0, clip=c) for c in (False, True))
    assert (boxed.measured >= free.measured * (1 - 1e-4)).all()
    lead = (x.flatten(1) @ w + (model[1].bias[0] - model[1].bias[1])).abs().detach()
    side = torch.where(y == 0, -1.0, 1.0)
    for i in boxed.successful.nonzero().flatten().tolist():
        step = (boxed.measured[i] * w.sign() * side[i]).view_as(x[i])
        gained = (((x[i] + step).clamp(0, 1) - x[i]).flatten() @ w).abs().item()
        assert gained == pytest.approx(lead[i].item(), rel=1e-3)
    assert boxed.successful.sum() > 30


class Loud(nn.Module):
    """Right about the middle, and no number further out."""

    def forward(self, x):
        s = x.flatten(1)[:, 0] - 0.5
        return torch.stack([1 - s, s], dim=1).masked_fill((s > 0.1)[:, None], math.nan)


def test_logits_that_are_no_numbers_are_a_changed_answer():
    found = compare(Loud(), CENTRE, FIRST)
    assert found.measured.item() == pytest.approx(0.1, rel=2e-5)
    assert found.first_rank.item() == 0
    assert found.runner_up_first() == 0


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([[1.0, 0.0, 0.5]]).expand(len(x), 3) + 0 * x.flatten(1)[:, :1]


def test_of_nothing_every_summary_is_nan():
    x = images(4)
    for y in (torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)):
        found = compare(Constant(), x, y)
        assert not found.successful.any()
        summaries = (found.lowest_decile, found.median_ratio(), found.rank_correlation,
                     found.runner_up_first(), found.foreseen())  # fmt: skip
        assert all(math.isnan(v) for v in summaries)
    assert found.measured.isnan().all()


@every_norm
def test_batches_play_no_part(norm):
    model, x = net(), images(9)
    y = top(model, x)
    whole = compare(model, x, y, norm=norm, limit=1.0)
    assert whole.successful.any()
    for size in (1, 4):
        part = compare(model, x, y, norm=norm, limit=1.0, batch_size=size)
        assert torch.allclose(part.measured, whole.measured, rtol=1e-3)
        assert torch.equal(part.first_rank, whole.first_rank)


def of(predicted, measured, ranks):
    """Return an agreement of these numbers: two classes, Γ of 0 and 1."""
    n = len(predicted)
    gamma = torch.tensor([[0.0, 1.0]]).double().expand(n, 2)
    differences = torch.tensor(predicted, dtype=torch.float64)[:, None]
    right = ~torch.tensor(measured).isnan()
    response = LinearResponse(right, differences, gamma, "l2")
    return Agreement(
        response, torch.tensor(measured, dtype=torch.float64), torch.tensor(ranks), 1.0
    )


def test_summaries_are_what_they_say():
    generator = seeded(4)
    measured = torch.rand(57, generator=generator, dtype=torch.float64)
    predicted = measured * (1 + 0.3 * torch.randn(57, generator=generator, dtype=torch.float64))
    predicted = (predicted.abs() * 20).round() / 20  # with ties
    ranks = torch.randint(2, 4, (57,), generator=generator)
    lost = [math.nan, math.inf, math.inf]
    found = of(
        [*predicted.tolist(), 1.0, 2.0, math.inf], [*measured.tolist(), *lost], [*ranks, 0, 0, 0]
    )
    expected = stats.spearmanr(predicted, measured).statistic
    assert found.rank_correlation == pytest.approx(expected)
    ratio = (predicted / measured)[measured.argsort()]
    for share, count in ((1.0, 57), (0.1, 6), (0.5, 29)):
        assert torch.equal(found.lowest(share), measured.argsort()[:count])
        assert found.median_ratio(share) == ratio[:count].median().item()
    assert found.lowest_decile == found.median_ratio(0.1)
    assert found.runner_up_first() == pytest.approx((ranks == 2).double().mean().item())
    least = ranks[measured.argsort()[:6]] == 2
    assert found.runner_up_first(0.1) == pytest.approx(least.double().mean().item())
    assert found.foreseen() == found.runner_up_first()  # of two classes the second is foreseen()


def test_an_infinite_prediction_is_the_last_rank():
    found = of([0.1, math.inf, 0.3, 0.2], [0.1, 0.4, 0.3, 0.2], [2, 2, 2, 2])
    assert found.rank_correlation == pytest.approx(1)
    assert found.median_ratio() == 1
    assert found.foreseen() == 0.75
    one = of([0.1], [0.2], [2])
    assert math.isnan(one.rank_correlation)
    assert one.lowest_decile == 0.5


def test_the_limit_is_inclusive_and_by_norm():
    model, x = net(), images(3)
    y = top(model, x)
    assert compare(model, x, y, norm="linf").limit == 50 / 255
    assert compare(model, x, y).limit == pytest.approx(50 / 255 * math.sqrt(108))
    straight = Profile(lambda s: 0.25 - s)
    for limit, expected in ((0.2499, math.inf), (0.2501, 0.25)):
        found = compare(straight, CENTRE, FIRST, limit=limit)
        assert found.measured.item() == pytest.approx(expected, rel=1e-4)
        assert replace(found, limit=1.0).successful.item() == (limit > 0.25)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"norm": "l1"}, "norm: expected one of"),
        ({"limit": 0}, "limit: expected a pixel distance > 0, got 0"),
        ({"limit": 2, "norm": "linf"}, "limit"),
        ({"limit": math.nan}, "limit"),
        ({"tolerance": 0}, "tolerance: expected a part"),
        ({"tolerance": 1}, "tolerance: expected a part"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        compare(net(), images(), torch.zeros(6, dtype=torch.long), **settings)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, math.nan])
def test_a_share_is_a_part(share):
    with pytest.raises(ValueError, match="share: expected a part"):
        of([0.1], [0.2], [2]).median_ratio(share)
