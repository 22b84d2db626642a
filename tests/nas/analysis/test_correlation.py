"""Rank correlations against scipy, counting and simulation, and their table on the command line."""

from __future__ import annotations

import io
import json
import math
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, one_line, search_here
from scipy import stats

from launch.config.config import parse_config
from launch.show.correlations import _number, correlation_table
from nas.analysis.correlation import correlations, kendall, pearson, spearman
from nas.errors import InputError
from nas.ledger.table import load_table

NAN, INFINITY = math.nan, math.inf
ALL = [pearson, spearman, kendall]


def samples(seed, ties):
    """Return two related sequences of 30, with ties where asked, two of the pairs with a NaN."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(30)
    y = x + rng.standard_normal(30)
    if ties:
        x, y = np.round(x), np.round(2 * y)
    x[3], y[7] = NAN, NAN
    return x, y


# ------------------------------------------------------------------------------------- one pair


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_scipys_over_the_pairs_without_nan(ties):
    x, y = samples(0, ties)
    there = ~np.isnan(x + y)
    for ours, theirs in zip(ALL, (stats.pearsonr, stats.spearmanr, stats.kendalltau), strict=True):
        found = ours(x, y)
        assert found.n == 28
        assert found.value == pytest.approx(theirs(x[there], y[there]).statistic, abs=1e-12)
        assert found.low < found.value < found.high


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_counted_by_hand(ties):
    x, y = samples(1, ties)
    there = ~np.isnan(x + y)
    x, y = x[there], y[there]
    rank = [[sum(w < v for w in s) + sum(w == v for w in s) / 2 for v in s] for s in (x, y)]
    assert spearman(x, y).value == pytest.approx(np.corrcoef(rank)[0, 1], abs=1e-12)
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(28), 2)]
    concordance = sum(a * b for a, b in signs)
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    assert kendall(x, y).value == pytest.approx(concordance / math.sqrt(untied), abs=1e-12)


def test_pearsons_interval_is_scipys():
    x, y = samples(2, ties=False)
    there = ~np.isnan(x + y)
    theirs = stats.pearsonr(x[there], y[there]).confidence_interval(0.95)
    found = pearson(x, y)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_spearmans_interval_is_that_of_bonetts_own_package():
    """The example of ``ci.spear`` in the R package statpsych, with what it should return."""
    y = [21, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19]
    x = [67, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51]
    found = spearman(y, x)
    expected = (0.8699639, 0.5840951, 0.9638297)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("correlation", "truth"),
    [(pearson, lambda r: r), (spearman, lambda r: 6 / math.pi * math.asin(r / 2)),
     (kendall, lambda r: 2 / math.pi * math.asin(r))],
)  # fmt: skip
@pytest.mark.parametrize("rho", [0.0, -0.8])
def test_intervals_of_normal_samples_cover_the_truth_at_their_rate(correlation, truth, rho):
    """Three standard errors of 1,000 samples are 0.021."""
    rng = np.random.default_rng(3)
    x, noise = rng.standard_normal((2, 1000, 25))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    found = [correlation(*pair) for pair in zip(x, y, strict=True)]
    assert np.mean([c.low <= truth(rho) <= c.high for c in found]) == pytest.approx(0.95, abs=0.021)


@pytest.mark.parametrize("correlation", ALL)
def test_what_is_not_defined_is_nan_without_a_warning(correlation):
    five = [1, 2, 3, 4, 5]
    for x, y in [
        ([], []),
        ([1], [2]),
        (five, [7] * 5),
        ([0.1] * 5, five),
        ([1, 2, NAN, NAN, NAN], [NAN, 2, 3, 4, 5]),
        ([1, 1, 1, 1, 9], [1, 2, 3, 4, NAN]),  # constant where both are known
    ]:
        found = correlation(x, y)
        assert [math.isnan(v) for v in (found.value, found.low, found.high)] == [True] * 3
    assert found.n == 4
    fewest = {pearson: 4, spearman: 4, kendall: 5}[correlation]
    for n in (2, 3, 4, 5):
        found = correlation([1, 3, 2, 4, 5][:n], [1, 2, 3, 5, 4][:n])
        assert math.isfinite(found.value)
        assert math.isnan(found.low) == math.isnan(found.high) == (n < fewest)
    with pytest.raises(ValueError, match="one length"):
        correlation(five, [1, 2])
    with pytest.raises(ValueError, match="one length"):
        correlation([five], [five])


def test_values_at_the_ends_of_the_floats_give_no_warning():
    nearly = [1, 1 + 3e-16, 1, 1 + 5e-16, 1 + 7e-16]
    assert pearson(nearly, [1, 2, 1, 3, 4]).value == pytest.approx(1, abs=0.1)
    infinite = [1, INFINITY, 2, 3, -INFINITY]
    assert math.isnan(pearson(infinite, [1, 5, 2, 3, 4]).value)
    for correlation in (spearman, kendall):  # an infinity has a rank
        assert correlation(infinite, [1, 5, 2, 3, 4]) == correlation(
            [2, 5, 3, 4, 1], [1, 5, 2, 3, 4]
        )


@pytest.mark.parametrize(
    "x", [[1, 2, 3, 4, 5, 6], [1, 1, 2, 2, 2, 3], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
)
@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_a_perfect_rank_correlation_has_the_interval_of_the_next(correlation, x):
    others = [correlation(x, y) for y in permutations(x)]
    nearest = max((c for c in others if c.value < 1 - 1e-9), key=lambda c: c.value)
    for y in (x, np.exp(x)):
        found = correlation(x, y)
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(nearest.low, abs=1e-12)
    found = correlation(x, [-v for v in x])
    assert (found.low, found.value) == (-1, -1)
    assert found.high == pytest.approx(-nearest.low, abs=1e-12)


def test_an_exact_line_has_no_interval():
    x = np.random.default_rng(4).standard_normal(20)
    for slope in (0.3, -7.0):
        found = pearson(x, slope * x + 0.1)
        assert found.value == np.sign(slope)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


# ---------------------------------------------------------------------------------------- tables


@pytest.fixture
def table():
    """Return a trial table of 8 complete trials and one failed."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"number": range(9), "status": "complete", "reason": ""})
    table["depth"] = [1, 2, 3, 4, 5, 6, 7, 8, 100]
    table["weak"] = rng.standard_normal(9)
    table["psi"] = -(table["depth"] ** 2.0)
    table["psi"] += [0, 0, 0, 30, 0, 0, 0, 0, 0]
    table["gaps"] = [1.0, 2.0, NAN, NAN, NAN, NAN, NAN, NAN, NAN]
    table["constant"] = 1.0
    table["flag"] = [*([0.0] * 8), 1.0]  # constant over the complete ones
    table["kind"] = "conv"
    table["epochs"] = pd.array([1, 2, 3, 4, 5, 6, 7, 8, None], dtype="Int64")
    table.loc[8, ["status", "weak", "psi"]] = ["error", NAN, NAN]
    return table


