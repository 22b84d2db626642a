"""Numbers that people see: 0 to n - 1 over the different trials, whatever the sampler repeats."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nas.data.config import DataConfig
from nas.ledger.journal import repair_journal
from nas.ledger.records import read_records, records_of
from nas.ledger.results import JOURNAL, RESULT
from nas.ledger.study import open_study
from nas.ledger.table import load_table
from nas.samplers.registry import SAMPLERS
from nas.search.books import failure
from nas.search.plan import SearchPlan
from nas.search.search import Search
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels

SPACE = DepthChannels(depth=(1, 2, 3, 4), channels=(8, 16, 32))
OLD = Path(__file__).parent / "before-places.journal"


def plan(sampler="random", trials=10):
    template = Trial(next(iter(SPACE)), Recipe(), DataConfig(), ())
    objectives = {"pgd_accuracy": "max"}
    return SearchPlan(SPACE, template, {}, objectives, SAMPLERS[sampler], trials=trials)


def begin(run, the_plan):
    run.mkdir(exist_ok=True)
    return Search(open_study(run, directions=the_plan.directions), the_plan)


def outcome(trial):
    a = dict(trial.architecture.choices)
    scores = {"pgd_accuracy": a["depth"] / 10 + a["channels"] / 100}
    return {"status": "complete", "reason": "", "scores": scores, "epochs": 1, "seconds": 1.0}


def drive(search, workers=1):
    """Run with so many trials in flight, the youngest finishing first; return what was proposed."""
    flying, seen = [], []
    while True:
        while len(flying) < workers and (proposal := search.propose()) is not None:
            flying.append(proposal)
            seen.append(proposal)
        if not flying:
            return seen
        proposal = flying.pop()
        search.finish(proposal.number, outcome(proposal.trial))


@pytest.mark.parametrize(
    "sampler", [pytest.param(s, marks=[pytest.mark.slow] * (s == "gp")) for s in SAMPLERS]
)
def test_trials_are_numbered_from_0_in_the_order_in_which_they_are_handed_out(sampler, tmp_path):
    search = begin(tmp_path, plan(sampler))
    seen = drive(search, workers=3)
    assert [p.number for p in seen] == list(range(10))
    assert [r["number"] for r in search.results()] == list(range(10))
    table = load_table(tmp_path)
    assert table["number"].tolist() == list(range(10))
    assert table["architecture"].tolist() == [p.trial.architecture.hash for p in seen]
    assert all(search.plan.trial(search.params(p.number)) == p.trial for p in seen)
    if sampler == "random":
        assert len(search.study.get_trials()) > 10


def test_a_repeat_shows_the_number_of_the_trial_that_it_repeats(tmp_path):
    drive(begin(tmp_path, plan()))
    table = load_table(tmp_path, repeats=True)
    repeats = table[table["repeat_of"].notna()]
    assert len(repeats) > 0
    assert repeats["number"].tolist() == repeats["repeat_of"].tolist()
    original = load_table(tmp_path).set_index("number")["architecture"]
    assert repeats["architecture"].tolist() == original[repeats["number"]].tolist()


def numbers(run):
    """Return what a ledger says: architecture's choices -> number."""
    return {tuple(r.params.items()): r.number for r in read_records(run)}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_kill_at_any_line_changes_no_number(workers, tmp_path):
    """Of 3 workers some repeats wait, as the journal is cut, for the trial that they repeat."""
    the_plan = plan(trials=8)
    drive(begin(tmp_path / "whole", the_plan), workers)
    content = (tmp_path / "whole" / JOURNAL).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in [*ends[1:], *(end + 40 for end in ends[1:-1])]:
        run = tmp_path / str(cut)
        run.mkdir()
        (run / JOURNAL).write_bytes(content[:cut])
        repair_journal(run / JOURNAL)
        before = numbers(run)
        assert sorted(before.values()) == list(range(len(before)))
        search = begin(run, the_plan)
        drive(search, workers)
        assert before.items() <= numbers(run).items()
        assert load_table(run)["number"].tolist() == list(range(8))
        assert read_records(run) == records_of(search.study)


def test_a_retry_has_the_number_of_what_failed_and_not_its_outcome(tmp_path):
    search = begin(tmp_path, plan(trials=6))
    seen = [search.propose() for _ in range(4)]
    written = {1: {**failure("error", "OSError: away"), "seconds": 0.25}}
    for proposal in seen:
        search.finish(proposal.number, written.get(proposal.number, outcome(proposal.trial)))
    assert search.retry(["error"]) == 1
    assert load_table(tmp_path)["status"].tolist() == ["complete", "running", *["complete"] * 2]

    search = begin(tmp_path, plan(trials=6))  # killed before it ran: the first outcome is there
    assert search.recover(lambda number, trial: written[number]) == []
    again = search.propose()
    assert (again.number, again.trial) == (1, seen[1].trial)

    search = begin(tmp_path, plan(trials=6))  # killed after it ran
    later = {**written[1], "seconds": 0.5}
    assert search.recover(lambda number, trial: later) == [1]
    assert search.retry(["error"]) == 1
    assert [p.number for p in drive(search)] == [1, 4, 5]
    table = load_table(tmp_path)
    assert table["number"].tolist() == list(range(6))
    assert table["status"].tolist() == ["complete"] * 6


def test_an_earlier_ledger_keeps_its_numbers_and_new_ones_come_above(tmp_path):
    """There a repeat had a number of its own; 6 was left running, and 10 waits to repeat it."""
    shutil.copy(OLD, tmp_path / JOURNAL)
    study = open_study(tmp_path)
    before = {t.number: t for t in study.trials}
    repeats = {n for n, t in before.items() if t.user_attrs.get(RESULT, {}).get("repeat_of")}
    running = [n for n, t in before.items() if t.state.name == "RUNNING"]
    assert (repeats, running) == ({3, 7, 8, 9, 11}, [6, 10])
    assert [r.number for r in read_records(tmp_path)] == list(before)
    assert load_table(tmp_path, repeats=True)["number"].tolist() == list(before)

    search = begin(tmp_path, replace(plan(), trials=9))
    assert search.retry(["error"]) == 1
    seen = drive(search)
    new = [len(before), len(before) + 1]
    assert [p.number for p in seen] == [6, 1, *new]
    for proposal in seen[:2]:
        assert search.plan.trial(before[proposal.number].params) == proposal.trial
    table = load_table(tmp_path)
    assert table["number"].tolist() == sorted({*before, *new} - repeats - {10})
    assert (table["status"] == "complete").all()
    assert read_records(tmp_path) == records_of(open_study(tmp_path))
