"""Importance is Optuna's on the same trials; its intervals, and what is left out, are said."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from nas.analysis import importance
from nas.analysis.decisive import Sample, resampled
from nas.analysis.fanova import fanova
from nas.errors import InputError

CHOICES = {"depth": [1, 2, 4], "width": ["a", "b"], "rate": [0.1, 0.2, 0.3, 0.4], "one": [7]}


def random_table(seed, n=60, *, conditional=False, digits=1):
    """Return trials whose score goes with depth, some failed, some without the score."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.choice(own, size=n) for name, own in CHOICES.items()})
    table["score"] = (table["depth"] + 0.5 * table["rate"] + rng.normal(size=n)).round(digits)
    table["status"] = rng.choice(["complete"] * 6 + ["oom", "diverged"], size=n)
    table.loc[rng.random(n) < 0.05, "score"] = np.nan
    if conditional:
        table["rate"] = table["rate"].where(table["width"] == "a")
    table.attrs = {"objectives": {"score": "max"}, "decisions": list(CHOICES), "choices": CHOICES}
    return table


def optunas(table, evaluator, direction):
    """Return what Optuna says of the same trials, failed ones included."""
    study = optuna.create_study(direction=direction)
    for row in table.to_dict("records"):
        params = {name: row[name] for name in CHOICES if row[name] == row[name]}
        complete = row["status"] == "complete" and row["score"] == row["score"]
        state = optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: CategoricalDistribution(CHOICES[name]) for name in params},
                value=row["score"] if complete else None,
                state=state,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_ped_anova_is_optunas(seed, conditional, direction):
    table = random_table(seed, conditional=conditional)
    table.attrs["objectives"] = {"score": direction}
    expected = optunas(table, PedAnovaImportanceEvaluator(), direction + "imize")
    found = importance(table, resamples=0).set_index("decision")["importance"]
    assert found.to_dict() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_fanova_is_optunas(seed):
    table = random_table(seed, n=30)
    expected = optunas(table, FanovaImportanceEvaluator(seed=seed), "maximize")
    found = importance(table, method="fanova", resamples=0, seed=seed).set_index("decision")
    assert found["importance"].to_dict() == pytest.approx(expected, abs=1e-9)


def test_fanova_of_an_additive_score_is_its_share_of_the_variance():
    grid = np.stack(np.meshgrid(range(2), range(2), range(2)), axis=-1).reshape(-1, 3)
    codes = grid.repeat(20, axis=0)
    losses = 3.0 * codes[:, 0] + 1.0 * codes[:, 1]
    found = fanova(codes, np.array([2, 2, 2]), losses, seed=0)
    assert found.tolist() == pytest.approx(
        [0.9, 0.1, 0.0], abs=0.03
    )  # of columns that are no coin tosses


def test_intervals_hold_the_importance_and_narrow_with_more_trials():
    few, many = (importance(random_table(5, n=n), resamples=60) for n in (100, 3000))
    for found in (few, many):
        assert (found["low"] <= found["importance"]).all()
        assert (found["importance"] <= found["high"]).all()
        assert found["importance"].sum() == pytest.approx(1)
    assert found["decision"].tolist()[0] == "depth"
    width = [f.set_index("decision").eval("high - low")["depth"] for f in (few, many)]
    assert width[1] < width[0] / 2
    table = random_table(5, n=100)
    pd.testing.assert_frame_equal(few, importance(table, resamples=60))
    assert not few.equals(importance(table, resamples=60, seed=1))
    assert importance(table, resamples=0)["low"].isna().all()


def test_an_interval_is_a_percentile_of_resamples_stretched_to_the_importance():
    sample = Sample(["a"], [["x", "y"]], np.zeros((40, 1), dtype=int), np.arange(40.0))

    def mean(drawn, _):
        assert len(drawn.losses) == len(drawn.codes) == 40
        return np.array([drawn.losses.mean()])

    drawn = resampled(sample, 400, 0, mean)
    assert drawn.std() == pytest.approx(np.arange(40).std() / np.sqrt(40), rel=0.15)
    assert len(resampled(sample, 3, 0, lambda d, _: np.full(1, len(d.losses)), most=7)) == 3
    few = importance(random_table(3, n=60), resamples=1)
    assert ((few["low"] == few["importance"]) | (few["high"] == few["importance"])).all()


