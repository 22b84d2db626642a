"""What a comparison pairs, and that its intervals cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_runs import write_run

from nas.analysis import compare, hypervolume, load_table
from nas.analysis.means import chance, paired, skewed, unpaired
from nas.errors import InputError

GOALS = {"accuracy": "max", "size": "min"}


def table_of(scores, *, run="r", seed=0, **columns):
    table = pd.DataFrame({"run": run, "number": range(len(scores)), "status": "complete"})
    table["accuracy"] = np.asarray(scores, dtype=float)
    table["size"] = 1.0
    table["architecture"] = [f"h{i}" for i in range(len(scores))]
    table = table.assign(**columns)
    table.attrs = {"objectives": GOALS, "runs": {run: {"seed": seed}}}
    return table


def several(runs):
    """Return one table of runs: name -> (seed, scores)."""
    parts = [table_of(scores, run=name) for name, (_, scores) in runs.items()]
    table = pd.concat(parts, ignore_index=True)
    said = {name: {"seed": seed} for name, (seed, _) in runs.items()}
    table.attrs = {"objectives": GOALS, "runs": said}
    return table


# ---------------------------------------------------------------------------------------- the means


def covered(draw, truth, n, times, rng):
    found = [paired(draw(rng, n)) for _ in range(times)]
    return sum(f.low <= truth <= f.high for f in found) / times


def between(share, times):
    """Return the counts that 99.9 of 100 have where the true coverage is ``share``."""
    return stats.binom.ppf([0.0005, 0.9995], times, share) / times


@pytest.mark.parametrize("n", [5, 20])
def test_paired_intervals_cover_95_of_100(n):
    rng = np.random.default_rng(n)
    low, high = between(0.95, 200)
    assert low <= covered(lambda r, n: r.normal(0.3, 2, n), 0.3, n, 200, rng) <= high


def test_unpaired_intervals_cover_95_of_100_with_unequal_spread_and_size():
    rng = np.random.default_rng(0)
    found = [unpaired(rng.normal(1, 3, 6), rng.normal(0, 1, 20)) for _ in range(200)]
    low, high = between(0.95, 200)
    assert low <= sum(f.low <= 1 <= f.high for f in found) / 200 <= high


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize(
    ("draw", "truth", "least"),
    [
        (lambda r, n: r.normal(size=n), 0.0, 0.91),
        (lambda r, n: r.random(n), 0.5, 0.89),
        (lambda r, n: r.standard_t(3, size=n), 0.0, 0.91),
        (lambda r, n: r.lognormal(size=n) - r.lognormal(size=n), 0.0, 0.91),
        (lambda r, n: r.exponential(size=n) - 0.5 * r.exponential(size=n), 0.5, 0.89),
        (lambda r, n: r.exponential(size=n), 1.0, 0.82),
    ],
)
def test_coverage_is_as_written_down(draw, truth, least, n):
    assert covered(draw, truth, n, 300, np.random.default_rng(n)) >= least


def test_intervals_and_p_are_scipys():
    rng = np.random.default_rng(1)
    x, y = rng.normal(1, 1, 9), rng.normal(0, 2, 12)
    for found, expected in (
        (paired(x - y[:9]), stats.ttest_rel(x, y[:9])),
        (unpaired(x, y), stats.ttest_ind(x, y, equal_var=False)),
    ):
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("pairing", [True, False])
def test_with_the_number_that_is_needed_eighty_of_a_hundred_find_it(pairing):
    rng = np.random.default_rng(2)
    sample = rng.normal(size=(2, 12))
    sample = (sample - sample.mean(1, keepdims=True)) / sample.std(1, ddof=1, keepdims=True)
    found = paired(sample[0] + 0.8) if pairing else unpaired(sample[0] + 0.8, sample[1])
    times, n = 2000, found.needed
    x, y = rng.normal(0.8, 1, (times, n)), rng.normal(0, 1, (times, n))
    test = stats.ttest_1samp(x, 0, axis=1) if pairing else stats.ttest_ind(x, y, axis=1)
    share = (test.pvalue < 0.05).mean()
    assert 0.8 - 0.03 < share < 0.8 + 0.05


def test_no_difference_and_no_spread_need_no_number():
    assert paired(np.array([1.0, -1.0, 0.0])).needed is None
    same = paired(np.array([0.5, 0.5]))
    assert (same.value, same.needed) == (0.5, None)
    assert math.isnan(same.low)
    assert math.isnan(unpaired(np.array([1.0]), np.array([0.0, 2.0])).low)
    assert unpaired(np.ones(3), np.zeros(3)).needed is None


@pytest.mark.parametrize("levels", [3, 1000])
def test_a_chance_is_a_count_over_all_pairings(levels):
    rng = np.random.default_rng(levels)
    x, y = rng.integers(levels, size=20) / 7, rng.integers(levels, size=13) / 7
    gaps = np.subtract.outer(x, y)
    assert chance(x, y) == pytest.approx((gaps > 0).mean() + (gaps == 0).mean() / 2)
    assert math.isnan(chance(x, y[:0]))


def test_skew_is_seen_where_it_is():
    rng = np.random.default_rng(0)
    assert skewed(rng.lognormal(size=50)) > 1
    assert skewed(rng.normal(size=50)) is None
    assert skewed(np.ones(20)) is skewed(np.array([0.0, 0.0, 9.0])) is None


# ---------------------------------------------------------------------------------------- the pairs


def test_architectures_are_paired_with_their_own_recipe():
    a = table_of([0.5, 0.7, 0.9, 0.1], architecture=["x", "y", "z", "only a"])
    b = table_of([0.4, 0.6, 0.6, 0.9], architecture=["z", "x", "y", "only b"])
    found = compare(a, b)
    assert (found.by, found.of, found.n_a) == ("architecture", "trials", 3)
    assert found.difference == pytest.approx(np.mean([0.5 - 0.6, 0.7 - 0.6, 0.9 - 0.4]))
    assert found.share == pytest.approx(2 / 3)
    recipes = {"recipe.lr": [0.1, 0.2, 0.1, 0.2]}
    same = {"architecture": ["x", "x", "y", "y"], **recipes}
    found = compare(table_of([1, 2, 3, 4], **same), table_of([0, 3, 0, 0], **same))
    assert found.n_a == 4
    assert found.difference == pytest.approx(np.mean([1, -1, 3, 4]))
    without = table_of([0, 3, 0], architecture=["x", "x", "y"])
    twice = compare(table_of([1, 2, 3, 4], **same), without, by="architecture")
    assert twice.n_a == 2
    assert twice.difference == pytest.approx(np.mean([1.5 - 1.5, 3.5 - 0.0]))


def test_failed_trials_and_those_without_the_score_are_in_no_pair():
    a = table_of([0.5, 0.7, np.nan, 0.2])
    b = table_of([0.4, 0.6, 0.9, 0.1], status=["complete", "oom", "complete", "complete"])
    found = compare(a, b, by="architecture")
    assert (found.n_a, found.difference) == (2, pytest.approx(0.1))


def test_samplers_are_paired_by_seed_at_equally_many_trials():
    a = several({"a0": (0, [0.1, 0.9, 1.0]), "a1": (1, [0.5, 0.4]), "a2": (5, [0.2, 0.3])})
    b = several({"b1": (1, [0.3, 0.2, 0.8]), "b0": (0, [0.6, 0.1])})
    found = compare(a, b)
    assert (found.by, found.of, found.trials, found.n_a) == ("seed", "best", 2, 2)
    assert (found.a, found.b) == (pytest.approx(0.7), pytest.approx(0.45))
    assert compare(b, a).difference == pytest.approx(-found.difference)
    by_mean = compare(a, b, of="trials", by="seed")
    assert by_mean.a == pytest.approx(np.mean([2 / 3, 0.45]))
    apart = compare(a, b, by="none")
    assert (apart.of, apart.n_a, apart.n_b) == ("best", 3, 2)
    assert apart.share == pytest.approx((0 + 1 + 1 + 1 + 0 + 0.5) / 6)


def test_volumes_are_compared_above_the_worst_of_both_sides():
    a = several({"a0": (0, [0.1, 0.9]), "a1": (1, [0.5, 0.4])})
    b = several({"b0": (0, [0.3, 0.2]), "b1": (1, [0.6, 0.05])})
    a["size"], b["size"] = [1.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 1.0]
    found = compare(a, b, of="hypervolume")
    point = {"accuracy": 0.05, "size": 4.0}
    runs = [hypervolume(t[t["run"] == r], reference=point) for t, r in
            ((a, "a0"), (b, "b0"), (a, "a1"), (b, "b1"))]  # fmt: skip
    assert found.difference == pytest.approx(np.mean([runs[0] - runs[1], runs[2] - runs[3]]))
    assert found.score == "accuracy, size"
    given = compare(a, b, of="hypervolume", reference=[0.05, 4.0])
    assert given == found


def test_less_is_better_where_the_search_says_so():
    sizes = [1, 2, 1, 2, 1, 2.5], [7, 8, 7, 8, 7, 8.0]
    small, large = (table_of([0.5] * 6, size=size) for size in sizes)
    found = compare(small, large, score="size")
    assert (found.better, found.share) == ("a", 1.0)
    assert found.difference < 0
    assert compare(large, small, score="size").better == "b"
    assert compare(small, large).better == "undecided"


def test_the_same_trials_on_both_sides_are_no_pairs():
    scores = [0.1, 0.5, 0.9, 0.3]
    found = compare(table_of(scores), table_of(scores))
    assert found.by == "none"
    assert any("scored the same" in note for note in found.notes)


def test_what_weakens_a_comparison_is_said():
    one = compare(table_of([0.5]), table_of([0.1, 0.2]))
    assert math.isnan(one.low)
    assert any("no interval" in note for note in one.notes)
    assert any("no independent draws" in note for note in one.notes)
    alike = compare(table_of([0.5, 0.6]), table_of([0.4, 0.5]), by="architecture")
    assert any("differ by the same" in note for note in alike.notes)
    rng = np.random.default_rng(0)
    skew = compare(table_of(rng.lognormal(size=40)), table_of(rng.normal(size=40)), by="none")
    assert any("skewed" in note for note in skew.notes)


def test_it_is_a_row_of_a_table():
    row = compare(table_of([0.5, 0.7]), table_of([0.4, 0.9]), by="none").frame()
    assert row["difference"].tolist() == [pytest.approx(-0.05)]
    assert row["trials"].isna().all()
    assert "no independent draws" in row["notes"][0]


def test_runs_on_disk_are_compared(tmp_path):
    choices = {"depth": [1, 2, 3]}

    def run(name, seed, gain):
        rows = [
            {"params": {"depth": d}, "scores": {"accuracy": d / 10 + gain, "size": 1.0}}
            for d in (1, 2, 3)
        ]
        return write_run(tmp_path / name, rows, choices, GOALS, seed=seed)

    a = [run(f"a{seed}", seed, 0.2 + seed / 50) for seed in range(3)]
    b = [run(f"b{seed}", seed, 0.1) for seed in range(3)]
    found = compare(a, b)
    assert (found.by, found.n_a, found.better) == ("seed", 3, "a")
    assert found.difference == pytest.approx(0.12)
    assert found == compare(load_table(*a), load_table(*b))
    assert compare(a[0], b[0]).by == "none"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"by": "magic"}, "architecture, seed, none"),
        ({"of": "magic"}, "trials, best, hypervolume"),
        ({"score": "acuracy"}, "accuracy"),
        ({"by": "seed"}, "same seeds"),
        ({"by": "architecture", "of": "best"}, "trials to compare"),
    ],
)
def test_bad_questions_are_one_line(asked, line):
    with pytest.raises(InputError, match=line):
        compare(table_of([0.1, 0.2]), table_of([0.3, 0.4], seed=1), **asked)


def test_sides_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="r: expected a complete trial with accuracy"):
        compare(table_of([0.1]), table_of([0.1], status="oom"))
    with pytest.raises(InputError, match="architecture on both sides"):
        compare(table_of([0.1]), table_of([0.1], architecture="other"), by="architecture")
    opposed = table_of([0.1])
    opposed.attrs = {**opposed.attrs, "objectives": {"accuracy": "min"}}
    with pytest.raises(InputError, match="one direction"):
        compare(table_of([0.1]), opposed)
    opposed.attrs = {"objectives": {"size": "min"}}
    other = table_of([0.1])
    other.attrs = {"objectives": {"accuracy": "max"}}
    with pytest.raises(InputError, match="give a score"):
        compare(other, opposed)
    twice = several({"a": (0, [0.1]), "b": (0, [0.2])})
    with pytest.raises(InputError, match="one run a seed"):
        compare(twice, twice, by="seed")
    with pytest.raises(InputError, match="know their seed"):
        compare(table_of([0.1]).drop(columns="run"), other, by="seed")
