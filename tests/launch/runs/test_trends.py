"""Statistics of models against brute force, and their command on runs and foreign tables."""

from __future__ import annotations

import math
import statistics
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, one_line, search_here
from scipy import stats

from launch.runs.trends import read_models, trends
from launch.show.trend_panels import trend_panels
from nas.analysis.trends import default_window, running_average, trend_statistics
from nas.errors import InputError

NAN = math.nan


def drawn(n=60, seed=0):
    """Return n models as a table; some share their parameters, some their clean accuracy."""
    rng = np.random.default_rng(seed)
    clean = np.round(rng.uniform(0.6, 0.95, n), 2)
    return pd.DataFrame(
        {
            "clean_accuracy": clean,
            "pgd_accuracy": 0.5 * clean + rng.uniform(-0.05, 0.05, n),
            "parameters": rng.choice([1_000, 5_000, 20_000, 90_000], n),
        }
    )


def csv(path, table):
    table.to_csv(path, index=False)
    return path


def averages(y, window):
    """Return the running average by its definition."""
    half = window // 2
    return [np.mean([y[j] for j in range(len(y)) if abs(j - i) <= half]) for i in range(len(y))]


# ---------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("window", [1, 3, 7, 21, 99])
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_running_averages_are_means_of_the_neighbours_that_there_are(n, window):
    rng = np.random.default_rng(n)
    x, y = np.sort(rng.random(n)), rng.random(n)
    assert running_average(x, y, window) == pytest.approx(averages(y, window), abs=1e-14)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_models_of_one_x_share_the_mean_over_all_their_orders(window):
    x = np.array([1.0, 2, 2, 2, 3, 3])
    y = np.array([0.9, 0.1, 0.3, 0.8, 0.2, 0.6])
    orders = [o for o in permutations(range(6)) if (np.diff(x[list(o)]) >= 0).all()]
    assert len(orders) == 12
    mean = np.mean([averages(y[list(o)], window) for o in orders], axis=0)
    expected = [mean[x == value].mean() for value in x]
    assert running_average(x, y, window) == pytest.approx(expected, abs=1e-14)


def test_the_order_of_the_rows_says_nothing():
    table = drawn()
    mixed = table.sample(frac=1, random_state=1)

    def by_model(rows):
        found = trend_statistics(rows["clean_accuracy"], rows["pgd_accuracy"], rows["parameters"])
        trends = (found.by_clean, found.by_parameters)
        return [dict(zip(rows.index[t.rows], t.average, strict=True)) for t in trends]

    for ours, theirs in zip(by_model(table), by_model(mixed), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-14)


@pytest.mark.parametrize("window", [0, -3, 4])
def test_windows_are_odd(window):
    with pytest.raises(InputError, match=f"odd window >= 1, got {window}"):
        running_average(np.arange(5.0), np.arange(5.0), window)


def test_the_default_window_is_about_the_root_of_the_number():
    assert [default_window(n) for n in (3, 35, 40, 100, 9_360)] == [5, 5, 7, 11, 97]


def test_trends_hold_every_model_once_with_scipys_rank_correlation():
    table = drawn()
    found = trend_statistics(*(table[name] for name in table), window=9)
    for name, trend in (("clean_accuracy", found.by_clean), ("parameters", found.by_parameters)):
        assert sorted(trend.rows) == list(range(60))
        assert list(trend.x) == sorted(table[name])
        assert list(trend.y) == list(table["pgd_accuracy"].iloc[trend.rows])
        rho = stats.spearmanr(table[name], table["pgd_accuracy"]).statistic
        assert trend.correlation.value == pytest.approx(rho, abs=1e-12)
        assert trend.window == 9


def test_accurate_models_exceed_the_threshold_and_are_described_by_their_sample():
    table = drawn()
    above = float(table["clean_accuracy"].iloc[7])  # a model that is just as accurate
    found = trend_statistics(table["clean_accuracy"], table["pgd_accuracy"], above=above)
    values = [r.pgd_accuracy for r in table.itertuples() if r.clean_accuracy > above]
    assert 10 < len(values) < 60
    assert not found.median
    assert sorted(found.accuracies) == sorted(values)
    assert found.exceeding == len(values)
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values))
    assert found.range == pytest.approx(max(values) - min(values))
    assert found.by_parameters is None


