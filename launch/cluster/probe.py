"""Asks every node of the cluster whether trials can run there: one task a node, all at a time.

A task takes no cores and no GPU, so it runs beside trials. A node that dies, that has no psinas or
that does not answer in time has a report that says so. ``probe`` waits; ``begin`` does not, for
nodes that join while a search runs.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.cluster.causes import raised_in
from launch.cluster.node import DRIVER, NodeReport, Questions, answer, gpus_here, leave, read_token
from nas.errors import InputError, first_line

TIMEOUT_SECONDS = 180.0  # a first process may read all of Ray and torch over a network
PATIENCE_SECONDS = 15.0  # after which a user is told who has not answered
LOOKS, BETWEEN_SECONDS = 10, 0.2  # for a file that a node says it has written


class Probe:
    """Nodes that were asked, and what has come back.

    Args:
        nodes: ids of living nodes.
        questions: to each of them.

    Raises:
        InputError: the run directory has no room for a token.
    """

    def __init__(self, nodes: Collection[str], questions: Questions) -> None:
        there = {n["NodeID"]: n for n in ray.nodes() if n["Alive"]}
        self._reports: dict[str, NodeReport] = {}  # with what Ray knows, then with the answer
        self._asked: dict[Any, tuple[str, float]] = {}  # task -> node, when it was asked
        self._timed: dict[Any, tuple[str, float]] = {}  # the same, of the time
        self._done: list[NodeReport] = []
        self._token = secrets.token_hex(8)
        self._tokens = None if questions.run is None else _leave(Path(questions.run), self._token)
        ask = ray.remote(_task())
        self._time = ray.remote(_clock())
        for node in nodes:
            entry = there.get(node)
            if entry is None:
                self._done.append(NodeReport(node=node, silent="the node is gone"))
                continue
            counted = entry["Resources"]
            self._reports[node] = report = NodeReport(
                node=node,
                host=entry["NodeManagerHostname"],
                address=entry["NodeManagerAddress"],
                cpus=counted.get("CPU", 0.0),
                gpus=counted.get("GPU", 0.0),
            )
            look = bool(report.gpus) if questions.gpus is None else questions.gpus
            document = {**asdict(questions), "gpus": look, "node": node, "token": self._token}
            document["tokens"] = None if self._tokens is None else str(self._tokens)
            self._asked[_on(ask, node).remote(document)] = node, time.time()

    @property
    def left(self) -> tuple[str, ...]:
        """Nodes that have not answered yet."""
        return tuple(node for node, _ in (*self._asked.values(), *self._timed.values()))

    def ready(self, seconds: float = 0.0) -> list[NodeReport]:
        """Return the reports that came since the last call, waiting at most so long for all."""
        ends = time.monotonic() + seconds
        while waiting := [*self._asked, *self._timed]:
            room = max(0.0, ends - time.monotonic())
            came, _ = ray.wait(waiting, num_returns=1, timeout=room)
            for task in came:
                self._take(task)
            if not came:
                break
        done, self._done = self._done, []
        if not self.left:
            self.close()
        return done

    def give_up(self, why: str) -> list[NodeReport]:
        """Ask no longer; return what is there of the nodes that have not answered."""
        for task in (*self._asked, *self._timed):
            ray.cancel(task, force=True)
        silent = [replace(self._reports[node], silent=why) for node, _ in self._asked.values()]
        reports = [*silent, *(self._reports[node] for node, _ in self._timed.values())]
        self._asked, self._timed = {}, {}
        self.close()
        return reports

    def close(self) -> None:
        """Take the tokens away."""
        if self._tokens is not None:
            shutil.rmtree(self._tokens, ignore_errors=True)

    def _take(self, task: Any) -> None:
        """Note an answer, and ask that node for its time now that its process is warm."""
        received = time.time()
        answered = task in self._timed
        node, sent = (self._timed if answered else self._asked).pop(task)
        report = self._reports[node]
        try:
            found = ray.get(task)
        except RayError as error:
            self._done.append(report if answered else replace(report, silent=raised_in(error)))
            return
        if answered:
            offset, half = found - (sent + received) / 2, (received - sent) / 2
            report = replace(report, clock_offset_seconds=offset, clock_error_seconds=half)
            self._done.append(report)
            return
        if found.get("storage") == "shared" and not self._seen(node, found["said"]):
            found["storage"] = "unseen"
        kept = {"node": node, "address": report.address, "cpus": report.cpus, "gpus": report.gpus}
        self._reports[node] = NodeReport.of({**found, **kept})
        self._timed[_on(self._time, node).remote()] = node, time.time()

    def _seen(self, node: str, said: str) -> bool:
        """Whether the driver reads what a node wrote; a network file system may take a moment."""
        assert self._tokens is not None
        for look in range(LOOKS):
            try:
                return read_token(self._tokens / node) == said
            except OSError:
                time.sleep(BETWEEN_SECONDS if look < LOOKS - 1 else 0.0)
        return False


def begin(nodes: Collection[str], questions: Questions) -> Probe:
    """Ask nodes without waiting for them."""
    return Probe(nodes, questions)


def probe(
    nodes: Collection[str],
    questions: Questions,
    timeout: float = TIMEOUT_SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> list[NodeReport]:
    """Return a report of each node, in their order, after at most ``timeout`` seconds.

    Args:
        nodes: ids of living nodes.
        questions: to each of them.
        timeout: in seconds.
        say: is told once of nodes that take their time.

    Raises:
        InputError: the run directory has no room for a token.
    """
    asked = begin(nodes, questions)
    try:
        reports = asked.ready(min(PATIENCE_SECONDS, timeout))
        if asked.left and timeout > PATIENCE_SECONDS:
            say(f"waiting up to {timeout:g} s for the answers of {len(asked.left)} nodes")
            reports += asked.ready(timeout - PATIENCE_SECONDS)
        if asked.left:
            reports += asked.give_up(f"no answer within {timeout:g} s")
    finally:
        asked.close()
    order = list(nodes)
    return sorted(reports, key=lambda report: order.index(report.node))


def living(cpus: float = 0.0) -> list[str]:
    """Return the ids of the living nodes that have so many CPUs."""
    nodes = (node for node in ray.nodes() if node["Alive"])
    return [node["NodeID"] for node in nodes if node["Resources"].get("CPU", 0.0) >= cpus]


def here(questions: Questions) -> NodeReport:
    """Return what the driver's own process answers; of storage it says only what is free."""
    looked = gpus_here() if questions.gpus else {}
    return NodeReport.of({**answer({**asdict(questions), "gpus": False}), **looked})


