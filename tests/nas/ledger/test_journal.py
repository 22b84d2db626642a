"""The journal holds lines back and folds a trial's answers: what Optuna reads stays the same."""

from __future__ import annotations

import json
import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from nas.data.config import DataConfig
from nas.errors import InputError
from nas.ledger.journal import repair_journal
from nas.ledger.journal_storage import together
from nas.ledger.records import read_records, records_of
from nas.ledger.results import JOURNAL
from nas.ledger.study import open_study
from nas.ledger.table import load_table
from nas.samplers.registry import SAMPLERS
from nas.search.plan import SearchPlan
from nas.search.search import Search
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces.nasnet.space import NASNet

CELLS = NASNet()


class Unlocked(JournalFileOpenLock):
    """No lock: its test is of the lines."""

    def acquire(self):
        return True

    def release(self):
        return None


def optunas(run) -> JournalStorage:
    """Return the same file as Optuna reads and writes it."""
    path = str(run / JOURNAL)
    return JournalStorage(JournalFileBackend(path, lock_obj=Unlocked(path)))


def facts(storage) -> list:
    """Return all that a storage says of its only study's trials."""
    (study,) = storage.get_all_studies()
    return [
        (t.number, t.state, t.values, list(t.params.items()), t.distributions, t.user_attrs,
         t.system_attrs, t.intermediate_values, t.datetime_start, t.datetime_complete)
        for t in storage.get_all_trials(study._study_id)
    ]  # fmt: skip


def plan(sampler="random", trials=6):
    template = Trial(next(iter(CELLS)), Recipe(), DataConfig(), ())
    objectives = {"accuracy": "max", "psi": "min"} if sampler == "nsga2" else {"accuracy": "max"}
    return SearchPlan(CELLS, template, {}, objectives, SAMPLERS[sampler], trials=trials)


def begin(run, the_plan):
    run.mkdir(exist_ok=True)
    return Search(open_study(run, directions=the_plan.directions), the_plan)


def outcome(trial):
    number = int(trial.architecture.hash[:6], 16)
    scores = {"accuracy": number / 16**6, "psi": number % 97 / 10}
    return {"status": "complete", "reason": "", "scores": scores, "epochs": 1, "seconds": 1.0}


def drive(search, workers=1):
    """Run with so many trials in flight, the oldest finishing first."""
    flying = []
    while True:
        while len(flying) < workers and (proposal := search.propose()) is not None:
            flying.append(proposal)
        if not flying:
            return
        proposal = flying.pop(0)
        search.finish(proposal.number, outcome(proposal.trial))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "evolution"])
def test_optuna_reads_what_we_hold_in_memory(sampler, tmp_path):
    search = begin(tmp_path, plan(sampler, trials=24))
    drive(search, workers=2)
    search.propose()
    ours = facts(search.study._storage)
    assert facts(optunas(tmp_path)) == ours == facts(open_study(tmp_path)._storage)
    assert read_records(tmp_path) == records_of(search.study)


def test_a_trial_is_two_durable_writes_whatever_its_decisions(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(file), fsync(file)))
    search = begin(tmp_path, plan(trials=5))
    before = len(synced), (tmp_path / JOURNAL).read_bytes().count(b"\n")
    drive(search)
    assert len(CELLS.decisions()) > 30
    assert len(synced) - before[0] == 2 * 5
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") - before[1] == 3 * 5


def test_a_proposal_and_an_outcome_are_on_the_disk_when_they_are_handed_over(tmp_path):
    search = begin(tmp_path, plan())
    proposal = search.propose()
    (record,) = read_records(tmp_path)
    assert record.result is None
    assert list(record.params) == list(CELLS.decisions())
    search.finish(proposal.number, outcome(proposal.trial))
    assert optunas(tmp_path).get_all_trials(0)[0].state is TrialState.COMPLETE


@pytest.mark.parametrize("sampler", ["random", "evolution"])
def test_a_kill_at_any_byte_ends_in_the_same_table(sampler, tmp_path):
    the_plan = plan(sampler, trials=4)
    drive(begin(tmp_path / "whole", the_plan))
    expected = load_table(tmp_path / "whole")
    content = (tmp_path / "whole" / JOURNAL).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    cuts = [*ends[1:], *(end + 40 for end in ends[1:-1]), *(end - 1 for end in ends[2:])]
    for cut in cuts:
        run = tmp_path / str(cut)
        run.mkdir()
        (run / JOURNAL).write_bytes(content[:cut])
        repair_journal(run / JOURNAL)
        drive(begin(run, the_plan))
        assert load_table(run).equals(expected)


