"""A trial of several processes: whatever ends one of them ends all, and none is left."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metrics import deadline
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial import team, training
from nas.trial.evaluation import evaluate
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.training import drain
from nas.trial.trial import Trial
from search_spaces import FeedForward

HELPERS = Path(__file__).parents[2] / "helpers"


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig())


@pytest.fixture
def trial():
    space = FeedForward(kinds=("conv",), channels=(6,), units=(30,), dropout=(0.0,))
    answers = {name: choices[0] for name, choices in space.decisions().items()}
    return Trial(
        space.architecture(answers),
        Recipe(epochs=2, batch_size=31, epsilon=0.1, steps=2, selection_images=40),
        DataConfig(limit=Limit(train=124, validation=60)),
        (),
    )


@pytest.fixture
def members(monkeypatch):
    """Return the ids of the processes that a test's trials start."""
    pids = []
    start = team.Team._started

    def started(self, rank):
        member = start(self, rank)
        pids.append(member.pid)
        return member

    monkeypatch.setattr(team.Team, "_started", started)
    return pids


def there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runner(trial, images):
    return TrialRunner(trial, {trial.data.source: images}, device="cpu", threads=1, processes=2)


def odd(trial, name):
    return replace(trial, recipe=replace(trial.recipe, adversary=f"odd_attacks:{name}"))


def test_a_trial_of_two_processes_says_so_and_leaves_none(trial, images, members):
    one, two = evaluate(trial, images), evaluate(trial, images, processes=2)
    assert (two.status, two.environment["processes"]) == ("complete", 2)
    assert "processes" not in one.environment
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-4, atol=1e-6)
    assert [e.robust_accuracy for e in two.epochs] == [e.robust_accuracy for e in one.epochs]
    assert len(members) == 1
    assert not any(map(there, members))
    assert not torch.distributed.is_initialized()


def test_a_member_that_is_killed_in_an_epoch_ends_the_trial(trial, images, members):
    evaluation = evaluate(odd(trial, "Killed"), images, processes=2)
    assert (evaluation.status, evaluation.reason) == ("error", "process 2 of 2 died of SIGKILL")
    assert not any(map(there, members))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("Wrong", "error", "process 2 of 2: KeyError: 'on purpose'"),
        ("OutOfMemory", "oom", "process 2 of 2: RuntimeError: [enforce fail] DefaultCPU"),
    ],
)
def test_what_a_member_fails_of_is_the_trial_s_status(name, status, reason, trial, images, members):
    evaluation = evaluate(odd(trial, name), images, processes=2)
    assert evaluation.status == status
    assert evaluation.reason.startswith(reason)
    assert "go_wrong" in evaluation.traceback
    assert not any(map(there, members))


@pytest.mark.slow
def test_a_limit_ends_a_trial_whose_member_hangs(trial, images, members):
    """It passes while this process waits for the other one's gradients."""
    hanging = odd(trial, "Hangs")  # in its second epoch
    steps = runner(trial, images).run(hanging)
    assert next(steps).epoch == 1
    with deadline.within(0.5):
        evaluation = drain(steps)
    assert evaluation.status == "timeout"
    assert evaluation.reason == "the limit of 0.5 s was passed in epoch 2 of 2, step 1"
    assert not any(map(there, members))


@pytest.mark.slow
def test_what_this_process_fails_of_ends_the_members(trial, images, members, monkeypatch):
    def doing(where):
        if "step 3" in where:
            raise RuntimeError("on purpose")

    monkeypatch.setattr(training, "doing", doing)
    evaluation = evaluate(trial, images, processes=2)
    assert (evaluation.status, evaluation.reason) == ("error", "RuntimeError: on purpose")
    assert not any(map(there, members))


@pytest.mark.slow
def test_a_trial_that_is_stopped_between_epochs_leaves_no_process(trial, images, members):
    steps = runner(trial, images).run(trial)
    next(steps)
    assert all(map(there, members))
    steps.close()
    assert not any(map(there, members))


@pytest.mark.slow
def test_members_end_with_a_first_process_that_is_killed(trial, tmp_path):
    """It is killed in its first step: nothing of it runs any more that could end them."""
    code = f"""
import os, pickle, signal, sys
sys.path[:0] = {[str(HELPERS.parents[1]), str(HELPERS)]!r}
from nas.trial import team, training
from nas.trial.evaluation import evaluate
start = team.Team._started
def started(self, rank):
    member = start(self, rank)
    open({str(tmp_path / "pid")!r}, "w").write(str(member.pid))
    return member
team.Team._started = started
training.doing = lambda where: os.kill(os.getpid(), signal.SIGKILL)
evaluate(pickle.loads({pickle.dumps(trial)!r}), processes=2)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    pid = int((tmp_path / "pid").read_text())
    for _ in range(600):
        if not there(pid) or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the member goes on")
