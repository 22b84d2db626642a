"""Fresh seeds read from tables: intervals, ranks, shrinkage, verdicts, against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas.analysis import seeds
from nas.analysis.seed_repeats import shrinkage
from nas.errors import InputError


def search(scores):
    """Return the table of a search: architecture -> score."""
    rows = [
        {"number": n, "status": "complete", "reason": "", "architecture": a, "acc": s}
        for n, (a, s) in enumerate(scores.items())
    ]
    return pd.DataFrame(rows)


def again(values, *, failed=0, flags=0):
    """Return the table of fresh seeds: architecture -> scores."""
    rows = [
        {"architecture": a, "repeat": r, "status": "complete", "acc": s}
        for a, some in values.items()
        for r, s in enumerate(some, start=1)
    ]
    first = next(iter(values))
    rows += [
        {"architecture": first, "repeat": 90 + r, "status": "diverged", "acc": math.nan}
        for r in range(failed)
    ]
    table = pd.DataFrame(rows)
    table["suspicion_not_converged_raised"] = 0.0
    table.loc[: flags - 1, "suspicion_not_converged_raised"] = 1.0
    return table


def test_the_interval_is_students_of_the_mean():
    values = [0.70, 0.74, 0.75, 0.71, 0.78]
    found = seeds(search({"a": 0.80}), again({"a": values}, failed=2), score="acc").iloc[0]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert (found["n"], found["failed"]) == (5, 2)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["shrinkage"] == pytest.approx(0.80 - np.mean(values))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    names = [f"a{i}" for i in range(600)]
    values = {name: rng.normal(0.7, 0.02, 4) for name in names}
    found = seeds(search(dict.fromkeys(names, 0.7)), again(values), score="acc")
    covered = ((found["low"] <= 0.7) & (found["high"] >= 0.7)).mean()
    assert 0.93 < covered < 0.97
    lucky = rng.normal(0.7, 0.02, 600)  # one more seed, chosen by nobody
    found = seeds(search(dict(zip(names, lucky, strict=True))), again(values), score="acc")
    assert 0.01 < found["luck"].mean() < 0.04


def test_the_best_of_many_equal_ones_shrinks_to_what_they_are_worth():
    rng = np.random.default_rng(1)
    found = search({f"a{i}": s for i, s in enumerate(rng.normal(0.7, 0.02, 2000))})
    top = found.sort_values("acc", ascending=False)[:3]
    fresh = again({a: rng.normal(0.7, 0.02, 10) for a in top["architecture"]})
    read = seeds(found, fresh, score="acc")
    assert shrinkage(read) == pytest.approx(top["acc"].mean() - 0.7, abs=0.01)
    assert (read["verdict"] != "behind").all()
    assert read.set_index("original_rank").loc[1, "luck"]


@pytest.mark.parametrize("way", ["max", "min"])
def test_ranks_go_by_the_worse_end(way):
    sign = 1 if way == "max" else -1
    steady, jumpy = [0.80, 0.81, 0.80, 0.81], [0.70, 0.95, 0.72, 0.93]  # the larger mean: jumpy
    worst = [0.50, 0.51, 0.50, 0.51]
    values = {"jumpy": jumpy, "steady": steady, "worst": worst}
    values = {name: [sign * v for v in some] for name, some in values.items()}
    first = {"jumpy": sign * 0.95, "steady": sign * 0.81, "worst": sign * 0.52}
    read = seeds(search(first), again(values), score="acc", direction=way)
    assert list(read["architecture"])[0] == "steady"
    row = read.set_index("architecture")
    assert dict(row["verdict"]) == {"steady": "winner", "jumpy": "level", "worst": "behind"}
    assert row.loc["jumpy", "original_rank"] == 1
    assert not row.loc["steady", "held"]
    assert row.loc["steady", "overlaps"]
    assert row["shrinkage"].to_dict() == pytest.approx(
        {name: sign * (first[name] - np.mean(values[name])) for name in values}
    )


def test_of_equals_the_earlier_was_first():
    first = search({"a": 0.8, "b": 0.9, "c": 0.9})
    read = seeds(first, again({"c": [0.7, 0.71], "b": [0.6, 0.61], "a": [0.5, 0.51]}), score="acc")
    assert dict(zip(read["architecture"], read["original_rank"], strict=True)) == {
        "c": 2,
        "b": 1,
        "a": 3,
    }


def test_an_architecture_with_a_flag_does_not_win_in_silence():
    values = {"masked": [0.99, 0.98, 0.99], "plain": [0.80, 0.81, 0.80]}
    first = search({"masked": 0.99, "plain": 0.8})
    read = seeds(first, again(values, flags=1), score="acc")
    assert list(read["architecture"]) == ["plain", "masked"]
    assert list(read["flagged"]) == [0, 1]
    read = seeds(first, again(values), score="acc")
    assert list(read["architecture"]) == ["masked", "plain"]


def test_one_seed_tells_nothing_and_none_fails_nothing():
    first = search({"a": 0.9, "b": 0.8, "c": 0.7})
    fresh = again({"a": [0.89], "b": [0.79, 0.81], "c": []}, failed=1)
    read = seeds(first, fresh, score="acc").set_index("architecture")
    assert list(read.index) == ["b", "a"]
    assert dict(read["verdict"]) == {"b": "winner", "a": "unknown"}
    assert math.isnan(read.loc["a", "low"])
    assert not read.loc["a", "luck"]
    nothing = again({"a": [math.nan, math.nan]})
    read = seeds(first, nothing, score="acc")
    assert list(read["n"]) == [0]
    assert list(read["failed"]) == [2]


def test_a_seed_that_two_tables_have_counts_once_and_the_complete_one():
    fresh = again({"a": [0.7, 0.8]})
    broken = fresh.assign(status="error", acc=math.nan)
    read = seeds(search({"a": 0.9}), broken, fresh, fresh, score="acc").iloc[0]
    assert (read["n"], read["failed"]) == (2, 0)


def test_what_is_varied_beside_the_architecture_tells_rows_apart():
    first = search({"a": 0.9}).assign(epochs_=1)
    first = pd.concat([first, first.assign(number=1, acc=0.5, epochs_=2)])
    fresh = again({"a": [0.7, 0.8]})
    fresh = pd.concat([fresh.assign(epochs_=1), fresh.assign(epochs_=2)])
    read = seeds(first, fresh, score="acc", by=["architecture", "epochs_"])
    assert dict(zip(read["epochs_"], read["number"], strict=True)) == {1: 0, 2: 1}


def test_what_cannot_be_read_is_said():
    first, fresh = search({"a": 0.9}), again({"a": [0.7, 0.8]})
    with pytest.raises(InputError, match="fresh seeds, got none"):
        seeds(first, score="acc")
    with pytest.raises(InputError, match="score: expected"):
        seeds(first, fresh)
    with pytest.raises(InputError, match="repeat"):
        seeds(first, first, score="acc")
    with pytest.raises(InputError, match="confidence"):
        seeds(first, fresh, score="acc", confidence=1.0)
    with pytest.raises(InputError, match="direction"):
        seeds(first, fresh, score="acc", direction="up")
