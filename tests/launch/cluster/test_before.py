"""Nodes that join while a search runs are asked too: one that would spoil trials is named."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console
from searchers import searcher_over

from launch.cluster import before
from launch.cluster.before import Newcomers, refuse
from launch.cluster.node import NodeReport
from launch.config.config import parse_config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.show.progress import Progress
from nas.errors import InputError


class Asked:
    """A probe that is answered when the test says so."""

    def __init__(self, nodes):
        self.left, self.came = tuple(nodes), []

    def answer(self, *reports):
        self.came += reports
        self.left = tuple(set(self.left) - {r.node for r in reports})

    def ready(self):
        came, self.came = self.came, []
        return came


@pytest.fixture
def asked(monkeypatch):
    """Return the probes that were begun, of nodes that run what the driver runs."""
    found = []

    def begin(nodes, questions):
        found.append(Asked(nodes))
        return found[-1]

    monkeypatch.setattr(before, "begin", begin)
    monkeypatch.setattr(before, "here", lambda questions: NodeReport(versions={"ray": "2"}))
    return found


def report(node, **more):
    return NodeReport(node=node, host=f"host-{node}", cpus=4.0, versions={"ray": "2"}, **more)


def test_a_node_that_joins_is_asked_once_and_closed_if_it_is_unfit(asked, tmp_path):
    said = []
    newcomers = Newcomers(parse_config({}), tmp_path, said.append, ["a"])
    assert newcomers.spoilt(["a"]) == []
    assert asked == []
    assert newcomers.spoilt(["a", "c", "b"]) == newcomers.spoilt(["a", "b", "c"]) == []
    assert [probe.left for probe in asked] == [("b", "c")]
    asked[0].answer(report("b", storage="shared"))
    assert newcomers.spoilt(["a", "b", "c"]) == said == []
    asked[0].answer(report("c", storage="absent", storage_error=""))
    assert newcomers.spoilt(["a", "b", "c"]) == ["c"]
    assert said == [
        f"host-c: expected the run directory {tmp_path} on storage that all nodes share, got none "
        "there: mount it there, or give --out on shared storage; it is not used"
    ]
    assert newcomers.spoilt(["a", "b", "c"]) == []
    assert (len(asked), len(said)) == (1, 1)


def test_a_node_that_does_not_answer_is_said_and_used_and_one_that_is_gone_is_nothing(
    asked, tmp_path
):
    said = []
    newcomers = Newcomers(parse_config({}), tmp_path, said.append, [])
    newcomers.spoilt(["a", "b", "c"])
    silent = replace(report("a"), silent="a worker died", versions={})
    low = report("b", temporary_free_bytes=1 << 29)
    gone = report("c", storage="absent")
    asked[0].answer(silent, low, gone)
    assert newcomers.spoilt(["a", "b"]) == []
    assert said == [
        "host-a: expected an answer, got none: a worker died",
        "host-b: expected 1.0 GiB free in Ray's temporary directory, got 0.5 GiB",
    ]


def test_a_refusal_is_one_line():
    refuse([])
    with pytest.raises(InputError, match=r"^a: b$"):
        refuse(["a: b"])
    with pytest.raises(InputError, match=r"^a: b \(and 2 more: psinas doctor shows them\)$"):
        refuse(["a: b", "c", "d"])


def test_a_searcher_closes_a_node_that_turns_out_unfit(tiny, tmp_path):
    make_directory(tmp_path / "run")
    config = settle_config(tmp_path / "run", parse_config(tiny), resume=False, keep_trials=False)
    search = open_search(tmp_path / "run", config)
    searcher = searcher_over(search, config, tmp_path / "run", Progress(Console(quiet=True)))
    searcher.newcomers = SimpleNamespace(spoilt=lambda nodes: [n for n in nodes if n == "n"])
    assert searcher.suggest("a")["avoid"] == []
    searcher.tick()
    assert searcher.suggest("b")["avoid"] == ["n"]


def test_a_node_that_goes_while_it_is_asked_refuses_nothing(monkeypatch, tmp_path):
    there = [["a", "b"], ["a", "b"], ["b"]]
    monkeypatch.setattr(before, "living", lambda cpus=0: there.pop(0))
    monkeypatch.setattr(before, "here", lambda questions: NodeReport("", "driver"))
    answers = [NodeReport("a", "host-a", silent="it is gone"), NodeReport("b", "host-b")]
    monkeypatch.setattr(before, "probe", lambda nodes, questions, say: answers[: len(there) + 1])
    seen = []
    monkeypatch.setattr(before, "faults_of", lambda reports, *more: seen.extend(reports) or [])
    monkeypatch.setattr(before, "doubts_of", lambda *more: [])
    before.check_nodes(parse_config({}), tmp_path, print)
    assert [report.node for report in seen] == ["b"]
