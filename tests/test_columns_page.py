"""docs/columns.md names every column that a trial table can have, and none that it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metrics.attacks import ATTACKS
from metrics.registry import METRICS
from metrics.robustness.flags import FLAGS
from nas.analysis.trial_table import BOOKKEEPING, STATUSES
from nas.ledger.judged import Judgement
from nas.ledger.table import LEADING
from nas.trial.evaluation import TRAINING_SCORES
from nas.trial.kept import BEST_IS_AVERAGE
from nas.trial.scoring import SECONDS

PAGE = (Path(__file__).parents[1] / "docs" / "columns.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
TYPES = ("string", "int64", "category", "Int64", "float64")
SCORES = {row[0].strip("`"): row for row in ROWS if not row[1].startswith(TYPES)}
OTHERS = {row[0].strip("`"): row for row in ROWS if row[0].strip("`") not in SCORES}
VARYING = {
    "ATTACK": "|".join(re.escape(name.replace("-", "_")) for name in ATTACKS),
    "NAME": "[a-z0-9_]+",
    "FLAG": "|".join(map(re.escape, FLAGS)),
    "PSI": "psi(?:_init|_epoch1|_limit)?",
    "SHARE": "[a-z]+(?:_[0-9.]+)?",
    "NORM": "l1|l2|linf",
    "EARLY": "psi_init|psi_epoch1",
    "SCORE": "[a-z0-9_]+",
    "D": "[0-9.e+-]+",
    "E": "[0-9.e+-]+",
    "K": "[0-9]",
}
BY_ATTACK = "any attack"


def pattern(name):
    parts = re.split(r"([A-Z]+)", name)
    return "".join(f"(?:{VARYING[p]})" if p in VARYING else re.escape(p) for p in parts)


def made_by(row):
    return [name.strip() for name in row[3].split(",")]


def every_score():
    """Yield score, and what the page calls the metric that makes it."""
    for name in METRICS:
        metric = METRICS[name]()
        for score in metric.score_names:
            yield score, BY_ATTACK if name in ATTACKS else name
        if metric.stage != "end":
            yield f"{metric.prefix}{SECONDS}", name
    for score in TRAINING_SCORES:
        yield score, "every trial"
    yield BEST_IS_AVERAGE, "recipes with `weight_average`"
    yield "clean_accuracy_std", "trials with `repeats`"
    for metric in (METRICS["apgd"](label="apgd40"), METRICS["autoattack"]()):
        scores = dict.fromkeys(metric.score_names, 0.5)
        judged = Judgement(0, "", metric.prefix, {}, scores, 1, 1.0)
        yield from ((column, "trials that `psinas judge` judged") for column in judged.columns)


def test_every_score_of_every_metric_is_documented_under_it():
    missing = [
        (score, metric)
        for score, metric in every_score()
        if not any(
            re.fullmatch(pattern(name), score) and metric in made_by(row)
            for name, row in SCORES.items()
        )
    ]
    assert not missing


@pytest.mark.parametrize("name", SCORES)
def test_every_documented_score_is_made_by_what_it_says(name):
    makers = {m for score, m in every_score() if re.fullmatch(pattern(name), score)}
    assert set(made_by(SCORES[name])) <= makers


def test_everything_beside_the_scores_is_documented_with_its_type():
    assert {name: OTHERS[name][1] for name in BOOKKEEPING} == dict(BOOKKEEPING)
    assert set(OTHERS) == {"run", *LEADING, "DECISION", *BOOKKEEPING}
    assert all(f"`{status}`" in OTHERS["status"][3] for status in STATUSES)
    assert [name for name in OTHERS if name in BOOKKEEPING] == list(BOOKKEEPING)