def test_too_few_accurate_models_give_way_to_the_half_above_the_median():
    clean = [0.1, 0.5, 0.5, 0.5, 0.8, 0.9]
    adversarial = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    kept = trend_statistics(clean, adversarial, above=0.7, fewest=2)
    assert (kept.median, kept.above, kept.exceeding, list(kept.accurate)) == (False, 0.7, 2, [4, 5])
    half = trend_statistics(clean, adversarial, above=0.7, fewest=3)
    assert (half.median, half.above, half.exceeding) == (True, 0.5, 2)
    assert list(half.accurate) == [1, 2, 3, 4, 5]
    alone = trend_statistics(clean, adversarial, above=0.85, fewest=1)  # has no deviation
    assert alone.median


def test_models_without_an_accuracy_are_left_out_and_counted():
    table = drawn()
    clean, adversarial, parameters = (table[name].to_numpy(float).copy() for name in table)
    clean[3], adversarial[[3, 10]], parameters[20:40] = NAN, NAN, NAN
    adversarial[11] = math.inf
    found = trend_statistics(clean, adversarial, parameters)
    assert (found.n, found.left_out) == (57, 3)
    assert sorted(found.by_clean.rows) == [i for i in range(60) if i not in (3, 10, 11)]
    assert len(found.by_parameters.rows) == found.by_parameters.correlation.n == 37
    assert np.isfinite(found.by_parameters.average).all()
    parameters[2:] = NAN
    assert trend_statistics(clean, adversarial, parameters).by_parameters is None


def test_fewer_than_three_models_are_refused():
    with pytest.raises(InputError, match="at least 3 models with both accuracies, got 2"):
        trend_statistics([0.1, 0.2, NAN], [0.1, 0.2, 0.3])
    assert trend_statistics([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).n == 3
    with pytest.raises(ValueError, match="one length"):
        trend_statistics([0.1, 0.2, 0.3], [0.1, 0.2])


# ------------------------------------------------------------------------------------- any table


def test_a_foreign_table_in_percent_says_the_same(psinas, tmp_path):
    table = drawn()
    shares = csv(tmp_path / "shares.csv", table)
    table[["clean_accuracy", "pgd_accuracy"]] *= 100
    percent = csv(tmp_path / "percent.csv", table)
    code, of_shares, _ = psinas("trends", shares)
    assert code == 0
    code, of_percent, _ = psinas("trends", percent)
    assert code == 0
    first, rest = of_percent.split("\n", 1)
    assert first == "clean_accuracy taken as in percent, pgd_accuracy taken as in percent"
    assert rest == of_shares
    values = drawn().query("clean_accuracy > 0.85")["pgd_accuracy"]
    assert f"pgd_accuracy of the {len(values)} with clean_accuracy > 0.85" in of_shares
    assert f"range {100 * (values.max() - values.min()):.1f} points" in of_shares
    assert f"standard deviation {100 * values.std():.1f} points" in of_shares
    table["clean_accuracy"] /= 100
    _, mixed, _ = psinas("trends", csv(tmp_path / "mixed.csv", table))
    assert mixed == f"clean_accuracy taken as in [0, 1], pgd_accuracy taken as in percent\n{rest}"


def test_its_models_and_the_picture_are_written(psinas, tmp_path):
    table = drawn()
    table.loc[4, "pgd_accuracy"] = NAN
    out = tmp_path / "new" / "found.csv"
    code, text, _ = psinas("trends", csv(tmp_path / "a.csv", table), "--out", out, "--window", 3)
    assert code == 0
    assert text.startswith("1 rows left out: no number in clean_accuracy or pgd_accuracy\n")
    assert f"models in {out}, picture in {out.with_suffix('.png')}" in text
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.parent.iterdir())) == 2  # no probe, nothing half written
    written = pd.read_csv(out)
    assert list(written["number"]) == [i for i in range(60) if i != 4]
    there = table.drop(index=4)
    assert list(written["adversarial_accuracy"]) == list(there["pgd_accuracy"])
    assert list(written["accurate"]) == list(there["clean_accuracy"] > 0.85)
    found = trend_statistics(*(there[name] for name in there), window=3)
    for trend, name in ((found.by_clean, "clean"), (found.by_parameters, "parameters")):
        average = written[f"average_by_{name}"].iloc[trend.rows]
        assert list(average) == pytest.approx(list(trend.average), abs=1e-14)