def test_correlations_are_those_of_every_pair_strongest_first(table):
    found = correlations(table)
    complete = table.head(8)
    assert {frozenset(p) for p in zip(found["a"], found["b"], strict=True)} == {
        frozenset(p) for p in combinations(["depth", "weak", "psi", "gaps"], 2)
    }
    for row in found.to_dict("records"):
        for kind, correlation in (("spearman", spearman), ("kendall", kendall)):
            one = correlation(complete[row["a"]], complete[row["b"]])
            three = [row[kind], row[f"{kind}_low"], row[f"{kind}_high"]]
            np.testing.assert_equal([row["n"], *three], [one.n, one.value, one.low, one.high])
    strength = found["spearman"].abs().tolist()
    assert strength == sorted(strength, reverse=True)
    assert (found["spearman"] < 0).any()  # so the order is not that of the signed values
    assert found["n"].tolist().count(2) == 3


def test_an_undefined_correlation_comes_last(table):
    table.loc[:1, "weak"] = 3.0  # constant where gaps are known
    found = correlations(table, ["gaps", "weak", "depth"])
    assert found[["a", "b"]].iloc[-1].tolist() == ["gaps", "weak"]
    assert math.isnan(found["spearman"].iloc[-1])
    assert found["spearman"].notna().sum() == 2


def test_correlations_take_the_names_they_are_given(table):
    assert correlations(table, ["epochs", "depth"])[["a", "b", "n"]].values.tolist() == [
        ["epochs", "depth", 8]
    ]
    empty = correlations(table, ["depth", "constant", "flag"])
    assert list(empty.columns) == list(correlations(table).columns)
    assert len(empty) == 0
    for name in ("moon", "kind"):
        with pytest.raises(InputError, match=f"psi.*'{name}'"):
            correlations(table, ["depth", name])


def test_suspicious_trials_are_left_out_where_asked(table):
    table.loc[:8, "suspicion_zero_gradient_raised"] = [0.0] * 3 + [1.0] + [0.0] * 5
    table["suspicion_zero_gradient"] = table["depth"] * 1.0
    legend = parse_config({**TINY, "objectives": {"psi": "min"}}).plan().legend
    found = correlation_table(table, legend)
    trusted = correlation_table(table, legend, trust=True)
    pair = trusted.set_index(["a", "b"]).loc[("psi", "depth")]
    assert pair["spearman"] == -1  # the flagged trial alone lies off the line
    assert pair["n"] == 7
    assert found.set_index(["a", "b"]).loc[("psi", "depth")]["n"] == 8
    assert not any("suspicion" in name for name in [*found["a"], *found["b"]])
    flagged = table.assign(suspicion_zero_gradient_raised=[1.0] * 5 + [0.0] * 4)
    with pytest.raises(InputError, match="at least 4 .* without a raised flag, got 3"):
        correlation_table(flagged, legend, trust=True)
    assert len(correlation_table(flagged, legend)) == len(found)


