"""Figures 4, 6 and 13 of Cubuk et al.: densities of logit differences and their tails."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import search_here
from scipy import stats

from launch.papers.cubuk.densities import BINS, Tail, tail_lines
from launch.papers.cubuk.figure4 import RANDOM, exact_density, figure_4, law_lines, random_tails
from launch.papers.cubuk.figure6 import figure_6
from launch.papers.cubuk.figure13 import figure_13
from launch.papers.cubuk.nets import nets
from launch.runs.run import Run
from launch.show.reporter import Reporter
from metrics.universality import RandomLogits
from nas.errors import InputError

DOCUMENT = {
    "name": "tails",
    "data": {"name": "digits", "limit": {"train": 300, "validation": 40, "test": 300}},
    "space": {"name": "depth-channels", "depth": [1], "channels": [4, 6], "stem": "small"},
    "recipe": {"epochs": 2, "batch_size": 32, "adversary": "none", "selection_images": 0},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
    "keep": {"top": 9},
}
LAMBDAS = [
    {"adversary": "none", "entropy_weight": 0},
    {"adversary": "none", "entropy_weight": 4.5},
    {"adversary": "step-ll", "entropy_weight": 4.5},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(search_here(tmp_path_factory.mktemp("tails") / "run", DOCUMENT))


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    document = {**DOCUMENT, "vary": {"recipe": LAMBDAS}}
    return Run(search_here(tmp_path_factory.mktemp("varied") / "run", document))


@pytest.fixture(scope="module")
def view(run):
    return figure_4([run], Reporter(), draws=20_000)


def planted(exponent, count=4000):
    """Return the quantiles of P(x) = x^exponent on [0, 1]."""
    return ((np.arange(count) + 0.5) / count) ** (1 / exponent)


def by_hand(net, part, rank):
    images, model = net.images(part), net.model()
    logits = model(images.images(slice(None))).detach().double()
    top = logits.topk(rank, dim=1).values
    return (top[:, 0] - top[:, rank - 1]).numpy()


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_the_straight_line_is_the_most_likely_power_law(exponent):
    tail = Tail("a net", "plain", "test", exponent + 1, planted(exponent))
    small = 0.25 * 0.5 ** (1 / exponent)
    assert tail.small == pytest.approx(small, rel=1e-3)
    below = tail.values[tail.values < tail.small]
    whole, _, _ = stats.powerlaw.fit(below / tail.small, floc=0, fscale=1)
    value, low, high = tail.straight
    assert value == pytest.approx(whole - 1, abs=1e-4)
    assert value == pytest.approx(exponent - 1, abs=0.1)
    half = stats.norm.ppf(0.975) * whole / math.sqrt(len(below))
    assert (low, high) == pytest.approx((value - half, value + half), abs=1e-4)
    at, density = tail.line
    assert density == pytest.approx(exponent * at ** (exponent - 1), rel=0.15)
    bent, low, high = tail.exponent
    assert low < exponent - 1 < high
    assert bent == pytest.approx(exponent - 1, abs=0.1)


def test_the_density_of_a_bin_is_its_share_over_its_width():
    tail = Tail("a net", "plain", "test", 3, np.append(planted(2), [0.0, np.inf]))
    edges, counts = tail.bins
    assert len(counts) == BINS
    assert np.diff(np.log(edges)) == pytest.approx(np.log(edges[1] / edges[0]))
    for i in (5, 20, 39):
        inside = ((tail.values >= edges[i]) & (tail.values < edges[i + 1])).sum()
        assert tail.density[i] == pytest.approx(inside / 4002 / (edges[i + 1] - edges[i]))
    middle = (edges[1:] + edges[:-1]) / 2
    assert tail.density[20:] == pytest.approx(2 * middle[20:], rel=0.02)
    assert counts.sum() == (np.isfinite(tail.values) & (tail.values >= edges[0])).sum()


def test_of_too_few_values_there_is_no_exponent():
    tail = Tail("a net", "plain", "test", 2, planted(1, 8))
    assert all(math.isnan(value) for value in (*tail.straight, *tail.exponent))
    assert "n/a" in tail_lines([tail])[1]
    assert not len(Tail("a net", "plain", "test", 2, np.array([])).density)


def test_random_logits_follow_their_exact_law():
    logits, draws = RandomLogits(), 20_000
    tails = random_tails(logits, draws)
    lines = law_lines(logits, tails)
    for tail, line, slope in zip(tails, lines[1:], ("10", "90", "360"), strict=False):
        exact = stats.beta(tail.rank - 1, 12 - tail.rank)  # of uniform spacings
        ranks = exact.cdf(np.sort(tail.values))
        steps = np.arange(draws + 1) / draws
        distance = max((steps[1:] - ranks).max(), (ranks - steps[:-1]).max())
        p = stats.kstwobign.sf(math.sqrt(draws) * distance)
        assert line.split()[-2:] == [f"{distance:.2g}", f"{p:.2g}"]
        assert p > 0.01
        assert line.split()[1:3] == [slope, f"Δ^{tail.rank - 2}"]
        edges = tail.bins[0]
        mean = np.diff(exact.cdf(edges)) / np.diff(edges)
        assert exact_density(logits, tail.rank, edges) == pytest.approx(mean)


def test_another_law_is_noticed():
    tails = random_tails(RandomLogits(9), 20_000)
    assert all(float(line.split()[-1]) < 1e-6 for line in law_lines(RandomLogits(), tails)[1:4])


@pytest.mark.parametrize("part", ["test", "train"])
def test_figure_4_is_of_the_logits_of_every_image(view, run, part):
    for net in nets(run):
        for rank in (2, 3, 4):
            table = view.table
            rows = table[(table["net"] == net.name) & (table["part"] == part)]
            rows = rows[rows["rank"] == rank]
            values = by_hand(net, part, rank)
            assert set(rows["images"]) == {300}
            edges = np.append(rows["from"], rows["to"].iloc[-1])
            counts = np.histogram(values, edges)[0]
            assert np.abs(counts - rows["count"]).sum() <= 2  # at an edge, by rounding
            below = values[values < np.median(values) / 4]
            if len(below) >= 20:
                whole, _, _ = stats.powerlaw.fit(below / (np.median(values) / 4), floc=0, fscale=1)
                assert rows["straight"].iloc[0] == pytest.approx(whole - 1, abs=0.01)
            else:
                assert rows["straight"].isna().all()


def test_figure_4_has_the_exact_law_beside_the_sample(view):
    random = view.table[view.table["net"] == RANDOM]
    assert set(random["images"]) == {20_000}
    full = random[random["count"] > 300]
    assert len(full) > 30
    assert full["density"].to_numpy() == pytest.approx(full["exact_density"], rel=0.25)
    assert view.table[view.table["net"] != RANDOM]["exact_density"].isna().all()
    heads = [line for line in view.lines if line.startswith("random logits, uniform")]
    assert [line.split()[3] for line in heads] == ["12", "13", "14"]
    assert len(view.figure.axes) == 3


def test_what_was_looked_at_is_not_looked_at_again(view, run, monkeypatch):
    monkeypatch.setattr("launch.papers.cubuk.densities.logit_differences", None)
    again = figure_4([run], Reporter(), draws=20_000)
    assert again.table.equals(view.table)


def test_figure_6_pairs_each_plain_net_with_its_entropic_one(varied):
    view = figure_6([varied], Reporter())
    found = {(net.name, net.training): net for net in nets(varied)}
    assert len(found) == 6
    shown = view.table[["net", "training"]].drop_duplicates().to_numpy().tolist()
    names = sorted({name for name, _ in found})
    assert sorted(shown) == [[name, t] for name in names for t in ("plain", "λ = 4.5")]
    assert set(view.table["rank"]) == {2}
    for axes, name in zip(view.figure.axes, names, strict=True):
        assert axes.get_title() == name
        (line,) = [line for line in view.lines if line.startswith(f"{name}: ")]
        plain, entropic = (
            f"{100 * (by_hand(found[name, training], 'test', 2) < 1).mean():.2f} %"
            for training in ("plain", "λ = 4.5")
        )
        assert plain != entropic
        assert f"1 of {plain} of the images, with the entropy term of {entropic}." in line


def test_figure_6_of_one_training_is_refused(run):
    with pytest.raises(InputError, match=r"trained plain and with λ = 4\.5 .* got trainings plain"):
        figure_6([run], Reporter())


def test_figure_13_has_a_panel_a_rank_and_says_what_weights_there_were(run):
    view = figure_13([run], Reporter())
    assert [axes.get_title() for axes in view.figure.axes] == ["Δ_12", "Δ_13", "Δ_14"]
    names = {net.name for net in nets(run)}
    for axes in view.figure.axes:
        assert {text.get_text() for text in axes.get_legend().get_texts()} == names
    assert set(view.table["part"]) == {"test"}
    assert any("Weights are trained here, 2 epochs" in line for line in view.lines)