def test_the_threshold_that_was_used_is_said(psinas, tmp_path):
    table = drawn().query("clean_accuracy < 0.86 and clean_accuracy != 0.85")
    exceeding = int((table["clean_accuracy"] > 0.8).sum())
    path = csv(tmp_path / "a.csv", table)
    _, text, _ = psinas("trends", path)
    assert "clean_accuracy > 0.85: 0 models, too few; from the median on instead\n" in text
    assert f"with clean_accuracy >= {table['clean_accuracy'].median():.4g}:" in text
    _, text, _ = psinas("trends", path, "--above", 0.8)
    assert f"pgd_accuracy of the {exceeding} with clean_accuracy > 0.8:" in text
    few = pd.concat([table, table.head(5).assign(clean_accuracy=0.9)])
    csv(path, few)
    _, text, _ = psinas("trends", path)
    assert "clean_accuracy > 0.85: 5 models, too few; from the median on instead\n" in text
    _, text, _ = psinas("trends", path, "--above", 0.85)  # who asks for it gets it
    assert "pgd_accuracy of the 5 with clean_accuracy > 0.85:" in text


def test_columns_of_other_names_and_none_of_parameters(psinas, tmp_path):
    table = drawn().rename(columns={"clean_accuracy": "a", "pgd_accuracy": "b", "parameters": "c"})
    path = csv(tmp_path / "a.csv", table)
    code, text, _ = psinas("trends", path, "--clean", "a", "--adversarial", "b")
    assert code == 0
    assert "no numbers called parameters: their panel is left out\n" in text
    assert "b of 60 models" in text
    code, whole, _ = psinas("trends", path, "--clean=a", "--adversarial=b", "--parameters=c")
    assert code == 0
    rho = stats.spearmanr(table["c"], table["b"]).statistic
    assert f"  c  {rho:.2f} [" in whole
    table["c"] = [NAN] * 58 + [1, 2]
    csv(path, table)
    _, text, _ = psinas("trends", path, "--clean=a", "--adversarial=b", "--parameters=c")
    assert "too few numbers in c: their panel is left out\n" in text


def test_a_constant_accuracy_has_no_correlation(psinas, tmp_path):
    table = drawn().assign(pgd_accuracy=0.0)
    code, text, _ = psinas("trends", csv(tmp_path / "a.csv", table), "--out", tmp_path / "b.csv")
    assert code == 0
    assert text.count("undefined\n") == 2
    assert "range 0.0 points (0.0% to 0.0%)" in text


def test_mistakes_are_one_line(psinas, tmp_path):
    table = drawn().assign(name="x", macs=9_000)
    path = csv(tmp_path / "a.csv", table)
    before = path.read_bytes()
    known = "expected a column of numbers (clean_accuracy, pgd_accuracy, parameters, macs)"
    for option in ("--adversarial", "--clean", "--parameters"):
        one_line(psinas("trends", path, option, "moon"), f"{option}: {known}, got 'moon'")
    one_line(psinas("trends", path, "--clean", "name"), known, "got 'name'")
    one_line(psinas("trends", path, "--clean", "pgd_accuracy"), "expected different columns")
    one_line(psinas("trends", path, "--clean", "macs"), "percent, got 9000 to 9000")
    one_line(psinas("trends", path, "--above", 85), "--above: expected", "[0, 1], got 85")
    one_line(psinas("trends", path, "--window", 4), "--window: expected an odd", "got 4")
    one_line(psinas("trends", path, "--trust"), "--trust: expected a run")
    one_line(psinas("trends", path, "--out", path), "another file than the table")
    one_line(psinas("trends", path, "--out", tmp_path / "b.txt"), "ends in .csv")
    one_line(psinas("trends", path, "--out", path / "b.csv"), "--out: expected a file to write")
    (tmp_path / "c.csv").mkdir()
    one_line(psinas("trends", path, "--out", tmp_path / "c.csv"), "got the directory")
    one_line(psinas("trends", tmp_path / "none.csv"), "none.csv: No such file")
    one_line(psinas("trends", tmp_path), "config.yaml")
    foreign = csv(tmp_path / "d.csv", table.rename(columns={"pgd_accuracy": "b"}))
    one_line(psinas("trends", foreign), "--adversarial: ", "got no fgsm_accuracy or pgd_accuracy")
    one_line(psinas("trends", csv(path, table.head(2))), "at least 3 models", "got 2")
    assert before.startswith(path.read_bytes())
    assert psinas("trends")[0] == 2


