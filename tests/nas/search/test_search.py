"""The search without execution: duplicates, failures, resumes, and what a kill leaves behind."""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nas.data.config import DataConfig
from nas.errors import InputError, NoStudy
from nas.ledger.fronts import pareto_front
from nas.ledger.journal import repair_journal
from nas.ledger.lock import OWNER, RunLock
from nas.ledger.results import ORDER, PLACE, RESULT
from nas.ledger.study import open_study
from nas.ledger.table import load_table, save_table
from nas.samplers.registry import SAMPLERS
from nas.search.books import failure
from nas.search.plan import SearchPlan
from nas.search.sampling import MAX_REPEATS
from nas.search.search import MAX_ATTEMPTS, Search
from nas.search.winners import best, worth_keeping
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels, SearchSpace

GRID = DepthChannels(depth=(1, 2, 3, 4), channels=(8, 16, 32))


def plan(sampler="random", trials=None, space=GRID, vary=None, objectives=None):
    template = Trial(next(iter(space)), Recipe(), DataConfig(), ())
    return SearchPlan(
        space, template, vary or {}, objectives or {"pgd_accuracy": "max"}, SAMPLERS[sampler],
        trials=trials,
    )  # fmt: skip


def open_search(run, the_plan):
    run.mkdir(exist_ok=True)
    return Search(open_study(run, directions=the_plan.directions), the_plan)


def pretend(trial: Trial) -> dict:
    """Return an outcome as a worker would: deeper and wider is better."""
    a = dict(trial.architecture.choices)
    accuracy = a["depth"] / 10 + a["channels"] / 100 + trial.recipe.entropy_weight / 1000
    scores = {"pgd_accuracy": accuracy, "psi": 50.0 - a["depth"]}
    return {"status": "complete", "reason": "", "scores": scores, "epochs": 1, "seconds": 1.0}


def drive(search, workers=1, stop_after=None):
    """Run a search in this process with so many trials in flight, the youngest finishing first."""
    flying, done = [], 0
    while True:
        while len(flying) < workers and (proposal := search.propose()) is not None:
            flying.append(proposal)
        if not flying:
            return
        proposal = flying.pop()
        search.finish(proposal.number, pretend(proposal.trial))
        done += 1
        if stop_after is not None and done >= stop_after:
            return


