"""A search over nodes that come and go: every trial finished once, with the undisturbed table.

Three nodes of one machine, each with two GPUs that are only counted; models run on the CPU.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from drivers import Driver, compare
from helpers import TINY, search_here
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]  # one Ray at a time
GPUS = {"num_cpus": 2, "num_gpus": 2}
LIMIT = 240


@pytest.fixture
def document():
    """Return a search of 24 trials of some seconds, each on a GPU of its own."""
    return TINY | {
        "data": {"name": "digits", "limit": {"train": 400, "validation": 100}},
        "recipe": {"epochs": 6, "batch_size": 20, "epsilon": 0.1, "steps": 3},
        "vary": {"repeat": list(range(6))},
        "resources": {"gpu": 1, "device": "cpu", "wait_seconds": 120},
    }


class Nodes:
    """A cluster whose head has no cores, with a search on it."""

    def __init__(self, tmp_path: Path, document) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.config, self.run = tmp_path / "run.yaml", tmp_path / "run"
        self.config.write_text(yaml.safe_dump(document))
        self.driver: Driver | None = None

    def add(self):
        return self.cluster.add_node(**GPUS)

    def search(self) -> Driver:
        self.driver = Driver(self.config, self.run, "--address", self.cluster.address)
        return self.driver

    def says(self, *parts: str) -> None:
        """Wait until the driver has said all of it, in this order."""
        until = time.monotonic() + LIMIT
        while True:
            log, place = self.driver.log.read_text(), 0
            for part in parts:
                place = log.find(part, place) if place >= 0 else -1
            if place >= 0:
                return
            assert self.driver.process.poll() is None, log
            assert time.monotonic() < until, log
            time.sleep(0.2)

    def drain(self, node, seconds: int) -> None:
        command = [Path(sys.executable).with_name("ray"), "drain-node",
                   "--address", self.cluster.address, "--node-id", node.node_id,
                   "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
                   "--deadline-remaining-seconds", str(seconds)]  # fmt: skip
        subprocess.run([str(part) for part in command], check=True, capture_output=True)

    def end(self) -> None:
        if self.driver is not None and self.driver.process.poll() is None:
            os.killpg(self.driver.process.pid, 9)
            self.driver.process.wait()
        self.cluster.shutdown()


@pytest.fixture
def nodes(tmp_path, document):
    found = Nodes(tmp_path, document)
    yield found
    found.end()


@pytest.mark.slow
def test_a_search_waits_for_its_first_node_and_uses_it(document, tmp_path) -> None:
    """The head has no cores, which a cluster that scales from zero begins with."""
    nodes = Nodes(tmp_path, document | {"trials": 4})
    try:
        nodes.search()
        nodes.says("resources.gpu: expected at most the 0 GPUs", "waiting up to 120 s for a node")
        nodes.add()
        nodes.driver.end(0)
        nodes.says("joined (2 cores, 2 GPUs): 2 trials at a time", "0 of 4 trials done, 2 at a")
    finally:
        nodes.end()


@pytest.mark.slow
def test_nodes_are_killed_added_and_drained(document, nodes, tmp_path) -> None:
    expected = search_here(tmp_path / "undisturbed", document)
    first, second = nodes.add(), nodes.add()
    nodes.add()
    driver = nodes.search()
    driver.busy()
    nodes.cluster.remove_node(first, allow_graceful=False)
    nodes.says("is gone: 4 trials at a time")
    driver.busy()
    nodes.add()
    nodes.says("is gone", "joined (2 cores, 2 GPUs): 6 trials at a time")
    nodes.drain(second, 60)
    nodes.says("joined", "is being drained")
    driver.end(0)
    compare(nodes.run, expected)
    log = driver.log.read_text()
    assert "raylet" not in log.lower()
    assert "state-dump" not in log


@pytest.mark.slow
def test_a_killed_driver_is_followed_by_another_one(document, nodes, tmp_path) -> None:
    """Meanwhile one of its nodes has died, and another one has joined."""
    expected = search_here(tmp_path / "undisturbed", document)
    nodes.add()
    last = nodes.add()
    first = nodes.search()
    first.busy()
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    nodes.cluster.remove_node(last, allow_graceful=False)
    nodes.add()
    second = nodes.search()
    second.end(0)
    compare(nodes.run, expected)
    assert "trials done, 4 at a time" in second.log.read_text()
