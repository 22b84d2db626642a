"""``psinas doctor`` without a cluster: what stands against a search on this machine."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers import TINY, one_line

from launch.cluster import probe
from launch.cluster.node import NodeReport
from launch.cluster.slots import Slots
from launch.runs.doctor import Examined, lines_of, table_of

LOCKED = """
import threading
from metrics.metric import Metric

class Locked(Metric):
    default_label = "locked"

    def __post_init__(self):
        object.__setattr__(self, "lock", threading.Lock())

    def measure(self, *arguments):
        return 1.0, 0.0
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """Return a configuration, in a current directory of its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_a_search_that_can_run_is_given_no_fault_and_nothing_is_made(psinas, config):
    before = set(config.parent.iterdir())
    code, out, err = psinas("doctor", config)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "nothing is wrong"
    assert "  digits  there" in lines
    assert "configuration  tiny can travel to workers" in lines
    assert set(config.parent.iterdir()) == before


def test_a_program_reads_the_same(psinas, config):
    code, out, _ = psinas("doctor", config, "--format", "json", "--out", "a/b")
    told = json.loads(out)
    assert (code, told["faults"], told["nodes"]) == (0, [], [])
    assert told["directory"] == str(config.parent)  # the nearest that is there
    assert told["driver"]["host"] == os.uname().nodename
    assert told["search"] == "tiny"


def test_missing_data_are_a_fault_and_code_2(psinas, config):
    place = ["--set", "data.name=mnist", "--set", f"data.root={config.parent}"]
    code, out, err = psinas("doctor", config, *place)
    assert (code, err) == (2, "")
    assert "  mnist  not there" in out.splitlines()
    assert out.splitlines()[-1].startswith("fault  this machine: data: mnist was not found: exp")


def test_a_metric_that_cannot_travel_is_a_fault_of_the_configuration(psinas, config):
    (config.parent / "locked.py").write_text(LOCKED)
    document = {**TINY, "metrics": [*TINY["metrics"], "locked:Locked"]}
    config.write_text(yaml.safe_dump(document))
    code, out, _ = psinas("doctor", config)
    assert code == 2
    assert out.splitlines()[-1] == (
        "fault  configuration: metrics[4]: expected a metric that can be pickled, since it travels "
        "to workers, got a Locked: TypeError: cannot pickle '_thread.lock' object"
    )
    assert "travel to workers\n" not in out
    one_line(psinas("search", config), "psinas: metrics[4]: expected a metric that can be pickled")
    assert not (config.parent / "runs").exists()


def test_a_full_disk_is_a_fault(psinas, config, monkeypatch):
    """Simulated: the error that a used-up quota gives."""

    def full(path, text):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(probe, "leave", full)
    code, out, _ = psinas("doctor", config)
    assert code == 2
    line = f"fault  this machine: --out: expected room to write in {config.parent}, got none: "
    assert line + os.strerror(errno.EDQUOT) in out.splitlines()


def test_what_cannot_be_asked_is_one_line(psinas, config):
    one_line(psinas("doctor", "moon"), "moon")
    one_line(psinas("doctor", "--set", "trials=3"), "--set: expected a preset or a CONFIG.yaml")
    one_line(psinas("doctor", "--address", "127.0.0.1:1"), "--address: expected", "127.0.0.1:1")


NODE = NodeReport(
    node="a" * 56, host="node-a", address="10.0.0.1", cpus=16.0, gpus=1.0, cores=16,
    torch_gpus=("H100",), gpu_memory_bytes=(80 << 30,), storage="shared", run_free_bytes=3 << 30,
    versions={"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "psinas": "0.1.0"},
    clock_offset_seconds=-0.004, clock_error_seconds=0.003,
)  # fmt: skip


def test_the_table_has_a_line_a_node():
    gone = NodeReport(node="b" * 56, host="node-b", address="10.0.0.2", cpus=8.0, silent="gone")
    assert [line.split() for line in table_of([NODE, gone])] == [
        "node address CPUs cores GPUs torch's GPUs storage free clock python ray torch psinas"
        .split(),
        "node-a 10.0.0.1 16 16 1 H100 80.0 GiB shared 3.0 GiB -0.00 s 3.11.7 2.60.0 2.14.1 0.1.0"
        .split(),
        "node-b 10.0.0.2 8 - 0 - - - - - - - -".split(),
    ]  # fmt: skip


def test_faults_come_before_doubts():
    here = replace(NODE, node="", cuda_error="")
    told = Slots(8, 2, 0.25), {}, ["a: b"], ["c: d"]
    found = Examined(None, Path("/runs"), Path("/data"), here, [NODE], *told)
    lines = lines_of(found)
    slots = "8 trials at a time, 0.25 GPU and 2 cores each"
    assert lines[-5:] == ["", slots, "", "fault  a: b", "doubt  c: d"]
    assert "GPUs  H100 80.0 GiB" in lines
    assert lines_of(replace(found, faults=[], doubts=[]))[-1] == "nothing is wrong"
