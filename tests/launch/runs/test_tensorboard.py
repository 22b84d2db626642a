"""TensorBoard's own readers find a run's scores, epochs and hyperparameters in its event files."""

from __future__ import annotations

import math

import pytest
from helpers import one_line
from ledgers import NASTY, add_trials, make_run

from launch.runs.run import Run
from launch.runs.tensorboard import EVENTS, write_events

pytest.importorskip("tensorboard")

EPOCHS = (
    "epoch,train_loss,clean_accuracy,robust_accuracy,seconds\n1,2.3,nan,0.25,1\n2,1.1,nan,0.5,1\n"
)
OBJECTIVES = {"pgd_accuracy": "max", "psi": "min"}
ROWS = [
    {"status": "complete", "epochs": EPOCHS, "scores": {"pgd_accuracy": 0.5, "psi": 2.0}},
    {"status": "complete", "scores": {"pgd_accuracy": 0.5, "psi": math.inf, NASTY: math.nan}},
    {"status": "error", "reason": NASTY},
    {"status": "running"},
]


def scalars(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def sessions(directory):
    """Return what the HParams page lists: the experiment and its session groups."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    read = plugin_event_multiplexer.EventMultiplexer()
    read.AddRunsFromDirectory(str(directory))
    read.Reload()
    provider = data_provider.MultiplexerDataProvider(read, str(directory))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = context.RequestContext()
    metadata = backend.hparams_metadata(request, "x")
    hparams = backend.hparams_from_data_provider(request, "x", 100)
    experiment = backend.experiment_from_metadata(request, "x", True, metadata, hparams)
    states = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    asked = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=states)
    listed = list_session_groups.Handler(request, backend, "x", asked).run()
    return experiment, {group.name: group for group in listed.session_groups}


@pytest.mark.parametrize("choices", [(1, 2, 4), ("a", NASTY), (True, False), (1, "a", None)])
def test_it_shows_scores_epochs_and_decisions(tmp_path, choices):
    study = make_run(tmp_path / "run", ROWS, name=NASTY, choices=choices)
    assert write_events(Run(tmp_path / "run"), tmp_path / "tb").trials == 3
    first = scalars(tmp_path / "tb" / "trial-0")
    assert first["epochs/robust_accuracy"] == [(1, 0.25), (2, 0.5)]
    assert "epochs/clean_accuracy" not in first  # NaN: there were none
    assert (first["scores/pgd_accuracy"], first["scores/psi"]) == ([(2, 0.5)], [(2, 2.0)])
    second = scalars(tmp_path / "tb" / "trial-1")
    assert second["scores/psi"] == [(2, math.inf)]
    assert math.isnan(second[f"scores/{NASTY}"][0][1])
    experiment, groups = sessions(tmp_path / "tb")
    assert [info.name for info in experiment.hparam_infos] == ["depth"]
    tags = [info.name.tag for info in experiment.metric_infos]
    assert tags == ["scores/pgd_accuracy", "scores/psi", f"scores/{NASTY}"]
    assert set(groups) == {"trial-0", "trial-1", "trial-2"}
    kind = groups["trial-0"].hparams["depth"].WhichOneof("kind")
    texts = any(isinstance(choice, str) for choice in choices)
    usual = "bool_value" if choices[0] is True else "number_value"
    assert kind == ("string_value" if texts else usual)
    values = {m.name.tag: m.value for m in groups["trial-0"].metric_values}
    assert values == {"scores/pgd_accuracy": 0.5, "scores/psi": 2.0}
    states = [groups[f"trial-{n}"].sessions[0].status for n in range(3)]
    assert states == [1, 1, 2]  # success, success, failure
    assert study.get_trials()[3].state.name == "RUNNING"


def test_again_only_what_is_new_is_written(tmp_path):
    study = make_run(tmp_path / "run", ROWS[:2])
    assert write_events(Run(tmp_path / "run"), tmp_path / "tb").new == 2
    kept = tmp_path / "tb" / "trial-0" / EVENTS
    kept.touch()
    before = kept.stat().st_mtime_ns
    add_trials(study, tmp_path / "run", ROWS[2:3], OBJECTIVES)
    assert write_events(Run(tmp_path / "run"), tmp_path / "tb").new == 1
    assert kept.stat().st_mtime_ns == before


def test_the_directory_of_another_run_is_left_alone(tmp_path, psinas):
    for name in ("one", "two"):
        make_run(tmp_path / name, ROWS[:1])
    code, out, _ = psinas("dashboard", tmp_path / "one", "--tensorboard", tmp_path / "tb")
    assert code == 0
    assert "1 trials in" in out
    before = (tmp_path / "tb" / "trial-0" / EVENTS).read_bytes()
    found = psinas("dashboard", tmp_path / "two", "--tensorboard", tmp_path / "tb")
    one_line(found, "the event files of another run")
    assert (tmp_path / "tb" / "trial-0" / EVENTS).read_bytes() == before
    (tmp_path / "file").write_text("mine", "utf-8")
    found = psinas("dashboard", tmp_path / "two", "--tensorboard", tmp_path / "file")
    one_line(found, "expected a directory to write")
