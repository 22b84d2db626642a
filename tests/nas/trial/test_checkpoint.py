"""A training that is cut off anywhere ends with the numbers of one that is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing_spaces import Drawing
from fake_cuda import fake_cuda

import nas.trial.training
from metrics import METRICS
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial import checkpoint
from nas.trial.checkpoint import SHARE, Checkpoint, Checkpoints
from nas.trial.checkpoint_file import (
    Kept,
    checkpoints_in,
    drop_checkpoints,
    epochs_in,
    to_parts,
)
from nas.trial.files import save_trial, trial_directory
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.state import Epoch, TrainingState
from nas.trial.training import drain
from nas.trial.trial import Trial
from search_spaces import Answers, DepthChannels, Task

EPOCHS = 3
DATA = DataConfig(name="digits", limit=Limit(train=96, validation=60))
RECIPE = Recipe(epochs=EPOCHS, batch_size=32, epsilon=0.1, steps=2, selection_images=40)
SCORES = tuple(METRICS[name](**more) for name, more in (("clean", {}), ("psi", {"limit": 8})))
STEPS = 3  # an epoch
DIGITS = Task.plain((1, 8, 8), 10)


class Cut(BaseException):
    """The process ends here."""


def trial_of(space=None, **recipe):
    architecture = (space or Drawing()).suggest(Answers({"width": 6}))
    return Trial(architecture, replace(RECIPE, **recipe), DATA, SCORES)


@pytest.fixture(scope="module")
def images():
    return {DATA.source: load_images(DATA)}


@pytest.fixture
def run(images):
    """Return a function that begins a trial as a new process does."""

    def begin(trial, checkpoints=None, *, limit=None, **more):
        torch.manual_seed(random.randrange(2**32))  # another process has drawn other numbers
        np.random.seed(random.randrange(2**32))  # noqa: NPY002
        runner = TrialRunner(trial, images, device="cpu", threads=1, time_limit_seconds=limit)
        return runner.run(trial, checkpoints=checkpoints, **more)

    return begin


@pytest.fixture(scope="module")
def whole(images):
    """Return what a trial is that nothing cuts off."""
    return drain(TrialRunner(trial_of(), images, device="cpu", threads=1).run(trial_of()))


def timeless(scores):
    return {name: value for name, value in scores.items() if not name.endswith("_seconds")}


def same(found, whole):
    """Compare two evaluations to the last bit, times aside."""
    assert (found.status, found.reason) == (whole.status, whole.reason) == ("complete", "")
    assert timeless(found.scores) == timeless(whole.scores)
    assert [timeless(r) for r in found.repeats] == [timeless(r) for r in whole.repeats]
    assert found.kept_repeat == whole.kept_repeat
    for epochs in zip(found.epochs, whole.epochs, strict=True):
        assert len({replace(epoch, seconds=0.0) for epoch in epochs}) == 1
    for mine, theirs in ((found.weights, whole.weights), (found.last_weights, whole.last_weights)):
        assert (mine is None) == (theirs is None)
        for name, weight in (mine or {}).items():
            assert weight.equal(theirs[name])
            assert weight.stride() == theirs[name].stride()


def cut_after(steps, epochs):
    """Take so many epochs, then leave."""
    for _ in range(epochs):
        next(steps)
    steps.close()


KINDS = {
    "sgd": {},
    "adam": {"optimizer": "adam", "learning_rate": 0.01, "flip": True, "crop_padding": 1},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "cosine"},
    "bf16": {"precision": "bf16", "momentum": 0.0, "entropy_weight": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_after_every_epoch(kind, run, tmp_path):
    trial = trial_of(**KINDS[kind])
    whole = drain(run(trial))
    for epoch in range(1, EPOCHS + 1):  # a trial that is cut off once more each time
        cut_after(run(trial, Checkpoints(tmp_path, 0)), epoch)
        assert epochs_in(tmp_path) == epoch
    same(drain(run(trial, Checkpoints(tmp_path, 0))), whole)


@pytest.mark.parametrize("step", [1, 3, 5, 6, 8])
def test_cut_off_within_an_epoch(step, whole, run, tmp_path, monkeypatch):
    """And right at its beginning."""
    trial = trial_of()
    gradients, done = nas.trial.training.gradients, []

    def cut(*arguments, **more):
        done.append(1)
        if len(done) == step + 1:
            raise Cut
        return gradients(*arguments, **more)

    monkeypatch.setattr(nas.trial.training, "gradients", cut)
    with pytest.raises(Cut):
        drain(run(trial, Checkpoints(tmp_path, 0)))
    assert epochs_in(tmp_path) == step // STEPS
    done.clear()
    checkpoints = Checkpoints(tmp_path, 0)
    step = 10**6
    same(drain(run(trial, checkpoints)), whole)
    assert len(done) == STEPS * (EPOCHS - kept_before(checkpoints))


def kept_before(checkpoints):
    """Return the epochs that a trial went on from, as it said."""
    said = [line for line in checkpoints.lines if line.startswith("goes on after epoch")]
    return int(said[0].split()[4].rstrip(",")) if said else 0


@pytest.fixture
def scored(monkeypatch):
    """Return the stages of the metrics that are computed from here on."""
    stages, score = [], nas.trial.evaluation.score_stage

    def noted(trial, model, data, stage, micro_batch):
        stages.append(stage)
        return score(trial, model, data, stage, micro_batch)

    monkeypatch.setattr(nas.trial.evaluation, "score_stage", noted)
    return stages


def test_repeats_that_have_ended_are_not_trained_or_scored_again(run, scored, tmp_path):
    trial = replace(trial_of(epochs=2), repeats=3)
    whole = drain(run(trial))
    for epoch in range(1, 7):
        cut_after(run(trial, Checkpoints(tmp_path, 0)), epoch)
        assert epochs_in(tmp_path) == epoch
    checkpoints = Checkpoints(tmp_path, 0)
    scored.clear()
    steps = run(trial, checkpoints)
    handed = []
    while True:
        try:
            handed.append((next(steps).epoch, checkpoints.repeating))
        except StopIteration as end:
            found = end.value
            break
    assert scored == ["end"]  # of the last repeat, cut off after its last epoch
    assert handed == [(number, True) for number in range(1, 7)]
    same(found, whole)


def test_what_is_computed_early_is_computed_once(run, scored, tmp_path):
    """The scores before training and after the first epoch are kept."""
    early = [METRICS[name](limit=8) for name in ("psi-init", "psi-epoch1")]
    assert [metric.stage for metric in early] == ["init", "epoch1"]
    trial = replace(trial_of(), metrics=(*SCORES, *early))
    whole = drain(run(trial))
    cut_after(run(trial, Checkpoints(tmp_path, 0)), 1)
    scored.clear()
    found = drain(run(trial, Checkpoints(tmp_path, 0)))
    assert scored == ["end"]
    same(found, whole)


class Carries:
    """Stands for an adversary that begins where it ended an epoch ago."""

    def __init__(self):
        self.epochs, self.carried = 0, torch.zeros(2, 3).t()

    def state_dict(self):
        return {"epochs": self.epochs, "carried": self.carried}

    def load_state_dict(self, state):
        self.epochs, self.carried = state["epochs"], state["carried"]


def test_parts_and_later_attributes_of_a_training_are_kept(tmp_path):
    """Whatever has a state dict goes on in place; other values are set."""
    trial, machine = trial_of(), nas.trial.evaluation.environment_of(torch.device("cpu"), RECIPE)

    def begun():
        model = Drawing().build(trial.architecture, DIGITS, seed=0)
        state = TrainingState.begun(model, trial.recipe, torch.Generator().manual_seed(0))
        state.parts["adversary"] = Carries()
        return state

    state = begun()
    part = state.parts["adversary"]
    part.epochs, part.carried = 5, torch.randn(2, 3).t()
    state.note(Epoch(1, 0.1, 0.2, 0.3, 0.4), judged=True)
    state.step = 7
    first = Checkpoints(tmp_path, 0).of(trial, machine, None)
    first.begin(state)
    first.note({"a": 0.5}, 10.0, 2.0, None)
    again, after = begun(), Checkpoints(tmp_path, 0).of(trial, machine, None)
    goes_on = again.parts["adversary"]
    after.read(torch.device("cpu"))
    after.begin(again)
    assert again.parts["adversary"] is goes_on
    assert goes_on.epochs == 5
    assert goes_on.carried.equal(part.carried)
    assert goes_on.carried.stride() == part.carried.stride()
    assert (again.step, again.best, again.epochs) == (7, state.best, state.epochs)
    assert again.judge_seed == state.judge_seed


def test_times_and_the_limit_count_every_process(run, tmp_path, monkeypatch):
    """A process that seems to have trained for 600 s and scored for 300 s."""
    trial, note = trial_of(), Checkpoint.note

    def long_ago(self, scores, seconds, score_seconds, peak):
        note(self, scores, seconds + 900, score_seconds + 300, peak)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "note", long_ago)
        cut_after(run(trial, Checkpoints(tmp_path, 0)), 2)
    checkpoints = Checkpoints(tmp_path, 0)
    found = drain(run(trial, checkpoints, limit=1100))
    assert found.status == "complete"
    assert 900 < checkpoints.spent < found.seconds < 1100
    assert 600 < found.scores["train_seconds"] < 700
    assert 300 < found.scores["score_seconds"] < 400
    late = drain(run(trial, Checkpoints(tmp_path, 0), limit=checkpoints.spent))
    assert (late.status, len(late.epochs)) == ("timeout", 3)


def test_a_kill_in_the_write_leaves_the_one_before(whole, run, tmp_path, monkeypatch):
    """Before the first byte, after each quarter of them, and before the file takes its name."""
    trial = trial_of()
    cut_after(run(trial, Checkpoints(tmp_path, 0)), 1)
    (path,) = checkpoints_in(tmp_path)
    before = path.read_bytes()
    for quarters in range(5):

        def killed(path, write, *, durable, quarters=quarters):
            partial = path.with_name(f".{path.name}.partial")
            write(partial)
            content = partial.read_bytes()
            partial.write_bytes(content[: len(content) * quarters // 4])
            raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_whole", killed)
            with pytest.raises(Cut):
                drain(run(trial, Checkpoints(tmp_path, 0)))
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 2
    same(drain(run(trial, Checkpoints(tmp_path, 0))), whole)
    drop_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def read(trial, directory, **environment):
    checkpoints = Checkpoints(directory, 0)
    machine = nas.trial.evaluation.environment_of(torch.device("cpu"), RECIPE) | environment
    found = checkpoints.of(trial, machine, None).read(torch.device("cpu"))
    return found, checkpoints.lines


def test_a_damaged_file_is_none(run, tmp_path):
    trial = trial_of(epochs=2)
    cut_after(run(trial, Checkpoints(tmp_path, 0)), 1)
    (path,) = checkpoints_in(tmp_path)
    content = path.read_bytes()
    assert read(trial, tmp_path)[0] is not None
    ends = {*range(70), *range(70, len(content), len(content) // 60), len(content) - 1}
    damaged = [content[:end] for end in ends]
    for place in range(0, len(content), len(content) // 40):
        damaged.append(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for bad in (*damaged, content + b"0", b"\n\n", content[65:]):
        path.write_bytes(bad)
        assert read(trial, tmp_path) == (
            None, ["begins anew, not from its checkpoint: the file is damaged"]
        )  # fmt: skip
    path.write_bytes(content[:-1])
    same(drain(run(trial, Checkpoints(tmp_path, 0))), drain(run(trial)))


def test_one_of_something_else_is_none(run, tmp_path, monkeypatch):
    trial = trial_of(epochs=2)
    cut_after(run(trial, Checkpoints(tmp_path, 0)), 1)
    assert read(trial, tmp_path)[0] is not None
    for name, value in (("torch", "0.1"), ("device", "cuda"), ("threads", 7), ("device_name", "x")):
        found, (line,) = read(trial, tmp_path, **{name: value})
        assert found is None
        assert f"expected {name} {value!r}, got" in line
    for other in (replace(trial, seed=1), trial_of(epochs=3), replace(trial, metrics=SCORES[:1])):
        assert read(other, tmp_path)[0] is None
    checkpoints = Checkpoints(tmp_path, 0)
    found = drain(run(trial, checkpoints, micro_batch=16))
    assert "micro_batch" in checkpoints.lines[0]
    same(found, drain(run(trial, micro_batch=16)))
    monkeypatch.setattr("nas.trial.checkpoint_file.VERSION", 2)
    assert read(trial, tmp_path)[0] is None


def test_a_network_that_was_edited_begins_anew(run, tmp_path, monkeypatch):
    trial = trial_of(epochs=2)
    cut_after(run(trial, Checkpoints(tmp_path, 0)), 1)
    network = Drawing.network

    def edited(self, architecture, task):
        return torch.nn.Sequential(network(self, architecture, task), torch.nn.Linear(10, 10))

    monkeypatch.setattr(Drawing, "network", edited)
    checkpoints = Checkpoints(tmp_path, 0)
    found = drain(run(trial, checkpoints))
    assert checkpoints.lines == [
        "begins anew, not from its checkpoint: it is of a network with other weights"
    ]
    same(found, drain(run(trial)))


def test_when_one_is_due(tmp_path, monkeypatch):
    """A minute after the beginning, a minute after the last, and fifty times what that took."""
    now, took, writes = [0.0], [0.5], []
    checkpoints = Checkpoints(tmp_path, 60, clock=lambda: now[0])

    def write(*_):
        now[0] += took[0]
        writes.append(now[0])

    monkeypatch.setattr(checkpoints, "_write", write)

    def due_after(seconds):
        before = now[0]
        while not checkpoints.due():
            now[0] += 1
        assert now[0] - before == seconds
        checkpoints.write(None, None)

    due_after(60)
    due_after(60)
    took[0] = 3.0
    due_after(60)
    due_after(3 * SHARE)
    assert not Checkpoints(tmp_path, None).due()
    assert Checkpoints(tmp_path, 0).due()
    assert not Checkpoints(None, 0).due()


def test_short_trials_write_nothing(run, tmp_path):
    drain(run(trial_of(epochs=1), Checkpoints(tmp_path / "none", 60)))
    assert not (tmp_path / "none").exists()


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"reserve_bytes": 10**18}, "would leave less than keep.reserve_bytes, 1e+03 PB"),
        ({"most_bytes": 1000}, "are more than keep.disk_bytes leaves it, 1 kB"),
        ({}, "has no new checkpoint: No space left on device"),
    ],
)
def test_where_there_is_no_room_it_is_skipped_and_said_once(
    settings, line, whole, run, tmp_path, monkeypatch
):
    trial = trial_of()
    if not settings:
        monkeypatch.setattr(checkpoint, "write_whole", full)
    checkpoints = Checkpoints(tmp_path, 0, **settings)
    found = drain(run(trial, checkpoints))
    (said,) = checkpoints.lines
    assert said.endswith(line)
    assert not checkpoints_in(tmp_path)
    same(found, whole)


def test_a_state_that_no_file_holds_is_said_and_fails_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "kept_of", lambda part: part)
    checkpoints = Checkpoints(tmp_path, 0)
    found = drain(run(trial_of(), checkpoints))
    assert found.status == "complete"
    (said,) = checkpoints.lines
    assert said == "has no new checkpoint: expected tensors and plain types, got Model"
    with pytest.raises(TypeError, match="complex128"):
        to_parts({}, Kept((), drawn={"a": torch.zeros(2, dtype=torch.complex128)}))


def test_the_outcome_ends_it_unless_memory_ran_out(run, tmp_path):
    trial = trial_of(epochs=1)
    directory = trial_directory(tmp_path, 3)
    found = drain(run(trial, Checkpoints(directory, 0)))
    assert len(checkpoints_in(directory)) == 1
    save_trial(tmp_path, 3, trial, replace(found, status="oom"))
    assert len(checkpoints_in(directory)) == 1
    save_trial(tmp_path, 3, trial, found)
    assert checkpoints_in(directory) == []


def test_on_a_gpu(images, tmp_path):
    """Generators of the device, and weights that come back to it."""
    space = DepthChannels(depth=(1,), channels=(6,), stem="small")
    trial = Trial(next(iter(space)), RECIPE, DATA, SCORES)

    def begin(checkpoints=None):
        return TrialRunner(trial, images, device="cuda", threads=1).run(
            trial, checkpoints=checkpoints
        )

    with fake_cuda():
        whole = drain(begin())
        cut_after(begin(Checkpoints(tmp_path, 0)), 2)
        checkpoints = Checkpoints(tmp_path, 0)
        found = drain(begin(checkpoints))
    assert kept_before(checkpoints) == 2
    same(found, whole)
    assert found.peak_memory_bytes == whole.peak_memory_bytes


def test_a_process_that_is_killed(whole, run, tmp_path):
    """By the system, in the middle of the bytes of the second epoch's checkpoint."""
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import test_checkpoint as t
from pathlib import Path
from nas.trial.checkpoint import Checkpoints
from nas.trial import checkpoint
write, written = checkpoint.write_parts, []
def killed(path, parts):
    written.append(1)
    if len(written) == 2:
        content = b"".join(parts)
        write(path, (content[: len(content) // 2],))
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, parts)
checkpoint.write_parts = killed
trial = t.trial_of()
images = {{t.DATA.source: t.load_images(t.DATA)}}
runner = t.TrialRunner(trial, images, device="cpu", threads=1)
t.drain(runner.run(trial, checkpoints=Checkpoints(Path({str(tmp_path)!r}), 0)))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(list(tmp_path.iterdir())) == 2  # with half of another
    checkpoints = Checkpoints(tmp_path, 0)
    same(drain(run(trial_of(), checkpoints)), whole)
    assert kept_before(checkpoints) == 1
