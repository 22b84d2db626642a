"""Work on a worker: what it says, returns and refuses comes to the driver."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from work_elsewhere import breaks, dies, measured, refuses

from launch.cluster.elsewhere import on_worker
from launch.config.sections import Resources
from nas.errors import InputError, WorkerFailure

HELPERS = Path(__file__).parents[2] / "helpers"
pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]  # one Ray at a time


def test_work_on_a_cluster(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.setenv("PSINAS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    asked, said = Resources(gpu=0), []
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        array, *where = on_worker(cluster.address, asked, measured, 2, say=said.append)
        array[:] = 1
        assert said == ["line 0", "line 1"]
        assert where == ["cpu", 1, str(tmp_path), str(tmp_path)]
        named = rf"^expected something else \(on node {socket.gethostname()}\)$"
        with pytest.raises(InputError, match=named):
            on_worker(cluster.address, asked, refuses)
        with pytest.raises(RuntimeError, match="^a fault$"):
            on_worker(cluster.address, asked, breaks)
        with pytest.raises(WorkerFailure, match="the worker died"):
            on_worker(cluster.address, asked, dies)
        with pytest.raises(InputError, match="resources.cpu: expected at most the 1 cores"):
            on_worker(cluster.address, Resources(cpu=2, wait_seconds=0), refuses)
    finally:
        cluster.shutdown()