def test_forests_have_intervals_too():
    found = importance(random_table(5, n=60), method="fanova", resamples=5).set_index("decision")
    assert 0 < found.loc["depth", "low"] < found.loc["depth", "high"] < 1


def test_what_was_left_out_is_said():
    table = random_table(1)
    found = importance(table, resamples=0)
    complete = table["status"] == "complete"
    unscored = int((complete & table["score"].isna()).sum())
    assert unscored > 0
    assert found.attrs["left_out"] == {
        "oom": int((table["status"] == "oom").sum()),
        "diverged": int((table["status"] == "diverged").sum()),
        "without the score": unscored,
    }
    assert any("what makes trials fail is not seen" in note for note in found.attrs["notes"])
    assert any("one choice only" in note and "one" in note for note in found.attrs["notes"])
    assert found.set_index("decision")["importance"]["one"] == 0
    assert set(found["n"]) == {int((complete & table["score"].notna()).sum())}


@pytest.mark.parametrize("method", ["ped-anova", "fanova"])
def test_where_nothing_can_be_said_it_says_why(method):
    table = random_table(0)
    odd = {
        "too few": table[table["status"] == "complete"].dropna().head(3),
        "got 0": table.assign(status="oom"),
        "the same in every trial": table.assign(score=0.5),
    }
    for reason, one in odd.items():
        found = importance(one, method=method, resamples=3)
        assert found["importance"].isna().all()
        assert found["low"].isna().all()
        assert list(found["decision"]) == list(CHOICES)
        assert any(reason in note for note in found.attrs["notes"]), reason
    empty = importance(table.head(0), method=method)
    assert len(empty) == len(CHOICES)


def test_a_decision_that_not_all_have_is_said_and_counted():
    table = random_table(1, conditional=True)
    found = importance(table, resamples=3)
    rows = table[(table["status"] == "complete") & table["score"].notna()]
    assert found.set_index("decision")["n"]["rate"] == rows["rate"].notna().sum()
    assert any("not asked in every trial: rate" in note for note in found.attrs["notes"])
    forest = importance(table, method="fanova", resamples=2).set_index("decision")["importance"]
    assert np.isnan(forest["rate"])
    assert forest.sum() == pytest.approx(1)


def test_few_of_the_best_and_all_of_the_best_are_said():
    few = importance(random_table(0, n=30), resamples=0).attrs["notes"]
    assert any("a guess below 5" in note for note in few)
    table = random_table(0)
    table["score"] = table["score"].where(table["score"].isna(), 1.0)
    table.loc[table.index[table["score"].notna() & (table["status"] == "complete")][0], "score"] = 0
    every = importance(table, resamples=0).attrs["notes"]
    assert not any("no importance" in note and "best tenth is all" in note for note in every)


def test_a_choice_that_is_none_is_a_choice():
    table = random_table(2)
    told = importance(table, resamples=0)
    as_none = table.assign(rate=table["rate"].where(table["rate"] != 0.1))
    as_none.attrs["choices"] = {**CHOICES, "rate": [None, 0.2, 0.3, 0.4]}
    pd.testing.assert_frame_equal(told, importance(as_none, resamples=0))


def test_a_table_without_attributes_is_read_when_told_what_to_look_at():
    table = random_table(0)
    told = importance(table, resamples=0)
    table.attrs = {}
    with pytest.raises(InputError, match="decisions"):
        importance(table, "score")
    table["accuracy"] = table.pop("score")
    found = importance(table, "accuracy", decisions=list(CHOICES), resamples=0)
    pd.testing.assert_frame_equal(found, told)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"method": "magic"}, "ped-anova or fanova"),
        ({"score": "scor"}, "score"),
        ({"decisions": ["heigth"]}, "heigth"),
        ({"resamples": -1}, "resamples"),
        ({"score": "depth"}, "decision"),
    ],
)
def test_bad_questions_are_one_line(asked, line):
    with pytest.raises(InputError, match=line):
        importance(random_table(0), **asked)