def rows(run):
    table = load_table(run)
    return [
        tuple(r) for r in table[["number", "status", "depth", "channels", "pgd_accuracy"]].values
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_budget_of_different_architectures_is_met(sampler, tmp_path):
    search = open_search(tmp_path, plan(sampler, trials=7))
    drive(search)
    table = load_table(tmp_path)
    assert search.finished == len(table) == 7
    assert table["architecture"].nunique() == 7
    assert not search.used_up


def test_grid_takes_each_architecture_once_in_order(tmp_path):
    drive(open_search(tmp_path, plan("grid")))
    assert [r[2:4] for r in rows(tmp_path)] == [(a["depth"], a["channels"]) for a in GRID]


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_one_worker_and_two_give_the_same_table(sampler, tmp_path):
    for workers in (1, 2):
        drive(open_search(tmp_path / str(workers), plan(sampler, trials=9)), workers)
    assert rows(tmp_path / "1") == rows(tmp_path / "2")


@pytest.mark.parametrize(
    "sampler", [pytest.param(s, marks=[pytest.mark.slow] * (s == "gp")) for s in SAMPLERS]
)
def test_a_resumed_search_gives_the_table_of_an_unbroken_one(sampler, tmp_path):
    the_plan = plan(sampler, trials=10 if sampler == "gp" else 11)  # gp would repeat for seconds
    drive(open_search(tmp_path / "whole", the_plan))
    for cut in (3, 2, 4, None):
        search = open_search(tmp_path / "broken", the_plan)
        drive(search, stop_after=cut)
        if cut is not None:
            search.propose()  # left RUNNING, as by a kill
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_the_predictor_heeds_what_other_workers_run(tmp_path):
    """Three trials that run draw the next proposal elsewhere than three that have failed."""
    next_one = []
    for name in ("running", "failed"):
        space = DepthChannels(depth=tuple(range(1, 13)), channels=tuple(range(8, 33)))
        the_plan = plan("predictor", space=space)
        search = open_search(tmp_path / name, the_plan)
        drive(search, stop_after=11)
        others = [search.propose() for _ in range(3)]
        for other in others if name == "failed" else ():
            search.finish(other.number, failure("error", "for the test"))
        proposal = search.propose()
        next_one.append(proposal.trial.architecture)
        assert proposal.number == 14
        assert proposal.trial.architecture not in [other.trial.architecture for other in others]
    assert next_one[0] != next_one[1]


def test_a_finished_search_is_extended(tmp_path):
    drive(open_search(tmp_path, plan("tpe", trials=4)))
    four = rows(tmp_path)
    drive(open_search(tmp_path, plan("tpe", trials=6)))
    assert rows(tmp_path)[:4] == four
    assert len(rows(tmp_path)) == 6
    search = open_search(tmp_path, plan("tpe", trials=6))
    assert not search.left()
    assert search.propose() is None


def test_a_space_that_is_used_up_ends_the_search(tmp_path):
    search = open_search(tmp_path, plan("random", trials=100))
    drive(search)
    assert search.used_up
    assert search.finished == 12
    assert "each of 12 combinations" in search.why_used_up()
    assert len(load_table(tmp_path, repeats=True)) >= 12 + MAX_REPEATS


class Merging(SearchSpace):
    """Decision ``dead`` plays no part when ``depth`` is 1."""

    def decisions(self):
        return {"depth": (1, 2), "dead": (0, 1), "channels": (8,)}

    def graph(self, choices):
        return choices if choices["depth"] > 1 else {**choices, "dead": 0}

    def network(self, architecture, task):
        raise NotImplementedError


def test_architectures_that_build_the_same_graph_are_evaluated_once(tmp_path):
    search = open_search(tmp_path, plan("grid", space=Merging()))
    drive(search)
    assert search.finished == 3
    table = load_table(tmp_path, repeats=True)
    assert table["repeat_of"].tolist()[1] == 0
    assert table["pgd_accuracy"][0] == table["pgd_accuracy"][1]
    study = open_study(tmp_path)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4
    assert study.trials[0].values == study.trials[1].values


def test_a_grid_of_many_equal_graphs_is_gone_through(tmp_path):
    class Same(Merging):
        def decisions(self):
            return {"depth": (1, 2), "dead": tuple(range(150)), "channels": (8,)}

    search = open_search(tmp_path, plan("grid", space=Same()))
    drive(search)
    assert search.finished == 1 + 150
    assert not search.used_up


def test_a_duplicate_of_a_running_trial_waits_for_it(tmp_path):
    search = open_search(tmp_path, plan("grid", space=Merging()))
    first, third = search.propose(), search.propose()
    assert (first.number, third.number) == (0, 1)  # the grid's second is the same graph as 0
    assert first.trial.architecture["depth"] < third.trial.architecture["depth"]
    assert open_study(tmp_path).trials[1].state.name == "RUNNING"
    search.finish(0, pretend(first.trial))
    again = open_study(tmp_path).trials[1]
    assert again.state.name == "COMPLETE"
    assert again.user_attrs[RESULT]["repeat_of"] == 0


def test_a_waiting_duplicate_survives_a_kill(tmp_path):
    search = open_search(tmp_path, plan("grid", space=Merging()))
    search.propose(), search.propose()
    resumed = open_search(tmp_path, plan("grid", space=Merging()))
    drive(resumed)
    assert [t.state.name for t in open_study(tmp_path).trials] == ["COMPLETE"] * 4
    assert len(load_table(tmp_path)) == 3


def test_a_known_failure_is_not_tried_again(tmp_path):
    search = open_search(tmp_path, plan("grid", space=Merging()))
    search.finish(search.propose().number, failure("oom", "too large"))
    proposal = search.propose()
    assert proposal.number == 1
    table = load_table(tmp_path, repeats=True)
    assert table["status"].tolist()[:2] == ["oom", "oom"]
    assert [t.state.name for t in open_study(tmp_path).trials][:2] == ["FAIL", "FAIL"]


def test_failures_are_rows_with_a_reason(tmp_path):
    search = open_search(tmp_path, plan("grid"))
    outcomes = [
        failure("error", "KeyError: x"),
        failure("diverged", "the loss is nan"),
        {"status": "complete", "reason": "", "scores": {"pgd_accuracy": math.nan, "psi": 1.0}},
        {"status": "complete", "reason": "", "scores": {"psi": 1.0}},
    ]
    for outcome in outcomes:
        search.finish(search.propose().number, outcome)
    drive(search)
    table = load_table(tmp_path)
    assert table["status"].tolist()[:4] == ["error", "diverged", "diverged", "diverged"]
    assert table["reason"][0] == "KeyError: x"
    assert "pgd_accuracy" in table["reason"][2]
    assert (table["status"][4:] == "complete").all()
    assert search.finished == 12


def stopped(*robust):
    """Return the outcome of a trial that was stopped at the last of its rungs 2, 4, ..."""
    accuracies = enumerate(robust, start=1)
    rungs = {str(2**k): {"robust_accuracy": r, "clean_accuracy": 0.9} for k, r in accuracies}
    outcome = {**failure("stopped", "asha"), "stopped_by": ["robust_accuracy"], "rungs": rungs}
    return {**outcome, "epochs": 2 ** len(robust), "seconds": 1.0}


def test_a_stopped_trial_is_pruned_with_its_rungs(tmp_path):
    search = open_search(tmp_path, plan("grid", space=Merging()))
    search.finish(search.propose().number, stopped(0.5, 0.25))
    # the grid's second builds the same graph: it is not trained
    assert search.propose().trial.architecture["depth"] == 2
    for trial in open_study(tmp_path).trials[:2]:
        assert trial.state.name == "PRUNED"
        assert trial.intermediate_values == {2: 0.5, 4: 0.25}
        assert trial.user_attrs[RESULT]["rungs"]["4"]["clean_accuracy"] == 0.9
        assert trial.user_attrs[RESULT]["scores"] == {}
    assert open_study(tmp_path).trials[1].user_attrs[RESULT]["repeat_of"] == 0


def test_accuracies_of_rungs_are_not_told_beside_a_minimised_objective(tmp_path):
    search = open_search(tmp_path, plan("random", trials=3, objectives={"psi": "min"}))
    number = search.propose().number
    search.finish(number, stopped(0.5))
    trial = open_study(tmp_path).trials[number]
    assert (trial.state.name, trial.intermediate_values) == ("PRUNED", {})


def test_a_stopped_trial_that_was_half_told_is_told_in_full(tmp_path, monkeypatch):
    the_plan = plan("grid", trials=2)
    search = open_search(tmp_path, the_plan)
    number = search.propose().number

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(search.study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        search.finish(number, stopped(0.5, 0.25))
    half = open_study(tmp_path).trials[0]
    assert (half.state.name, half.intermediate_values) == ("RUNNING", {2: 0.5, 4: 0.25})
    assert open_search(tmp_path, the_plan).propose().number == 1
    told = open_study(tmp_path).trials[0]
    assert (told.state.name, told.intermediate_values) == ("PRUNED", {2: 0.5, 4: 0.25})


def test_the_table_has_rungs_where_there_is_a_scheduler(tmp_path):
    search = open_search(tmp_path, plan("grid", trials=3))
    proposal = search.propose()
    search.finish(proposal.number, pretend(proposal.trial))
    assert "rung" not in load_table(tmp_path)
    search.finish(search.propose().number, stopped(0.5, 0.25))
    search.finish(search.propose().number, failure("stopped", "as of an earlier version"))
    table = load_table(tmp_path)
    assert table["status"].tolist() == ["complete", "stopped", "stopped"]
    assert table["rung"].fillna(-1).tolist() == [-1, 4, -1]


def test_a_kill_between_the_two_writes_of_a_finish_is_mended(tmp_path):
    the_plan = plan("grid")
    search = open_search(tmp_path, the_plan)
    proposal = search.propose()
    search._tell = lambda number, outcome: None  # killed before the second write
    search._remember = lambda trial: None
    search._write(proposal.number, {**pretend(proposal.trial), "key": proposal.trial.key,
                                    "repeat_of": None, "architecture": {}})  # fmt: skip
    assert open_study(tmp_path).trials[0].state.name == "RUNNING"
    resumed = open_search(tmp_path, the_plan)
    assert open_study(tmp_path).trials[0].state.name == "COMPLETE"
    assert resumed.propose().number == 1


def test_a_trial_during_which_drivers_die_runs_alone_and_is_then_given_up(tmp_path):
    the_plan = plan("grid", trials=2)
    alone = []
    for _ in range(2 * MAX_ATTEMPTS):
        proposal = open_search(tmp_path, the_plan).propose()
        assert proposal.number == 0
        alone.append(proposal.alone)
    assert alone == [False] * MAX_ATTEMPTS + [True] * MAX_ATTEMPTS
    assert open_search(tmp_path, the_plan).propose().number == 1
    table = load_table(tmp_path)
    assert table["status"].tolist() == ["error", "running"]
    assert "drivers died" in table["reason"][0]


def test_a_trial_that_gets_on_between_dying_drivers_is_not_given_up(tmp_path):
    the_plan = plan("grid", trials=2)

    def adopted(kept):
        search = open_search(tmp_path, the_plan)
        search.kept_epochs = {0: kept}.get
        return search.propose()

    for kept in range(4 * MAX_ATTEMPTS):
        proposal = adopted(kept)
        assert (proposal.number, proposal.alone) == (0, False)
    alone = [adopted(kept).alone for _ in range(2 * MAX_ATTEMPTS - 2)]
    assert alone == [False] * (MAX_ATTEMPTS - 2) + [True] * MAX_ATTEMPTS
    assert adopted(kept).number == 1


def test_vary_searches_the_recipe_beside_the_architecture(tmp_path):
    vary = {"recipe.entropy_weight": [0, 4.5], "data.classes": [[0, 1], [2, 3]]}
    space = DepthChannels(depth=(1,), channels=(8, 16))
    search = open_search(tmp_path, plan("grid", space=space, vary=vary))
    seen = set()
    while (proposal := search.propose()) is not None:
        trial = proposal.trial
        seen.add((trial.architecture["channels"], trial.recipe.entropy_weight, trial.data.classes))
        template = replace(search.plan.template, architecture=trial.architecture)
        for name, value in proposal.overrides.items():
            template = template.varied(name, value)
        assert template == trial
        search.finish(proposal.number, pretend(trial))
    assert seen == {(c, e, k) for c in (8, 16) for e in (0, 4.5) for k in ((0, 1), (2, 3))}
    assert load_table(tmp_path)["recipe.entropy_weight"].tolist().count(4.5) == 4


def test_two_objectives(tmp_path):
    drive(
        open_search(
            tmp_path, plan("nsga2", trials=6, objectives={"pgd_accuracy": "max", "psi": "min"})
        )
    )
    assert [d.name for d in open_study(tmp_path).directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(rows(tmp_path)) == 6


def test_any_optuna_storage_will_do(tmp_path):
    the_plan = plan("random", trials=3)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    study = open_study(tmp_path, directions=the_plan.directions, storage=url, name="mine")
    drive(Search(study, the_plan))
    again = open_study(tmp_path, storage=url, name="mine")
    assert len(again.trials) == 3
    with pytest.raises(NoStudy, match="other"):
        open_study(tmp_path, storage=study._storage, name="other")
    for opened in (study, again):
        opened._storage._backend.engine.dispose()


def test_choices_of_several_types_can_be_saved(tmp_path):
    import pandas as pd

    vary = {"recipe.step_size": [None, 2 / 255], "data.classes": [None, [0, 1]], "repeat": [0]}
    space = DepthChannels(depth=(1,), channels=(8,))
    drive(open_search(tmp_path, plan("grid", space=space, vary=vary)))
    table = load_table(tmp_path)
    save_table(table, tmp_path)
    saved = pd.read_parquet(tmp_path / "trials.parquet")
    assert saved["recipe.step_size"].isna().tolist() == [True, True, False, False]
    assert saved["data.classes"].fillna("all").tolist() == ["all", "[0, 1]"] * 2


def test_an_orderly_stop_is_not_held_against_a_trial(tmp_path):
    the_plan = plan("grid", trials=2)
    for _ in range(3 * MAX_ATTEMPTS):
        study = open_study(tmp_path, directions=the_plan.directions)
        proposal = Search(study, the_plan, died=False).propose()
        assert (proposal.number, proposal.alone) == (0, False)
    assert load_table(tmp_path)["status"].tolist() == ["running"]


def test_the_lock_tells_a_driver_that_was_killed(tmp_path):
    with RunLock(tmp_path) as lock:
        assert not lock.died
    with RunLock(tmp_path) as lock:
        assert not lock.died
    (tmp_path / OWNER).write_text("pid 1 on a machine that lost its power")
    with RunLock(tmp_path) as lock:
        assert lock.died


def test_what_workers_finished_while_the_driver_died_is_not_run_again(tmp_path):
    the_plan = plan("grid", trials=3)
    killed = open_search(tmp_path, the_plan)
    first, second = killed.propose(), killed.propose()
    search = open_search(tmp_path, the_plan)
    there = {first.number: pretend(first.trial), second.number: failure("oom", "with others")}

    def saved(number, trial):
        assert trial == (first, second)[number].trial
        return there[number]

    assert search.recover(saved) == [0]
    assert search.finished == 1
    assert [search.propose().number for _ in range(2)] == [1, 2]
    assert load_table(tmp_path)["pgd_accuracy"][0] == pretend(first.trial)["scores"]["pgd_accuracy"]


@pytest.mark.parametrize(
    ("sampler", "settings"),
    [("evolution", {"population_size": 3, "tournament_size": 2}), ("reinforce", {})],
)
def test_a_clock_that_jumps_back_changes_no_proposal(sampler, settings, tmp_path, monkeypatch):
    """Trials end in another order than they begin; the resumed driver reads all at once."""
    from optuna.storages import journal

    class Back(datetime.datetime):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            cls.hours += 1
            return datetime.datetime(2026, 1, 1, tzinfo=tz) - datetime.timedelta(hours=cls.hours)

    the_plan = replace(plan(sampler, trials=12), sampler_settings=settings)
    for run, clock in (("steady", datetime.datetime), ("jumping", Back)):
        monkeypatch.setattr(journal._storage, "datetime", clock)
        for _ in range(6):
            drive(open_search(tmp_path / run, the_plan), workers=3, stop_after=3)
    trials = sorted(
        open_study(tmp_path / "jumping").trials, key=lambda t: t.user_attrs[RESULT][ORDER]
    )
    ended = [t.datetime_complete for t in trials]
    assert ended == sorted(ended, reverse=True)
    assert rows(tmp_path / "jumping") == rows(tmp_path / "steady")


@pytest.mark.parametrize("sampler", ["grid", "tpe", "evolution", "reinforce"])
def test_a_retry_takes_the_place_of_what_failed(sampler, tmp_path):
    """The search that had an outage ends with the trials of one that had none."""
    the_plan = plan(sampler, trials=12)
    search = open_search(tmp_path / "outage", the_plan)
    for outage in (False, True, True, False):
        proposal = search.propose()
        failed = failure("error", "OSError: the file server is away")
        search.finish(proposal.number, failed if outage else pretend(proposal.trial))
    search = open_search(tmp_path / "outage", the_plan)
    assert search.retry(["oom"]) == 0
    assert search.retry(["error", "oom"]) == 2
    first = search.propose()
    search = open_search(tmp_path / "outage", the_plan)  # killed while it ran
    assert search.propose().trial == first.trial
    search.finish(first.number, pretend(first.trial))
    drive(search)
    assert search.retry(["error"]) == 0
    table = load_table(tmp_path / "outage")
    assert table["status"].tolist() == ["complete"] * 12
    assert len(set(table["architecture"])) == 12
    assert table["number"].tolist() == list(range(12))
    assert table.loc[1, "architecture"] == first.trial.architecture.hash
    if sampler == "grid":
        drive(open_search(tmp_path / "whole", the_plan))
        whole = load_table(tmp_path / "whole")
        assert sorted(table["architecture"]) == sorted(whole["architecture"])
    assert open_search(tmp_path / "outage", the_plan).propose() is None


def test_a_stop_with_two_objectives_is_a_failure_to_the_sampler(tmp_path):
    search = open_search(tmp_path, plan("grid", objectives={"pgd_accuracy": "max", "psi": "min"}))
    number = search.propose().number
    search.finish(number, stopped(0.25))
    trial = open_study(tmp_path).trials[number]
    assert (trial.state.name, trial.intermediate_values) == ("FAIL", {})
    assert load_table(tmp_path)["status"].tolist() == ["stopped"]


# ---------------------------------------------------------------------------------- lock and ledger


def test_the_lock_refuses_a_second_driver_and_dies_with_its_owner(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from nas.ledger.lock import OWNER, RunLock
with RunLock(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline().strip() == "held"
    with pytest.raises(InputError, match=f"pid {owner.pid}"), RunLock(tmp_path):
        pass
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with RunLock(tmp_path):
        assert f"pid {os.getpid()}" in (tmp_path / "driver.pid").read_text()


@pytest.mark.parametrize("lost", [1, 10, 40])
def test_a_line_cut_short_is_put_aside_and_the_search_goes_on(lost, tmp_path):
    the_plan = plan("random", trials=8)
    drive(open_search(tmp_path / "whole", the_plan))
    drive(open_search(tmp_path, the_plan), stop_after=4)
    journal = tmp_path / "study.journal"
    content = journal.read_bytes()
    journal.write_bytes(content[:-lost])
    assert "cut short" in repair_journal(journal)
    drive(open_search(tmp_path, the_plan))
    assert rows(tmp_path) == rows(tmp_path / "whole")
    aside = (tmp_path / "study.journal.broken").read_bytes().rstrip(b"\n")
    assert aside
    assert content[:-lost].endswith(aside)


def test_every_cut_of_a_journal_can_be_resumed(tmp_path):
    """Cut at each line, and in the middle of each: the search always ends with the same table."""
    the_plan = plan("grid", trials=2)
    drive(open_search(tmp_path / "whole", the_plan))
    content = (tmp_path / "whole" / "study.journal").read_bytes()
    lines = content.splitlines(keepends=True)
    for n in range(2, len(lines)):
        for extra in (0, len(lines[n]) // 2):
            run = tmp_path / f"{n}-{extra}"
            run.mkdir()
            (run / "study.journal").write_bytes(b"".join(lines[:n]) + lines[n][:extra])
            repair_journal(run / "study.journal")
            drive(open_search(run, the_plan))
            assert rows(run) == rows(tmp_path / "whole")


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    the_plan = plan("grid")
    search = open_search(tmp_path, the_plan)
    first, second = search.propose(), search.propose()
    journal = tmp_path / "study.journal"
    with monkeypatch.context() as patch:

        def full(descriptor):
            os.truncate(journal, os.path.getsize(journal) - 9)
            raise OSError(28, "No space left on device")

        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            search.finish(first.number, pretend(first.trial))
    search.finish(second.number, pretend(second.trial))
    assert repair_journal(journal) is None
    drive(open_search(tmp_path, the_plan))
    assert (load_table(tmp_path)["status"] == "complete").all()
    assert len(load_table(tmp_path)) == 12


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    drive(open_search(tmp_path, plan("random", trials=3)))
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    before = b"".join([*lines[:5], lines[5][:7] + b"\n", *lines[6:]])
    journal.write_bytes(before)
    with pytest.raises(InputError, match="broken line 6 of"):
        repair_journal(journal)
    assert journal.read_bytes() == before


def test_a_stale_lock_of_optuna_is_not_waited_for(tmp_path, monkeypatch):
    the_plan = plan("random", trials=2)
    drive(open_search(tmp_path, the_plan), stop_after=1)
    journal = tmp_path / "study.journal"
    os.symlink(journal, f"{journal}.lock")

    def waits(seconds):
        raise AssertionError("Optuna waits for its lock")

    monkeypatch.setattr("optuna.storages.journal._file.time.sleep", waits)
    drive(open_search(tmp_path, the_plan))
    assert len(rows(tmp_path)) == 2


def test_a_missing_ledger_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"study\.journal"):
        load_table(tmp_path)


# ------------------------------------------------------------------------------------ table, front


def test_the_saved_table_is_the_table(tmp_path):
    import pandas as pd

    search = open_search(tmp_path, plan("random", trials=4))
    search.finish(search.propose().number, failure("error", "why, is this a, comma"))
    drive(search)
    table = load_table(tmp_path)
    save_table(table, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "trials.parquet"), table)
    csv = pd.read_csv(tmp_path / "trials.csv")
    assert csv["pgd_accuracy"].equals(table["pgd_accuracy"])
    assert csv["reason"][0] == "why, is this a, comma"


def test_pareto_front_against_brute_force():
    import numpy as np

    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (60, 3)).astype(float)
    values[5, 1] = np.nan
    signs = np.array([1, -1, 1])
    found = pareto_front(values, ["max", "min", "max"])
    for i, row in enumerate(values * signs):
        beaten = any(
            all(a >= b for a, b in zip(other, row, strict=True)) and any(other > row)
            for other in values * signs
            if not np.isnan(other).any()
        )
        assert found[i] == (not beaten and not np.isnan(row).any())
    with pytest.raises(ValueError, match="directions"):
        pareto_front(values, ["up", "min", "max"])
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        pareto_front(values, ["max", "min"])


def test_best_and_kept():
    def result(number, accuracy, psi, status="complete"):
        return {"number": number, "status": status, "scores": {"acc": accuracy, "psi": psi}}

    results = [result(0, 0.9, 9.0), result(1, 0.9, 1.0), result(2, 0.1, 0.5), result(3, 0.3, 7.0),
               result(4, 0.99, 0.1, "diverged"), result(5, 0.2, 0.9)]  # fmt: skip
    assert best(results, "acc", "max")["number"] == 0
    assert best(results, "psi", "min")["number"] == 2
    assert best(results, "moon", "max") is None
    objectives = {"acc": "max", "psi": "min"}
    assert [r["number"] for r in worth_keeping(results, objectives, 1)] == [0, 1, 2, 5]
    assert worth_keeping([results[4]], objectives, 1) == []


def test_of_equals_the_winner_keeps_its_weights_whoever_finished_first():
    results = [{"number": n, "status": "complete", "scores": {"acc": 0.0, "psi": p}}
               for n, p in ((1, 2.0), (2, 3.0), (3, 1.0), (0, 9.0))]  # fmt: skip
    kept = []
    for result in results:
        kept = worth_keeping([*kept, result], {"acc": "max", "psi": "min"}, 1)
    in_order = sorted(results, key=lambda r: r["number"])
    assert best(in_order, "acc", "max") in kept


def test_keeping_one_by_one_keeps_what_keeping_at_once_does():
    import random

    rng = random.Random(0)
    objectives = {"acc": "max", "psi": "min"}
    results = [
        {"number": n, "status": "complete", "scores": {"acc": rng.random(), "psi": rng.random()}}
        for n in range(60)
    ]
    kept = []
    for result in results:
        kept = worth_keeping([*kept, result], objectives, 3)
    assert kept == worth_keeping(results, objectives, 3)
    assert 3 < len(kept) < 30


def test_the_ledger_holds_one_json_attribute_a_trial(tmp_path):
    drive(open_search(tmp_path, plan("random", trials=2)))
    for trial in open_study(tmp_path).trials:
        assert set(trial.user_attrs) == {RESULT, PLACE}
        json.dumps(trial.user_attrs[RESULT])
