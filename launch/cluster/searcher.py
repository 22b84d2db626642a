"""Tune's face of ``nas.search``: it suggests, it completes, and it keeps nothing itself."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from launch.cluster.before import Newcomers
from launch.cluster.causes import LOW_MEMORY, Lost, exit_of, innermost, raised_in
from launch.cluster.faults import Faults, Verdict
from launch.cluster.losses import node_lost, place_of
from launch.cluster.nodes import Cluster
from launch.cluster.place import DeviceLost, Place, WorkerSick
from launch.cluster.placement import Placement
from launch.cluster.scheduler import stopped
from launch.cluster.signals import stopping
from launch.cluster.thrift import Thrift, take_over
from launch.cluster.watch import Watch
from launch.cluster.worker import OUTCOME, PLACE, to_worker
from launch.config.config import Config
from launch.show.progress import Progress
from nas.errors import WorkerFailure, one_line, said
from nas.ledger.results import RUNGS
from nas.search.books import failure
from nas.search.reuse import Earlier
from nas.search.rungs import Rungs
from nas.search.sampling import Proposal
from nas.search.search import Search
from nas.trial.files import kept_epochs, take_trace

TAKE_SECONDS = 1.0  # of taking over trials of other runs, after which Tune hears of its own


@dataclass(frozen=True)
class _Again:
    """A proposal to run once more, once something else had its outcome."""

    proposal: Proposal
    outcomes: int


class StudySearcher(Searcher):
    """Hands Tune what the search proposes, and the search what came of it.

    Args:
        search: over the run's ledger.
        config: of the run.
        run: the run directory.
        progress: is told of everything.
        cluster: on which trials run.
        placement: what trials ask for.
        watch: is told of the trials that run.
        rungs: of the scheduler.
        earlier: trials of other runs that are equal to some of this search, by their key.
    """

    def __init__(
        self,
        search: Search,
        config: Config,
        run: Path,
        progress: Progress,
        *,
        cluster: Cluster,
        placement: Placement,
        watch: Watch,
        rungs: Rungs | None = None,
        earlier: Mapping[str, Earlier] | None = None,
    ) -> None:
        super().__init__()
        self._search: Search | None = search
        self._rungs = rungs
        self._config, self._run, self._progress = config, run, progress
        self._cluster, self._placement = cluster, placement
        self._faults = Faults(cluster.names)
        self.watch = watch
        self._proposals: dict[str, Proposal] = {}
        self._began: dict[str, str | None] = {}  # trials that run, and the ids of their nodes
        self._again: list[_Again] = []
        self._alone: list[Proposal] = []
        self._outcomes = 0
        self.failure: Exception | None = None
        self.newcomers: Newcomers | None = None
        self._earlier = earlier or {}
        self._more = False  # equal trials of other runs, perhaps
        self.thrift = Thrift(config, run, progress.say, search.results())

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for its own restore, which we never use: the ledger is the truth
        return {"metric": None, "mode": None}

    def set_search_properties(self, *arguments: Any, **more: Any) -> bool:
        """Say that this searcher owns its objectives."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what travels to a worker, None to be asked again, or ``Searcher.FINISHED``."""
        assert self._search is not None
        proposal = None
        ends = stopping() or self.failure is not None or self.thrift.halted is not None
        if not ends:
            full = len(self._proposals) >= self._cluster.at_once()
            if full or not self._placement.has_room():
                return None
            try:
                proposal = self._next()
            except Exception as error:  # noqa: BLE001  Tune would swallow it: raised after the run
                self.failure = error
        if proposal is None:
            # What runs may have to run again: a search that is finished is never asked again.
            finished: str = Searcher.FINISHED
            waits = bool(self._proposals) or self._more or self._search.waits()  # for other drivers
            return None if waits and self.failure is None and not ends else finished
        self._proposals[trial_id] = proposal
        self._progress.started(proposal, self._search)
        closed = {*self._faults.closed, *self._cluster.leaving()}
        avoid = sorted(closed & self._cluster.names().keys())
        asked = self._placement.asks(proposal.number, proposal.trial)
        room = {"checkpoint_bytes": self.thrift.room_each(self._cluster.at_once())}
        known = {"avoid": avoid, "expected_errors": sorted(self._faults.expected)}
        return {**to_worker(proposal), **asked, **room, **known}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write what became of a trial; without an outcome it stays RUNNING, for a resume.

        Of an error Tune says no more here; :meth:`on_fault` hears the rest.
        """
        if error or trial_id not in self._proposals:
            return
        proposal = self._proposals.pop(trial_id)
        self._began.pop(trial_id, None)
        self.watch.end(proposal.number, whole=OUTCOME in (result or {}))
        if not result or not result.get("done"):
            return  # interrupted
        try:
            ended = OUTCOME in result
            outcome = (
                json.loads(result[OUTCOME]) if ended else stopped(result, self._config.scheduler)
            )
            self._placement.left(proposal.number, outcome, result.get(PLACE))
            if outcome["status"] == "oom":
                self._follow(proposal, self._memory(proposal, outcome))
                return
            self._finish(proposal, outcome)
            if ended and outcome["status"] != "error":
                self._faults.worked(Place.of(result[PLACE]))
        except Exception as problem:  # noqa: BLE001  Tune would swallow it: raised after the run
            self.failure = problem

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the truth."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on what a trial has told after an epoch."""
        if (proposal := self._proposals.get(trial_id)) is not None:
            if self.watch.told(proposal.number, result):
                self._placement.reported(proposal.number, result.get(PLACE))

    def on_begin(self, trial_id: str, worker: Any, node: str | None = None) -> None:
        """Note that a worker has taken a trial: what it dies of from now on may be the trial's."""
        self._began[trial_id] = node
        if (proposal := self._proposals.get(trial_id)) is not None:
            self.watch.begin(proposal.number, proposal.trial, worker)
            self._placement.began(proposal.number)

    @property
    def gives_up(self) -> bool:
        """Whether the search has failed and nothing runs that could still come to an outcome."""
        return self.failure is not None and not self._began

    def tick(self) -> None:
        """Look after what no worker tells; called all the time."""
        self.watch.tick()
        assert self._search is not None
        if self.newcomers is not None:
            self._faults.closed.update(self.newcomers.spoilt(self._cluster.names()))
        waited = self._cluster.waited(len(self._began))
        started = self._search.finished + len(self._proposals)
        self._cluster.want(max(0, self._search.plan.budget - started))
        if self.failure is None and waited > (limit := self._config.resources.wait_seconds):
            self.failure = WorkerFailure(f"no node could take a trial for {limit:g} s")

    def on_fault(self, trial_id: str, error: BaseException | None) -> None:
        """Judge what a worker raised or died of."""
        proposal = self._proposals.pop(trial_id, None)
        began = trial_id in self._began
        node = self._began.pop(trial_id, None)
        given_up = proposal and self.watch.end(proposal.number, whole=False)
        if proposal is None or stopping() or self.failure is not None:
            return  # it stays RUNNING, for a resume
        self._placement.left(proposal.number)
        if self._rungs is not None:
            self._rungs.forget(proposal.number)
        try:
            if given_up:
                self._finish(proposal, failure("timeout", given_up))
            else:
                self._judge(proposal, error, began, node)
        except Exception as problem:  # noqa: BLE001  Tune would swallow it: raised after the run
            self.failure = problem

    # ------------------------------------------------------------------------------- what is next

    def _next(self) -> Proposal | None:
        """Return a proposal of the search, or one that was lost, or one that runs alone."""
        assert self._search is not None
        until, self._more = time.monotonic() + TAKE_SECONDS, False
        ready = next((a for a in self._again if a.outcomes < self._outcomes), None)
        while ready is None:
            proposal = self._search.propose()
            if proposal is None:
                ready = next(iter(self._again), None)
                break
            if outcome := take_over(self._run, proposal, self._earlier, self._rungs):
                self._finish(proposal, outcome)
                self._more = time.monotonic() > until
                if self._more or self.thrift.halted is not None:  # others end meanwhile
                    return None
                continue
            if not proposal.alone:
                return proposal
            self._alone.append(proposal)
        if ready is not None:
            self._again.remove(ready)
            return ready.proposal
        if self._alone and not self._proposals:
            return replace(self._alone.pop(0), alone=True)  # it has a device to itself
        return None

    # -------------------------------------------------------------------------- what becomes of it

    def _judge(
        self, proposal: Proposal, error: BaseException | None, began: bool, node: str | None
    ) -> None:
        cause, number = getattr(error, "cause", None) or error, proposal.number
        self._faults.got_on(number, kept_epochs(self._run, number))
        if isinstance(cause, WorkerSick):
            self._finish(proposal, json.loads(cause.outcome))
            self._follow(None, self._faults.sick(cause.place, cause.text))
        elif isinstance(cause, DeviceLost):
            self._follow(proposal, self._faults.lost(number, cause.place, "device", cause.text))
        elif not isinstance(error, RayActorError):  # our own code, outside of the trial: a full
            # disk, say
            self.failure = WorkerFailure(f"a worker cannot go on: {one_line(cause or Lost())}")
        elif node_lost(error, node, self._cluster):
            self._follow(proposal, self._faults.node_lost(number))
        elif getattr(error, "actor_init_failed", False) or not began:
            place = place_of(error, node, self._cluster)
            self._follow(proposal, self._faults.never_began(number, place, raised_in(error)))
        elif trace := take_trace(self._run, number):
            limit = self._config.resources.time_limit_seconds or 0
            reason = f"the limit of {limit:g} s was passed; it hung at {innermost(trace)}"
            self._finish(proposal, failure("timeout", reason))
        elif LOW_MEMORY in said(error):
            self._follow(proposal, self._memory(proposal, failure("oom", exit_of(error))))
        else:
            place = place_of(error, node, self._cluster)
            self._follow(proposal, self._faults.lost(number, place, "worker", exit_of(error)))

    def _memory(self, proposal: Proposal, outcome: Mapping[str, Any]) -> Verdict:
        slots, number = self._cluster.slots(), proposal.number
        alone = proposal.alone or slots.count == 1 or slots.gpu > 1
        step = self._placement.ran_out(number, proposal.trial, alone=alone)
        return self._faults.out_of_memory(number, outcome, step, on_gpu=self._placement.on_gpu())

    def _follow(self, proposal: Proposal | None, verdict: Verdict) -> None:
        if verdict.say is not None:
            self._progress.say(verdict.say)
        if verdict.stop is not None:
            self.failure = WorkerFailure(verdict.stop)
        elif proposal is not None and verdict.outcome is not None:
            self._finish(proposal, verdict.outcome)
        elif proposal is not None and (verdict.alone or proposal.alone):
            self._alone.append(proposal)
        elif proposal is not None:
            self._again.append(_Again(proposal, -1 if verdict.at_once else self._outcomes))

    def _finish(self, proposal: Proposal, outcome: Mapping[str, Any]) -> None:
        assert self._search is not None
        number = proposal.number
        if self._rungs is not None:
            outcome = {**outcome, RUNGS: self._rungs.reached(number)}
        outcome = self._placement.row(number, outcome)
        written = self._search.finish(number, outcome)
        self._outcomes += 1
        self._progress.finished(number, written, self._search)
        self.thrift.finished({"number": number, **written})
