"""A retraining whose trials are trained by two processes each, from the command line."""

from __future__ import annotations

import pytest
from helpers import TINY, one_line, search_here

from launch.runs.run import Run

ASKED = ("--set", "recipes=[{learning_rate: 0.1}]", "--set", "test_images=20")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", {**TINY, "trials": 1})


@pytest.mark.ray
@pytest.mark.slow
def test_two_processes_train_each_trial(run, psinas):
    code, printed, errors = psinas("retrain", run, *ASKED, "--set", "resources.processes=2")
    assert code == 0, errors
    assert "white box" in printed
    (there,) = (run / "retrain").iterdir()
    for trained in (there, there / "copy-1"):
        assert Run(trained).config.resources.processes == 2
        (result,) = Run(trained).results
        assert (result["status"], result["environment"]["processes"]) == ("complete", 2)
        assert result["environment"]["threads"] == 1


def test_more_than_this_machine_has_is_refused_in_a_line(run, psinas, monkeypatch):
    """Without Ray: what is asked is compared with the nodes that are there."""
    from launch.cluster import driver
    from launch.cluster.nodes import Cluster
    from launch.cluster.slots import Node

    def run_search(search, config, run, progress, **more):
        resources = driver.waiting(config.resources, None)
        Cluster(resources, living=lambda: [Node("n", "here", 2)]).wait_for_room()

    monkeypatch.setattr("launch.runs.searching.run_search", run_search)
    out = ("--out", run.parent / "refused")
    one_line(
        psinas("retrain", run, *ASKED, *out, "--set", "resources.processes=3"),
        "resources.processes: expected at most the 2 cores of a node that Ray sees, got 3",
    )
    one_line(
        psinas("retrain", run, *ASKED, *out, "--set", "resources.gpu=2"),
        "resources.gpu: expected at most the 0 GPUs of a node that Ray sees, got 2",
    )
