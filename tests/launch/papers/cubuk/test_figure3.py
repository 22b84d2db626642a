"""Figure 3 of Cubuk et al.: predicted and measured epsilons, where both are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import search_here
from scipy import stats

from launch.papers.cubuk.figure3 import (
    agreement_lines,
    decile_lines,
    decile_medians,
    figure_3,
    logits_along,
)
from launch.papers.cubuk.nets import nets
from launch.runs.run import Run
from launch.show.reporter import Reporter

LIMIT = 120
DOCUMENT = {
    "name": "response",
    "data": {"name": "digits", "limit": {"train": 300, "validation": 40}},
    "space": {"name": "feedforward", "kinds": ["dense"], "hidden_layers": [0, 1], "units": [30]},
    "recipe": {"epochs": 4, "batch_size": 32, "adversary": "none", "selection_images": 0},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
    "keep": {"top": 9},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(search_here(tmp_path_factory.mktemp("response") / "run", DOCUMENT))


@pytest.fixture(scope="module")
def view(run):
    return figure_3([run], Reporter(), limit=LIMIT)


@pytest.fixture(scope="module")
def linear(run):
    """Return the linear net, its images and labels, and its slopes ``(10, 64)``."""
    (net,) = [net for net in nets(run) if net.name == "linear"]
    split, model = net.images("test"), net.model()
    x, y = split.images(slice(LIMIT)), split.labels[:LIMIT]
    slopes = torch.autograd.functional.jacobian(model, x[:1])[0, :, 0].flatten(1).detach()
    return net, x, y, model(x).detach().double(), slopes.double()


def directions(logits, y, slopes, norm):
    """Return ``(N, 64)``: along the gradient of the loss, softmax of the others less the label."""
    others = logits.scatter(1, y[:, None], -torch.inf).softmax(1)
    gradient = (others - torch.nn.functional.one_hot(y, 10)) @ slopes
    return gradient.sign() if norm == "linf" else gradient / gradient.norm(dim=1, keepdim=True)


def planted(**more):
    """Return 40 broken images, two that do not break and one that is wrong."""
    measured = np.concatenate([np.arange(1, 41) / 10, [np.inf, np.inf, np.nan]])
    ratio = np.concatenate([np.repeat(np.arange(10) / 10 + 0.5, 4), [1, 1, 1]])
    ranks = np.array([2] * 3 + [3] + [2] * 18 + [4] * 18 + [0] * 3)
    own = {"number": 0, "net": "a net", "training": "plain", "norm": "l2", **more}
    return pd.DataFrame(
        {
            **{name: [value] * 43 for name, value in own.items()},
            "measured": measured,
            "predicted": ratio * measured,
            "mean_field": 2 * measured,
            "predicted_rank": [2] * 40 + [0] * 3,
            "first_rank": ranks,
        }
    ).sample(frac=1, random_state=0)


def test_the_table_in_numbers():
    lines = agreement_lines(planted())
    row = {k: v for k, v in zip(lines[0].split("  "), lines[1].split("  "), strict=False) if k}
    assert row["net"] == "a net, plain"
    cells = [cell.strip() for cell in lines[1].split("  ") if cell.strip()]
    broken = planted().query("measured < 100")
    spearman = stats.spearmanr(broken["predicted"], broken["measured"]).statistic
    assert cells[2:] == [
        "linear response", "0.500", "0.500", "0.950", f"{spearman:.3f}", "52.5 %", "75.0 %",
        "52.5 %", "40 of 42",
    ]  # fmt: skip
    assert lines[2].split()[-4:] == ["2.000", "2.000", "2.000", "1.000"]


def test_tenths_are_of_the_measured_epsilon():
    assert decile_medians(planted(), "predicted") == pytest.approx(np.arange(10) / 10 + 0.5)
    lines = decile_lines(pd.concat([planted(), planted(norm="linf", number=0)]))
    assert lines[1].split()[-10:] == [f"{v:.3f}" for v in np.arange(10) / 10 + 0.5]
    assert [line.split(",")[1].strip() for line in lines[1:]] == ["L2"] * 2 + ["L infinity"] * 2


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_of_a_linear_net_all_is_known(view, linear, norm):
    net, _, y, logits, slopes = linear
    table = view.table[(view.table["net"] == "linear") & (view.table["norm"] == norm)]
    assert table["image"].tolist() == list(range(LIMIT))
    right = logits.argmax(1) == y
    response = directions(logits, y, slopes, norm) @ slopes.T
    order = logits.argsort(dim=1, descending=True)
    h, gamma = logits.gather(1, order), response.gather(1, order)
    gaps, closing = h[:, :1] - h[:, 1:], gamma[:, 1:] - gamma[:, :1]
    crossing = torch.where(closing > 0, gaps / closing, torch.inf)
    epsilon, first = crossing.min(dim=1)
    assert right.sum() > 90
    assert table["measured"].isna().tolist() == (~right).tolist()
    of_right = table[right.numpy()]
    assert of_right["predicted"].to_numpy() == pytest.approx(epsilon[right].numpy(), rel=1e-3)
    limit = 50 / 255 * (8 if norm == "l2" else 1)
    reached = (epsilon < limit).numpy()[right.numpy()]
    expected = np.where(reached, epsilon[right].numpy(), np.inf)
    assert of_right["measured"].to_numpy() == pytest.approx(expected, rel=1e-3)
    assert of_right["predicted_rank"].tolist() == (first[right] + 2).tolist()
    ranks = np.where(reached, (first[right] + 2).numpy(), 0)
    assert (of_right["first_rank"].to_numpy() == ranks).mean() > 0.98  # but of ties
    mean = gamma[right].mean(dim=0)
    field = gaps[right, 0] / (mean[1] - mean[0])
    assert of_right["mean_field"].to_numpy() == pytest.approx(field.numpy(), rel=1e-3)
    heads = [line for line in view.lines if line.startswith("linear, plain")]
    told = heads[0 if norm == "l2" else 2].split("linear response")[1].split()
    assert told[:4] == ["1.000"] * 4
    assert told[4] == f"{100 * (ranks[ranks > 0] == 2).mean():.1f}"
    assert told[-3:] == [str(reached.sum()), "of", str(int(right.sum()))]


def test_a_line_through_the_logits_of_a_linear_net_is_exact(view, linear):
    net, x, y, logits, slopes = linear
    line = logits_along(net, view.table, LIMIT)
    own = view.table[(view.table["net"] == "linear") & (view.table["norm"] == "l2")]
    broken = own[np.isfinite(own["measured"])]
    assert line.measured == sorted(broken["measured"])[len(broken) // 2]
    assert line.epsilons[-1] == pytest.approx(1.5 * line.measured)
    assert line.logits == pytest.approx(line.linear, abs=2e-3)
    assert line.logits[0] == pytest.approx(np.sort(logits[line.image].numpy())[::-1], abs=1e-4)
    direction = directions(logits, y, slopes, "l2")[line.image].view(1, 1, 8, 8)
    end = net.model()((x[line.image] + line.epsilons[-1] * direction).float())
    assert np.sort(line.logits[-1]) == pytest.approx(np.sort(end.detach().numpy()[0]), abs=1e-3)


def test_the_drawn_image_is_the_last_nets(view, run):
    last = nets(run)[-1]
    (told,) = [line for line in view.lines if line.startswith("Logits are drawn")]
    line = logits_along(last, view.table, LIMIT)
    assert f"image {line.image} of {last.title}" in told
    assert f"measured {line.measured:.4g}" in told
    drawn = view.figure.axes[0].get_lines()
    assert drawn[0].get_ydata() == pytest.approx(line.logits[:, 0])
    assert drawn[1].get_ydata() == pytest.approx(line.logits[0, 0] + line.epsilons * line.gamma[0])
    marks = [mark.get_xdata()[0] for mark in drawn[20:]]
    assert marks == [line.predicted, line.measured]


def test_dots_are_the_rows_in_l2(view):
    for axes, name in zip(view.figure.axes[1:], ("predicted", "mean_field"), strict=True):
        for dots, net in zip(axes.get_lines(), ("linear", "dense 30"), strict=False):
            rows = view.table[(view.table["net"] == net) & (view.table["norm"] == "l2")]
            rows = rows[np.isfinite(rows["measured"])]
            assert sorted(dots.get_xdata()) == sorted(rows["measured"])
            assert sorted(dots.get_ydata()) == sorted(rows[name])


def test_what_was_measured_is_not_measured_again(view, run, monkeypatch):
    monkeypatch.setattr("launch.papers.cubuk.figure3.compare", None)
    monkeypatch.setattr("launch.papers.cubuk.figure3.respond", None)
    assert figure_3([run], Reporter(), limit=LIMIT).table.equals(view.table)
    assert math.isinf(view.table["measured"].max()) or view.table["measured"].notna().any()
