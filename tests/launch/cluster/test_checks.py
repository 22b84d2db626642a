"""What is said of nodes on which trials would be spoilt: the lines, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.cluster.checks import doubts_of, faults_of
from launch.cluster.node import NodeReport
from launch.config.config import parse_config

VERSIONS = {
    "psinas": "0.1.0",
    "torch": "2.14.1+cu126",
    "torchvision": "0.29.2",
    "ray": "2.60.0",
    "optuna": "5.0.0",
    "numpy": "2.4.6",
    "python": "3.11.7",
    "commit": "0b0fd5a127a7",
    "sources": "496c2958f5ac",
}
OWN = "my_pkg.mod:Thing"
DRIVEN = NodeReport(host="head", cores=8, versions=VERSIONS, module_checksums={OWN: "aa"})
GOOD = NodeReport(
    node="a" * 56, host="node-a", address="10.0.0.1", cpus=8.0, gpus=2.0, cores=8,
    torch_gpus=("H100", "H100"), gpu_memory_bytes=(80 << 30, 80 << 30), versions=VERSIONS,
    storage="shared", run_free_bytes=1 << 40, temporary_free_bytes=1 << 40,
    module_checksums={OWN: "aa"}, clock_offset_seconds=0.1, clock_error_seconds=0.1,
)  # fmt: skip
BAD = replace(GOOD, node="b" * 56, host="node-b")
RUN = "/runs/x"


def versions(**other):
    return {"versions": VERSIONS | other}


def said(of, changed, document=None):
    """Return what is said of a good node and one that is changed."""
    nodes = [GOOD, replace(BAD, **changed)]
    return of(nodes, parse_config(document or {}), DRIVEN, RUN)


SHARED = "expected the driver's run directory /runs/x, got another directory of that name there"
WRITE = "let the user that runs Ray there read and write it"
AS = "as on the driver"
FAULTS = [
    (versions(torch="2.12.0"), f"expected torch 2.14.1 {AS}, got 2.12.0: install it there"),
    (versions(ray="2.59.0"), f"expected ray 2.60.0 {AS}, got 2.59.0: install it there"),
    (versions(python="3.12.1"), f"expected python 3.11 {AS}, got 3.12: install it there"),
    (versions(torch=None), f"expected torch 2.14.1 {AS}, got None: install it there"),
    (
        versions(sources="1234", commit="3c1f5c29544a"),
        "expected psinas 0.1.0 (commit 0b0fd5a, sources 496c2958f5ac) as on the driver, got "
        "psinas 0.1.0 (commit 3c1f5c2, sources 1234): install the driver's there",
    ),
    (
        {"storage": "absent"},
        "expected the run directory /runs/x on storage that all nodes share, got none there: "
        "mount it there, or give --out on shared storage",
    ),
    ({"storage": "other"}, f"{SHARED}: give --out on storage that all nodes share"),
    (
        {"storage": "unseen"},
        "expected the driver to see what a node writes to /runs/x, got nothing: give --out on "
        "storage that all nodes share",
    ),
    (
        {"storage": "read-only"},
        "expected a run directory that can be written, got /runs/x on a read-only file system "
        "there: mount it writable, or give another --out",
    ),
    (
        {"storage": "full", "storage_error": "No space left on device"},
        "expected room in /runs/x, got none there (No space left on device): free some, or give "
        "another --out",
    ),
    (
        {"storage": "quota", "storage_error": "Disk quota exceeded"},
        "expected room in /runs/x, got a quota that is used up (Disk quota exceeded): free some, "
        "or give another --out",
    ),
    (
        {"storage": "unwritable", "storage_error": "Permission denied"},
        "expected a run directory that can be written, got /runs/x there: Permission denied: "
        f"{WRITE}",
    ),
    (
        {"storage": "unreadable", "storage_error": "Permission denied"},
        f"expected a run directory that can be read, got /runs/x there: Permission denied: {WRITE}",
    ),
    (
        {"torch_gpus": (), "cuda_error": "no driver"},
        "Ray counts 2 GPUs, torch can use none (no driver): mend its driver, start the node with "
        "--num-gpus=0, or --set resources.gpu=0",
    ),
    (
        {"torch_gpus": ("H100",)},
        "Ray counts 2 GPUs, torch can use 1: mend its driver, start the node with --num-gpus=1, or "
        "--set resources.gpu=0",
    ),
    (
        {"modules": {OWN: "ModuleNotFoundError: No module named 'my_pkg'"}},
        f"expected {OWN} to be imported there, got ModuleNotFoundError: No module named 'my_pkg': "
        "install it there, or put its directory on shared storage",
    ),
    (
        {"module_checksums": {OWN: "bb"}},
        f"expected {OWN} from the driver's file, got one with another text there",
    ),
    (
        {"unready": "ModuleNotFoundError: No module named 'launch'", "versions": {}},
        "expected psinas 0.1.0 in the Python that runs Ray there, got ModuleNotFoundError: No "
        "module named 'launch': install it there",
    ),
]  # fmt: skip
DOUBTS = [
    ({"silent": "no answer within 60 s", "versions": {}},
     "expected an answer, got none: no answer within 60 s"),
    (versions(numpy="2.4.5"), "expected numpy 2.4.6 as on the driver, got 2.4.5"),
    (versions(optuna="4.9.0"), "expected optuna 5.0.0 as on the driver, got 4.9.0"),
    (versions(torchvision=None), "expected torchvision 0.29.2 as on the driver, got None"),
    (versions(python="3.11.9"), "expected python 3.11.7 as on the driver, got 3.11.9"),
    (versions(torch="2.14.1+cpu"), "expected torch 2.14.1+cu126 as on the driver, got 2.14.1+cpu"),
    ({"clock_offset_seconds": 12.0},
     "expected its clock within 5 s of the driver's, got one 12.0 s ahead of it: set it by NTP"),
    ({"clock_offset_seconds": -7.25},
     "expected its clock within 5 s of the driver's, got one 7.2 s behind it: set it by NTP"),
    ({"run_free_bytes": 1 << 29}, "expected 1.0 GiB free in /runs/x, got 0.5 GiB"),
    ({"temporary_free_bytes": 0},
     "expected 1.0 GiB free in Ray's temporary directory, got 0.0 GiB"),
    ({"cpus": 16.0},
     "Ray counts 16 CPUs, a process there may use 8 cores: start it with --num-cpus=8"),
    ({"gpus": 0.0}, "torch can use 2 GPUs, Ray counts none: start it with --num-gpus=2"),
    ({"data": {"mnist": "not found"}},
     "expected mnist there, got none (not found): a search carries its images along, psinas score "
     "and bracket --address read them there"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "line"), FAULTS)
def test_a_fault_names_the_node_what_was_expected_what_came_and_what_helps(changed, line):
    assert said(faults_of, changed) == [f"node-b: {line}"]
    assert said(doubts_of, changed) == []


@pytest.mark.parametrize(("changed", "line"), DOUBTS)
def test_a_doubt_refuses_nothing(changed, line):
    assert said(doubts_of, changed) == [f"node-b: {line}"]
    assert said(faults_of, changed) == []


def test_good_nodes_are_given_no_line():
    assert said(faults_of, {}) == said(doubts_of, {}) == []


@pytest.mark.parametrize(
    ("changed", "resources"),
    [
        ({"torch_gpus": ()}, {"gpu": 0}),  # models stay on the CPU
        ({"torch_gpus": ()}, {"device": "cpu"}),  # GPUs that are pretended
        ({"storage": "absent"}, {"cpu": 9}),  # no trial fits there
        (
            {"storage": "absent", "gpus": 0.0, "torch_gpus": ()},
            {},
        ),  # only node-a takes any
        ({"storage": "absent", "gpus": 0.0, "torch_gpus": ()}, {"gpu": 0.5}),
        ({"clock_offset_seconds": 12.0, "clock_error_seconds": 8.0}, {}),  # it may be right
        ({"torch_gpus": None}, {}),  # torch was not asked
    ],
    ids=str,
)
def test_what_a_search_never_meets_is_no_fault_of_it(changed, resources):
    assert said(faults_of, changed, {"resources": resources}) == []
    assert said(doubts_of, changed, {"resources": resources}) == []


def test_a_node_without_gpus_counts_where_there_are_none():
    bad = replace(BAD, storage="absent", gpus=0.0, torch_gpus=None)
    assert len(faults_of([bad], parse_config({}), DRIVEN, RUN)) == 1
    assert len(faults_of([GOOD, bad], parse_config({"resources": {"gpu": 0}}), DRIVEN, RUN)) == 1


def test_nodes_of_which_the_same_is_true_share_a_line():
    nodes = [replace(BAD, node=str(i) * 56, host=f"n{i}", **versions(ray="1")) for i in range(6)]
    line = "expected ray 2.60.0 as on the driver, got 1: install it there"
    assert faults_of(nodes[:2], parse_config({}), DRIVEN, RUN) == [f"n0, n1: {line}"]
    six = faults_of([*nodes, GOOD], parse_config({}), DRIVEN, RUN)
    assert six == [f"n0, n1, n2, n3 and 2 more: {line}"]
    alike = [replace(found, host="vm") for found in nodes[:2]]
    both = f"vm (000000), vm (111111): {line}"
    assert faults_of(alike, parse_config({}), DRIVEN, RUN) == [both]


def test_a_cluster_of_which_no_node_answers_is_refused():
    silent = replace(BAD, silent="the node is gone", versions={})
    line = "node-b: expected an answer, got none: the node is gone"
    assert faults_of([silent], parse_config({}), DRIVEN, RUN) == [line]