def test_a_space_of_one_score_is_told_so(table):
    legend = parse_config(TINY).plan().legend
    with pytest.raises(InputError, match="two scores that vary over the 8 complete trials"):
        correlation_table(table[["number", "status", "reason", "depth", "constant"]], legend)


# ---------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a finished search of six trials, trained long enough to differ in accuracy."""
    document = {
        **TINY,
        "data": {"name": "digits", "limit": {"train": 400, "validation": 60}},
        "space": {**TINY["space"], "channels": [4, 6, 8]},
        "recipe": {**TINY["recipe"], "epochs": 3, "adversary": "none"},
    }
    return search_here(tmp_path_factory.mktemp("runs") / "six", document)


def test_the_command_prints_the_pairs_of_the_scores_that_the_trial_table_shows(psinas, finished):
    code, out, err = psinas("trials", finished, "--correlations", "--format", "csv")
    assert code == 0, err
    found = pd.read_csv(io.StringIO(out))
    trials = load_table(finished)
    shown = psinas("trials", finished)[1].splitlines()[0].split()
    varied = [c for c in shown if c != "number" and trials[c].nunique() > 1]
    assert {"depth", "channels", "pgd_accuracy", "parameters"} <= set(varied)
    pairs = [frozenset(p) for p in zip(found["a"], found["b"], strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {frozenset(p) for p in combinations(varied, 2)}
    assert not any(name.endswith(("_seconds", "_stderr")) for name in [*found["a"], *found["b"]])
    first = found["a"] == "pgd_accuracy"
    assert first.sum() == len(varied) - 1
    assert first.head(first.sum()).all()
    assert (found["b"] != "pgd_accuracy").all()
    for group in (found[first], found[~first]):
        strength = group["spearman"].abs().tolist()
        assert strength == sorted(strength, reverse=True)
    for row in found.to_dict("records"):
        expected = stats.spearmanr(trials[row["a"]], trials[row["b"]]).statistic
        assert row["spearman"] == pytest.approx(expected, abs=1e-12)


def test_the_printed_columns_are_aligned(psinas, finished):
    code, out, _ = psinas("trials", finished, "--correlations")
    assert code == 0
    header, *rows, note = out.splitlines()
    _, text, _ = psinas("trials", finished, "--correlations", "--format", "json")
    records = json.loads(text)
    assert len(rows) == len(records)
    assert "95 %" in note
    starts = {name: header.index(name) for name in ("spearman", "kendall")}
    for row, record in zip(rows, records, strict=True):
        assert row.split()[:3] == [record["a"], record["b"], "6"]
        for name, start in starts.items():
            assert row[start - 2 : start] == "  "
            numbers = row[start : start + 22].replace("[", " ").replace("]", " ").replace(",", " ")
            expected = [record[name], record[f"{name}_low"], record[f"{name}_high"]]
            assert [float(n) for n in numbers.split()] == pytest.approx(expected, abs=0.00501)
            assert row[start] == ("-" if record[name] <= -0.005 else " ")
    numbers = [_number(v) for v in (-0.5, 0.5, -0.001, math.nan)]
    assert numbers == ["-0.50", " 0.50", " 0.00", "    -"]


def test_formats_files_and_top(psinas, finished, tmp_path):
    text = psinas("trials", finished, "--correlations", "--format", "csv")[1]
    path = tmp_path / "c.parquet"
    arguments = ["trials", finished, "--correlations", "--format", "parquet", "--out", path]
    assert psinas(*arguments)[0] == 0
    whole = pd.read_csv(io.StringIO(text))
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole, check_dtype=False)
    _, text, _ = psinas("trials", finished, "--correlations", "--top", 3, "--format", "csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), whole.head(3))
    assert len(psinas("trials", finished, "--correlations", "--top", 3)[1].splitlines()) == 5


def test_what_cannot_be_done_is_one_line(psinas, finished, tmp_path):
    for option in (["--sort", "psi"], ["--pareto", "psi,parameters"], ["--repeats"]):
        one_line(
            psinas("trials", finished, "--correlations", *option), "none of", f"got {option[0]}"
        )
    one_line(psinas("trials", finished, "--correlations", "--trust"), "--trust", "suspicion")
    few = search_here(tmp_path / "few", {**TINY, "space": {**TINY["space"], "depth": [1]}})
    one_line(psinas("trials", few, "--correlations"), "expected at least 4", "got 2")
