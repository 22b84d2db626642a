"""Three real nodes, of which one has a GPU without a driver and one is another machine in all but
name: a mount namespace of its own, with other storage and another psinas."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import TINY, one_line

from launch.cluster.before import questions_of
from launch.cluster.checks import faults_of
from launch.cluster.node import Questions
from launch.cluster.probe import begin, here, living, probe
from launch.cluster.session import ray_session
from launch.config import versions
from launch.config.config import parse_config

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
RAY = f"{sys.executable} -m ray.scripts.scripts"
LIMIT = 60.0


def may_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _sources(monkeypatch):
    """Processes that tests start run the psinas that is tested."""
    helpers = Path(__file__).parents[2] / "helpers"
    monkeypatch.setenv("PYTHONPATH", f"{versions.HOME}:{helpers}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return the address of three nodes, and the run directory that two of them share."""
    from ray.cluster_utils import Cluster

    if not may_mount():
        pytest.skip("needs the right to mount, for a node with storage of its own")
    home = tmp_path_factory.mktemp("shared")
    run, other = home / "run", home / "other.py"
    run.mkdir()
    file = versions.HOME / "nas" / "seeds.py"
    other.write_text(file.read_text() + "# another psinas\n")
    mounts = f"mount --bind {other} {file} && mount -t tmpfs none {run}"
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=2, num_gpus=2)
    start = f"{mounts} && exec {RAY} start --address={found.address} --block"
    with (home / "log").open("w") as log:
        command = ["unshare", "-m", "sh", "-c", f"{start} --num-cpus=3 --num-gpus=1"]
        third = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        ends = time.monotonic() + LIMIT
        with ray_session(found.address):
            while len(living()) < 3:
                assert third.poll() is None, (home / "log").read_text()
                assert time.monotonic() < ends
                time.sleep(0.2)
        yield found.address, run
    finally:
        third.send_signal(signal.SIGTERM)
        third.wait()
        found.shutdown()


def test_what_is_wrong_on_one_node_is_said_of_that_node(cluster):
    address, run = cluster
    document = {"space": {"name": "faulty_spaces:Faulty", "kinds": ["good"]}}
    config = parse_config(document)
    with ray_session(address):
        questions = questions_of(config, run)
        nodes = [*living(), "0" * 56]
        reports = probe(nodes, questions)
        waiting = begin(nodes[:1], Questions())
        at_once = waiting.ready()
        later = waiting.ready(LIMIT)
        in_no_time = probe(nodes[:2], Questions(), timeout=0.0)
    assert [r.node for r in reports] == nodes
    good, driverless, apart = sorted(reports[:3], key=lambda r: r.cpus)
    assert (good.storage, driverless.storage, apart.storage) == ("shared", "shared", "other")
    assert (good.torch_gpus, driverless.torch_gpus, apart.torch_gpus) == (None, (), ())
    assert all(abs(r.clock_offset_seconds) < 1 for r in reports[:3])  # one machine, one clock
    assert reports[3].silent == "the node is gone"
    assert [r.node for r in at_once + later] == nodes[:1]
    assert {r.silent for r in in_no_time} == {"no answer within 0 s"}
    assert list(run.iterdir()) == []
    lines = faults_of(reports, config, here(questions), str(run))
    one, two, of_psinas, of_storage = sorted(lines, key=lambda line: line.partition(": ")[2])
    assert f"({apart.node[:6]}): Ray counts 1 GPU, torch can use none (" in one
    assert f"({driverless.node[:6]}): Ray counts 2 GPUs, torch can use none (" in two
    assert f"({apart.node[:6]}): expected psinas 0.1.0 (" in of_psinas
    assert f"({apart.node[:6]}): expected the driver's run directory {run}, got an" in of_storage


@pytest.mark.slow
def test_a_search_on_such_nodes_is_refused_and_leaves_nothing(cluster, psinas, tmp_path):
    """doctor shows the same faults, all of them."""
    address, run = cluster
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    where = ["--out", run, "--address", address]
    refused = psinas("search", config, *where)
    one_line(refused, "psinas: ", "(and 3 more: psinas doctor shows them)")
    assert list(run.iterdir()) == []
    code, out, _ = psinas("doctor", config, *where, "--format", "json")
    told = json.loads(out)
    assert (code, len(told["nodes"]), len(told["faults"])) == (2, 3, 4)
    assert told["faults"][0] in refused[2]
    assert list(run.iterdir()) == []