def test_help_has_an_example(psinas):
    code, out, _ = psinas("trends", "--help")
    assert code == 0
    assert "Example: psinas trends runs/" in " ".join(out.split())


# ---------------------------------------------------------------------------------------- a run


def test_a_run_knows_its_columns(psinas, tmp_path):
    metrics = ["clean", "fgsm", {"name": "pgd", "steps": 2}, "cost"]
    run = search_here(tmp_path / "run", {**TINY, "metrics": metrics})
    read = read_models(run)
    assert read.names == {
        "clean_accuracy": "clean_accuracy",
        "adversarial_accuracy": "pgd_accuracy",  # the objective
        "parameters": "parameters",
    }
    assert list(read.frame["number"]) == [0, 1, 2, 3]
    trials = pd.read_csv(run / "trials.csv")
    assert list(read.frame["adversarial_accuracy"]) == list(trials["pgd_accuracy"])
    assert list(read.frame["parameters"]) == list(trials["parameters"])
    assert read_models(run, "fgsm_accuracy").names["adversarial_accuracy"] == "fgsm_accuracy"
    of_file = read_models(run / "trials.csv")  # says no objective
    assert of_file.names["adversarial_accuracy"] == "fgsm_accuracy"
    code, text, _ = psinas("trends", run, "--out", tmp_path / "found.csv")
    assert code == 0
    assert "pgd_accuracy of 4 models" in text
    one_line(psinas("trends", run, "--trust"), "--trust: expected a search with the metric")
    one_line(
        psinas("trends", run, "--clean", "parameters", "--parameters", "macs"), "in [0, 1], got"
    )


def test_only_complete_trials_count_and_with_trust_only_trusted_ones(psinas, tmp_path):
    table = drawn(8).assign(number=range(10, 18), status="complete", reason="")
    table["repeat_of"] = [NAN, NAN, 10, NAN, NAN, NAN, NAN, NAN]
    table.loc[4, "status"] = "diverged"
    table["suspicion_ends_raised"] = [0.0, 1, 0, 0, 0, 0, 0, 0]
    path = csv(tmp_path / "trials.csv", table)
    assert list(read_models(path).frame["number"]) == [10, 11, 13, 15, 16, 17]
    trusted = read_models(path, trust=True)
    assert list(trusted.frame["number"]) == [10, 13, 15, 16, 17]
    assert list(trends(trusted, above=None, window=None).table["number"]) == [10, 13, 15, 16, 17]
    _, text, _ = psinas("trends", path, "--trust")
    assert "pgd_accuracy of 5 models" in text
    table.loc[3:, "status"] = "diverged"
    one_line(psinas("trends", csv(path, table)), "at least 3 complete trials, got 2")


def test_the_picture_shows_the_models_and_the_averages():
    table = drawn()
    found = trend_statistics(*(table[name] for name in table))
    names = {"clean_accuracy": "a", "adversarial_accuracy": "b", "parameters": "c"}
    left, middle, right = trend_panels(found, names).axes
    for axes, trend, unit in ((left, found.by_parameters, 1), (middle, found.by_clean, 100)):
        points = np.concatenate([c.get_offsets() for c in axes.collections]).tolist()
        expected = np.column_stack([unit * trend.x, 100 * trend.y]).tolist()
        assert sorted(points) == sorted(expected)
        assert axes.lines[0].get_ydata() == pytest.approx(100 * trend.average)
    assert (left.get_xlabel(), middle.get_xlabel(), right.get_xlabel()) == ("c", "a, %", "b, %")
    assert left.get_xscale() == "log"  # 1,000 to 90,000
    assert sum(bar.get_height() for bar in right.patches) == len(found.accurate)
    without = trend_statistics(table["clean_accuracy"], table["pgd_accuracy"])
    assert len(trend_panels(without, names).axes) == 2
