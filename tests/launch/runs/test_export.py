"""An export replaces an earlier export's files, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from helpers import one_line, search_here

from launch.runs.export import home_of
from launch.runs.run import Run
from nas.export import export as way_out
from nas.export import place
from nas.search.shared import TRAINED_IN
from nas.trial.evaluation import Evaluation
from nas.trial.files import WEIGHTS, save_trial, trial_directory


@pytest.fixture
def run(tmp_path, tiny):
    return search_here(tmp_path / "run", {**tiny, "metrics": ["clean", "pgd"], "trials": 2})


def files(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    "names",
    [
        ("model.safetensors", "README.md", "config.json"),  # another library's model
        ("model.safetensors",),
        ("README.md",),
        ("architecture.json", "notes.txt"),
    ],
)
def test_a_directory_of_somebodys_files_is_left_alone(run, psinas, tmp_path, names) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).write_text("{}")
    before = files(out)
    one_line(psinas("export", run, "--trial", 0, "--out", out), "--out: expected", str(out))
    assert files(out) == before


def test_other_files_beside_an_earlier_export_stay(run, psinas, tmp_path) -> None:
    out = tmp_path / "out"
    assert psinas("export", "--formats", "weights", run, "--trial", 0, "--out", out)[0] == 0
    first = files(out)
    (out / "notes.txt").write_text("mine")
    (out / "plots").mkdir()
    assert psinas("export", "--formats", "weights", run, "--trial", 1, "--out", out)[0] == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "plots").is_dir()
    assert json.loads((out / "architecture.json").read_text())["trial"]["number"] == 1
    assert (out / "model.safetensors").read_bytes() != first["model.safetensors"]
    assert {p.name for p in out.iterdir()} == {*first, "notes.txt", "plots"}
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("moment", range(9))
def test_a_kill_leaves_no_description_beside_other_weights(
    run, psinas, tmp_path, monkeypatch, moment
) -> None:
    out, steps = tmp_path / "out", iter(range(100))
    assert psinas("export", "--formats", "weights", run, "--trial", 0, "--out", out)[0] == 0
    whole = files(out)

    def dying(method):
        def step(*arguments, **settings):
            if next(steps) == moment:
                raise KeyboardInterrupt
            return method(*arguments, **settings)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(place.Path, "replace", dying(place.Path.replace))
        patch.setattr(place.Path, "unlink", dying(place.Path.unlink))
        assert psinas("export", "--formats", "weights", run, "--trial", 1, "--out", out)[0] == 130
    if (out / "architecture.json").exists():
        assert files(out).items() >= whole.items()
    assert psinas("export", "--formats", "weights", run, "--trial", 1, "--out", out)[0] == 0
    assert json.loads((out / "architecture.json").read_text())["trial"]["number"] == 1
    assert {p.name for p in out.iterdir()} == set(whole)


def test_a_model_card_says_that_weights_are_averaged(run, tmp_path):
    done = Run(run).trial(0)

    def card(**scores):
        result = {**done.result, "scores": {**done.result["scores"], **scores}}
        out = tmp_path / "out"
        way_out.export_trial(run, 0, done.trial, result, out, metrics=[])
        return (out / "README.md").read_text()

    assert "moving average" not in card()
    assert "moving average" not in card(best_is_average=0.0)
    assert "moving average" in card(best_is_average=1.0)


def test_a_file_is_no_directory(run, psinas, tmp_path) -> None:
    (tmp_path / "out").write_text("mine")
    one_line(psinas("export", run, "--trial", 0, "--out", tmp_path / "out"), "got the file")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_retry_of_another_driver_is_found_beside_what_the_failed_trial_left(run, tmp_path):
    found = Run(run)
    row, other = found.best(), tmp_path / "other"
    row.result[TRAINED_IN] = str(other)
    assert home_of(found, row) == run
    shutil.copytree(trial_directory(run, row.number), trial_directory(other, row.number))
    (trial_directory(run, row.number) / WEIGHTS).unlink()
    assert home_of(found, row) == other
    shutil.rmtree(other)  # dropped, and the run directory moved: what is left is here
    assert home_of(found, row) == run


def test_the_traceback_of_a_failed_attempt_goes_with_the_next_outcome(run):
    row = Run(run).best()
    trace = trial_directory(run, row.number) / "traceback.txt"
    failed = Evaluation("error", "OSError: away", {}, traceback="Traceback")
    save_trial(run, row.number, row.trial, failed)
    assert trace.read_text() == "Traceback"
    save_trial(run, row.number, row.trial, replace(failed, status="complete", traceback=""))
    assert not trace.exists()