def check_room(run: Path) -> None:
    """Refuse a directory that this process cannot write.

    Raises:
        InputError: it cannot, or there is no room.
    """
    shutil.rmtree(_leave(run, secrets.token_hex(8)))


def _leave(run: Path, token: str) -> Path:
    """Return the directory in which driver and nodes leave their tokens, with the driver's."""
    tokens = run / f".nodes-{token}"
    try:
        tokens.mkdir()
        leave(tokens / DRIVER, token)
    except OSError as error:
        shutil.rmtree(tokens, ignore_errors=True)
        raise InputError(
            f"--out: expected room to write in {run}, got none: {first_line(error)}"
        ) from error
    return tokens


def _on(function: Any, node: str) -> Any:
    """Return a remote function that runs on one node and takes nothing of it."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return function.options(num_cpus=0, num_gpus=0, max_retries=0, scheduling_strategy=there)


def _task() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what runs on a node: pickled by value, so that it runs where psinas is missing."""

    def ask(document: Mapping[str, Any]) -> dict[str, Any]:
        import socket

        try:
            import launch.cluster.node
        except ImportError as error:
            return {
                "host": socket.gethostname(),
                "unready": f"{type(error).__name__}: {error}",
            }
        return launch.cluster.node.answer(document)

    return ask


def _clock() -> Callable[[], float]:
    """Return what tells a node's time, pickled by value too."""

    def clock() -> float:
        import time

        return time.time()

    return clock
