"""Who wins before the strongest judge that all had, against a plain search over the table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from nas.analysis import judge
from nas.analysis.judgement import stated_passes
from nas.errors import InputError


def table(**judges):
    """Return a trial table: label -> (passes, images, accuracies; None where it was not heard)."""
    n = len(next(iter(judges.values()))[2])
    columns = {"number": range(n), "status": ["complete"] * n}
    for label, (passes, images, accuracies) in judges.items():
        values = np.array([math.nan if a is None else a for a in accuracies])
        known = ~np.isnan(values)
        half = 1.96 * np.sqrt(values * (1 - values) / images)
        columns |= {
            f"judge_{label}_accuracy": values,
            f"judge_{label}_accuracy_low": values - half,
            f"judge_{label}_accuracy_high": values + half,
            f"judge_{label}_images": np.where(known, images, math.nan),
            f"judge_{label}_passes": np.where(known, passes, math.nan),
        }
    return pd.DataFrame(columns)


def test_the_strongest_judge_that_all_had_decides():
    found = table(
        pgd=(20, 500, [0.8, 0.7, 0.6]),
        apgd=(200, 500, [0.4, 0.5, 0.3]),
        auto=(9700, 500, [0.3, None, 0.35]),
    )
    verdict = judge(found)
    assert (verdict.winner, verdict.judge, verdict.passes) == (1, "apgd", 200)
    assert verdict.candidates == (1, 0, 2)
    assert verdict.lacking == {"auto": [1]}
    assert any("auto is passed over: it has not judged trial 1" in line for line in verdict.why)
    verdict = judge(found, [0, 2])
    assert (verdict.winner, verdict.judge) == (2, "auto")
    assert verdict.level == (0,)


def test_it_agrees_with_a_plain_search_on_random_tables():
    rng = np.random.default_rng(0)
    for _ in range(100):
        judges = {}
        for label in "abc":
            heard = rng.random(4) < 0.8
            accuracies = [a if h else None for a, h in zip(rng.random(4), heard, strict=True)]
            judges[label] = (float(rng.integers(1, 4)), int(rng.integers(50, 500)), accuracies)
        among = [n for n in range(4) if any(j[2][n] is not None for j in judges.values())]
        complete = {
            label: j for label, j in judges.items() if all(j[2][n] is not None for n in among)
        }
        verdict = judge(table(**judges))
        if not complete:
            assert verdict.winner is None
            continue
        strongest = max(j[:2] for j in complete.values())
        possible = [j for j in complete.values() if j[:2] == strongest]
        assert verdict.winner in [max(among, key=lambda n: j[2][n]) for j in possible]
        assert (verdict.passes, verdict.images) == strongest


def test_no_judge_of_all_is_no_winner():
    verdict = judge(table(a=(10, 50, [0.5, None]), b=(20, 50, [None, 0.5])))
    assert verdict.winner is None
    assert verdict.lacking == {"b": [0], "a": [1]}
    assert "No judge had every candidate" in verdict.why[0]


@pytest.mark.parametrize("flag", ["suspicion_not_converged_raised", "judge_suspicion_x_raised"])
def test_a_suspicious_trial_does_not_win_in_silence(flag):
    found = table(a=(10, 500, [0.9, 0.5, 0.4])).assign(**{flag: [1.0, 0.0, 0.0]})
    verdict = judge(found)
    assert verdict.winner == 1
    assert list(verdict.flagged) == [0]
    assert any("Trial 0 has 0.9 but is suspicious" in line for line in verdict.why)
    verdict = judge(found.assign(**{flag: 1.0}))
    assert verdict.winner == 0
    assert any("as is every other" in line for line in verdict.why)


def test_level_are_those_whose_intervals_overlap_the_winners():
    verdict = judge(table(a=(10, 400, [0.60, 0.58, 0.30])))
    assert verdict.winner == 0
    assert verdict.level == (1,)


def test_equal_ones_go_to_the_earlier_and_failed_ones_play_no_part():
    found = table(a=(10, 400, [0.9, 0.6, 0.6]))
    found.loc[0, "status"] = "error"
    assert judge(found).winner == 1
    with pytest.raises(InputError, match="among: expected complete trials, got 0"):
        judge(found, [0, 1])
    with pytest.raises(InputError, match="got none: psinas judge"):
        judge(found[["number", "status"]])


@pytest.mark.parametrize(
    ("metric", "passes"),
    [
        ({"name": "clean"}, 1),
        ({"name": "fgsm", "epsilon": 0.1}, 2),
        ({"name": "pgd", "epsilon": 0.1, "steps": 20, "restarts": 3}, 120),
        ({"name": "square", "epsilon": 0.1, "queries": 500, "restarts": 1}, 500),
        ({"name": "apgd-t", "epsilon": 0.1, "steps": 100, "targets": 9, "restarts": 1}, 1800),
        (
            {
                "name": "cascade",
                "attacks": [{"name": "fgsm", "epsilon": 0.1}, {"name": "pgd", "steps": 20}],
            },
            42,
        ),
        ({"name": "autoattack", "steps": 100, "targets": 9, "queries": 5000}, 9700),
    ],
)
def test_passes_are_those_that_the_settings_state(metric, passes):
    assert stated_passes(metric) == passes