def test_a_journal_of_a_line_an_answer_still_opens_and_goes_on(tmp_path):
    """As Optuna writes it, and as psinas did: the second half is ours."""
    the_plan = plan("evolution", trials=8)
    drive(begin(tmp_path / "whole", the_plan))
    old = tmp_path / "old"
    old.mkdir()
    study = optuna.create_study(
        storage=optunas(old), study_name="psinas", directions=the_plan.directions
    )
    search = Search(study, the_plan)
    for _ in range(4):
        proposal = search.propose()
        search.finish(proposal.number, outcome(proposal.trial))
    search.propose()
    assert (old / JOURNAL).read_bytes().count(b"\n") > 4 * len(CELLS.decisions())
    assert facts(open_study(old)._storage) == facts(study._storage)
    drive(begin(old, the_plan))
    assert load_table(old).equals(load_table(tmp_path / "whole"))


def test_what_a_full_disk_held_up_goes_with_the_next_line(tmp_path, monkeypatch):
    study = open_study(tmp_path, directions=["maximize"])
    size = os.path.getsize(tmp_path / JOURNAL)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(OSError, match="No space"), together(study):
            study.ask().suggest_categorical("depth", [1, 2])
        assert os.path.getsize(tmp_path / JOURNAL) == size
        with pytest.raises(OSError, match="No space"):
            study.set_user_attr("lost", 1)
    study.tell(0, 1.0)
    assert facts(optunas(tmp_path)) == facts(study._storage)
    assert optunas(tmp_path).get_study_user_attrs(0) == study.user_attrs == {}


def test_a_second_writer_is_seen_and_one_beside_held_lines_refused(tmp_path):
    study, other = open_study(tmp_path, directions=["maximize"]), open_study(tmp_path)
    other.ask().suggest_categorical("depth", [1, 2])
    assert study.ask().number == 1

    def ask_both():
        with together(study):
            study.ask()
            open_study(tmp_path).ask()

    with pytest.raises(InputError, match="another process"):
        ask_both()
    assert len(facts(optunas(tmp_path))) == 3


def test_waiting_and_running_trials_are_found_as_optuna_finds_them(tmp_path):
    study = open_study(tmp_path, directions=["maximize"])
    for number in range(12):
        if number % 3 == 0:
            study.enqueue_trial({"depth": 2})
        else:
            study._storage.create_new_trial(0)
    for number in (1, 4, 7):
        study.tell(number, 0.5)
    assert study.ask().number == 0
    ours, theirs = study._storage, optunas(tmp_path)
    for states in (None, (TrialState.WAITING,), [TrialState.RUNNING], (*TrialState,),
                   {TrialState.WAITING, TrialState.COMPLETE}):  # fmt: skip
        found = [t.number for t in ours.get_all_trials(0, states=states)]
        assert found == [t.number for t in theirs.get_all_trials(0, states=states)]
    assert ours.get_n_trials(0) == theirs.get_n_trials(0) == 12
    assert ours.get_n_trials(0, TrialState.WAITING) == 3
    for storage in (ours, theirs):
        with pytest.raises(KeyError):
            storage.get_all_trials(1, states=(TrialState.WAITING,))


def test_other_choices_of_a_decision_are_refused_as_by_optuna(tmp_path):
    study = open_study(tmp_path, directions=["maximize"])
    study.ask().suggest_categorical("depth", [1, 2])
    with pytest.raises(ValueError, match="dynamic value space"), together(study):
        study.ask().suggest_categorical("depth", [1, 2, 3])
    assert facts(optunas(tmp_path)) == facts(study._storage)
    assert study.trials[1].params == {}


def test_equal_distributions_are_one_object_and_choices_of_other_types_are_not(tmp_path):
    study = open_study(tmp_path, directions=["maximize"])
    for _ in range(2):
        trial = study.ask()
        trial.suggest_categorical("depth", [1, 2])
        trial.suggest_categorical("rate", [1.0, 2])
    first, second = (open_study(tmp_path).get_trials(deepcopy=False)[i] for i in (0, 1))
    again = open_study(tmp_path).get_trials(deepcopy=False)
    assert again[0].distributions["depth"] is again[1].distributions["depth"]
    assert type(first.distributions["rate"].choices[0]) is float
    assert type(second.distributions["depth"].choices[0]) is int


def test_an_architecture_is_not_repeated_beside_its_decisions(tmp_path):
    search = begin(tmp_path, plan(trials=1))
    proposal = search.propose()
    written = search.finish(proposal.number, outcome(proposal.trial))
    assert written["architecture"] == proposal.trial.architecture.to_dict()
    (record,) = read_records(tmp_path)
    assert record.result["architecture"] == {"hash": proposal.trial.architecture.hash}
    assert json.dumps(record.result).count("block1_left_op") == 0
    assert search.plan.trial(record.params) == proposal.trial
