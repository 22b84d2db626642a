"""The search through Ray Tune, as a user runs it: in a process that may be killed or resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import one_line, search_here
from torch import nn

from launch.cluster.elsewhere import on_worker
from launch.config.config import Resources
from launch.runs.retrained import attacked
from nas.errors import InputError
from nas.ledger.results import RESULT
from nas.ledger.study import open_study
from nas.ledger.table import load_table
from nas.trial.recipe import Recipe

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]  # one Ray at a time
PSINAS = Path(sys.executable).with_name("psinas")
TESTS = Path(__file__).parents[2] / "helpers"
TIMINGS = ["train_seconds", "score_seconds", "seconds"]
LIMIT = 120


@pytest.fixture
def launch(tmp_path):
    """Return a function that starts ``psinas search``; what it started is ended afterwards."""
    started = []

    def start(document, out, *arguments):
        config = tmp_path / f"{out}.yaml"
        config.write_text(yaml.safe_dump(document))
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        command = [PSINAS, "search", config, "--out", tmp_path / out, *arguments]
        log = (tmp_path / f"{out}.log").open("a")
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@pytest.fixture
def search(launch, tmp_path):
    """Return a function that runs a search to its end and gives its log."""

    def run(document, out, *arguments, code=0):
        process = launch(document, out, *arguments)
        returned = process.wait(timeout=LIMIT)
        log = (tmp_path / f"{out}.log").read_text()
        assert returned == code, log
        assert "Traceback" not in log
        return log

    return run


def faulty(*kinds, **settings):
    return {
        "name": "faulty",
        "data": {"name": "digits", "limit": {"train": 64, "validation": 40}},
        "space": {"name": "faulty_spaces:Faulty", "kinds": list(kinds), **settings},
        "recipe": {"epochs": 1, "batch_size": 64, "adversary": "none", "steps": 1},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "sampler": {"name": "grid"},
        "trials": None,
    }


def finished(run):
    """Return how many trials the ledger holds an outcome of, also while it is written."""
    try:
        return sum(RESULT in t.user_attrs for t in open_study(run).get_trials(deepcopy=False))
    except InputError:
        return 0


def wait_for(condition, process):
    ends = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, "the search ended before it could be broken"
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("sampler", "workers"),
    [
        pytest.param("grid", 2, marks=pytest.mark.slow),
        ("tpe", 1),
        # as sure without Ray, in tests/nas/search: a search there is seconds, here it is twenty
        pytest.param("random", 2, marks=pytest.mark.slow),
        pytest.param("nsga2", 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_search_through_ray_gives_the_table_of_one_without(
    sampler, workers, tiny, search, psinas, tmp_path
):
    """The other is one process and no Ray, so that no two runs through Ray can differ."""
    tiny |= {"sampler": {"name": sampler}, "trials": None if sampler == "grid" else 6,
             "vary": {"recipe.entropy_weight": [0, 1.5]},
             "resources": {"workers": workers}}  # fmt: skip
    search(tiny, "ray")
    search_here(tmp_path / "here", tiny)
    table, expected = (load_table(tmp_path / out).drop(columns=TIMINGS) for out in ("ray", "here"))
    assert table.equals(expected)
    assert len(table) == (8 if sampler == "grid" else 6)
    assert (table["status"] == "complete").all()
    if sampler == "grid":
        code, out, _ = psinas("replay", tmp_path / "ray", "--trial", 3)
        assert code == 0, out
        assert "equal to the last digit" in out


def test_a_search_that_is_stopped_and_then_killed_loses_and_repeats_nothing(
    search, launch, tmp_path
):
    """SIGTERM ends it cleanly and says how to go on; the driver that goes on is killed."""
    slow = [f"slow-{i}" for i in range(8)]
    process = launch(faulty(*slow), "run")
    wait_for(lambda: finished(tmp_path / "run") >= 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=LIMIT) == 143
    log = (tmp_path / "run.log").read_text()
    assert f"go on with: psinas search --resume --out {tmp_path / 'run'}" in log
    assert "Traceback" not in log
    assert (tmp_path / "run" / "trials.csv").exists()
    stopped = finished(tmp_path / "run")
    process = launch(faulty(*slow), "run", "--resume")
    wait_for(lambda: finished(tmp_path / "run") > stopped, process)
    process.kill()  # SIGKILL
    process.wait()
    before = load_table(tmp_path / "run")
    done = before[before["status"] == "complete"]
    assert stopped < len(done) < 8
    log = search(faulty(*slow), "run", "--resume")
    assert f"{len(done)} of 8 trials done" in log
    trials = open_study(tmp_path / "run").get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 8
    assert [t.params["kind"] for t in trials] == slow
    after = load_table(tmp_path / "run", repeats=True)
    assert after.loc[done.index, done.columns.tolist()].equals(done)  # not trained again
    assert after["repeat_of"].isna().all()


def test_a_full_disk_stops_the_search_and_failures_and_dead_workers_do_not(search, tmp_path):
    """What cannot be saved is no failure of its architecture: a resume finishes that trial."""
    kinds = ["blocks-saving", "good", "raises", "diverges", "invalid", "memory", "kills",
             "kills-once", "terminated-once"]  # fmt: skip
    marker, blocker = tmp_path / "killed", tmp_path / "run" / "trials"
    document = faulty(*kinds, marker=str(marker), blocker=str(blocker))
    log = search(document, "run", code=1)
    assert "psinas: WorkerFailure: a worker cannot go on: " in log
    assert "running" in set(load_table(tmp_path / "run")["status"])
    assert not marker.exists()
    blocker.unlink()
    search(document, "run", "--resume")
    table = load_table(tmp_path / "run").set_index("kind")
    assert table["status"].to_dict() == {
        "blocks-saving": "complete",
        "good": "complete",
        "raises": "error",
        "diverges": "diverged",
        "invalid": "invalid",
        "memory": "oom",
        "kills": "error",
        "kills-once": "complete",
        "terminated-once": "complete",
    }
    assert marker.exists()
    assert table["memory_steps"]["memory"].endswith("alone, micro-batch 32, micro-batch 16")
    assert not any(table["memory_steps"].drop("memory"))
    assert table["reason"]["raises"] == "RuntimeError: this architecture raises"
    assert table["reason"]["kills"].startswith("lost its worker 3 times: ")
    assert "unknown" not in table["reason"]["kills"]
    number = table["number"]["raises"]
    trace = tmp_path / "run" / "trials" / str(number) / "traceback.txt"
    assert "this architecture raises" in trace.read_text()


@pytest.mark.slow
def test_a_sick_worker_costs_no_trial_and_an_outage_is_tried_again(search, tmp_path):
    marker = tmp_path / "marker"
    outage = Path(f"{marker}.outage")
    outage.touch()
    kinds = ["good", "hangs", "outage", "good-2", "good-3"]
    document = faulty(*kinds, marker=str(marker), sick=True)
    document["resources"] = {"time_limit_seconds": 12}
    log = search(document, "run")
    assert (
        "lost its device: RuntimeError: CUDA error: an illegal memory access was encountered" in log
    )
    table = load_table(tmp_path / "run").set_index("kind")
    statuses = dict.fromkeys(kinds, "complete") | {"hangs": "timeout", "outage": "error"}
    assert table["status"].to_dict() == statuses
    assert table["number"].tolist() == [0, 1, 2, 3, 4]
    assert re.fullmatch(
        r"the limit of 12 s was passed; it hung at faulty_spaces.py:\d+ in network",
        table["reason"]["hangs"],
    )
    trace = tmp_path / "run" / "trials" / str(table["number"]["hangs"]) / "traceback.txt"
    assert "faulty_spaces.py" in trace.read_text()
    outage.unlink()
    log = search(document, "run", "--resume", "--retry", "error,oom")
    assert "1 failed trials run once more" in log
    table = load_table(tmp_path / "run").set_index("kind")
    assert table["status"].to_dict() == statuses | {"outage": "complete"}
    assert table["number"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_sick_node_is_not_used_any_more(search, tmp_path):
    """Every process on one of two nodes fails: the trials run on the other, each of them once."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        sick = cluster.add_node(num_cpus=1)
        kinds = [f"slower-{i}" for i in range(8)]
        document = faulty(*kinds, sick_node=sick.node_id)
        log = search(document, "run", "--address", cluster.address)
    finally:
        cluster.shutdown()
    table = load_table(tmp_path / "run")
    assert table["status"].tolist() == ["complete"] * 8
    assert log.count("lost its device: RuntimeError: CUDA error: unspecified launch failure") == 3
    assert log.count("is not used any more") == 1


@pytest.fixture
def halving(tiny):
    """Return a document in which every second trial has a learning rate too small to learn."""
    tiny["data"] |= {"limit": {"train": 600, "validation": 60}}
    tiny["recipe"] |= {"epochs": 5, "batch_size": 32, "adversary": "none", "epsilon": 0.01}
    tiny |= {
        "scheduler": {"name": "asha", "grace_period": 2, "reduction_factor": 2},
        "resources": {"workers": 1},
        "vary": {"recipe.learning_rate": [0.1, 1e-9]},
    }
    return tiny


def rungs_of(run):
    """Return what the ledger has of each trial at rung 2 and at rung 4, and its state."""
    trials = open_study(run).get_trials()
    rungs = [t.user_attrs[RESULT]["rungs"] for t in trials]
    return [r.get("2") for r in rungs], [r.get("4") for r in rungs], [t.state.name for t in trials]


def hopeful(rung, *names):
    """Return which trials are dominated by fewer than may go on, of those there before them."""
    there, verdicts = [], []
    for values in rung:
        assert set(values) == {"robust_accuracy", "clean_accuracy"}
        mine = [values[name] for name in names]
        there.append(mine)
        better = sum(all(np.greater_equal(v, mine)) and v != mine for v in there)
        verdicts.append(better < max(1, len(there) // 2))
    return verdicts


def test_asha_stops_trials_says_at_which_rung_and_keeps_its_rungs(halving, search, tmp_path):
    """The second driver begins with a bad trial, which on rungs of its own would be the first."""
    search(halving | {"trials": 3}, "run")
    assert len(load_table(tmp_path / "run")) == 3
    search(halving | {"trials": 8}, "run", "--resume")
    table = load_table(tmp_path / "run")
    statuses = table["status"].tolist()
    assert statuses[3] == "stopped"
    second, fourth, _ = rungs_of(tmp_path / "run")
    reached = [r is not None for r in fourth]
    assert reached == hopeful(second, "robust_accuracy")
    complete = [s == "complete" for s, r in zip(statuses, reached, strict=True) if r]
    assert complete == hopeful(filter(None, fourth), "robust_accuracy")

    stopped, complete = (table[table["status"] == s] for s in ("stopped", "complete"))
    assert len(stopped) + len(complete) == 8
    assert (complete["epochs"] == 5).all()
    assert complete["rung"].isna().all()
    assert stopped["pgd_accuracy"].isna().all()
    assert stopped["rung"].isin([2, 4]).all()
    assert stopped["epochs"].tolist() == stopped["rung"].tolist()
    assert (stopped["recipe.learning_rate"] == 1e-9).any()
    trials = open_study(tmp_path / "run").get_trials()
    for trial in trials:
        result = trial.user_attrs[RESULT]
        robust = {int(e): v["robust_accuracy"] for e, v in result["rungs"].items()}
        if result["status"] == "complete":
            assert trial.state.name == "COMPLETE"
            assert (set(robust), trial.intermediate_values) == ({2, 4}, {})
        else:
            assert trial.state.name == "PRUNED"
            assert trial.intermediate_values == robust
            at = max(robust)
            value = f"robust_accuracy {robust[at]:.4f}"
            assert result["reason"] == f"asha after epoch {at} at {value}"
            assert (result["scores"], result["stopped_by"]) == ({}, ["robust_accuracy"])


@pytest.mark.parametrize(
    ("objectives", "state"),
    [
        # PRUNED is told by the test above and by tests/nas/search, two values by the next case
        pytest.param({"pgd_accuracy": "max"}, "PRUNED", marks=pytest.mark.slow),
        pytest.param({"pgd_accuracy": "max", "parameters": "min"}, "FAIL", marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_asha_with_two_values(objectives, state, halving, search, tmp_path):
    halving["scheduler"]["metric"] = names = ["robust_accuracy", "clean_accuracy"]
    search(halving | {"objectives": objectives}, "run")
    table = load_table(tmp_path / "run")
    statuses = table["status"].tolist()
    second, fourth, states = rungs_of(tmp_path / "run")
    assert set(statuses) == {"complete", "stopped"}
    assert states == [{"complete": "COMPLETE", "stopped": state}[s] for s in statuses]
    reasons = table["reason"][table["status"] == "stopped"]
    pattern = r"asha after epoch [24] at robust_accuracy [\d.]+, clean_accuracy [\d.]+"
    assert reasons.str.fullmatch(pattern).all()
    # Whoever too many dominate is stopped; others may be as well.
    for number, may in enumerate(hopeful(second, *names)):
        assert may or (fourth[number] is None and statuses[number] == "stopped")


def test_resources_that_are_not_there_are_refused_at_once(tiny, search, tmp_path):
    log = search({**tiny, "resources": {"cpu": 999}}, "run", code=2)
    assert "psinas: resources.cpu: expected" in log
    assert finished(tmp_path / "run") == 0


@pytest.mark.slow
def test_a_worker_attacks_test_images_as_this_process_does(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # put back afterwards
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 6, 6, generator=generator), torch.arange(40) % 3
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2)]
    arguments = (*nets, x, y, Recipe(epsilon=0.1, steps=2))
    here = attacked(*arguments, device="cpu", threads=1)
    assert on_worker(None, Resources(gpu=0), attacked, *arguments) == here
    assert set(here[1]) == {"fgsm", "step_ll", "pgd"}
    with pytest.raises(InputError, match=r"resources.cpu: expected at most"):
        on_worker(None, Resources(cpu=9999), attacked, *arguments)


def test_a_cutout_larger_than_the_images_is_refused_before_any_trial(tiny, tmp_path, psinas):
    config = tmp_path / "cut.yaml"
    config.write_text(yaml.safe_dump({**tiny, "vary": {"recipe.cutout": [0, 9]}}), "utf-8")
    result = psinas("search", config, "--out", tmp_path / "run")
    one_line(result, "recipe.cutout: expected at most the 8 pixels of a side", "got 9")
