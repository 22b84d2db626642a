"""What each trial of a search asks of the cluster, and when one more has room. No Ray here.

With a fixed share there is always room as far as this module goes, and nothing is asked for but
where memory ran out (:mod:`launch.cluster.ladder`). With ``trials_per_gpu: auto`` every trial gets
the share of :mod:`launch.cluster.packing`. A trial that is larger than what is free waits, and
smaller ones go past it; once some wait, nothing new is proposed, so that they get their turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.cluster.climb import Climb, Gpu
from launch.cluster.ladder import Ladder, Step
from launch.cluster.packing import Node, Packing, Request, room, share_of, without_room
from launch.cluster.peaks import Peaks
from launch.cluster.slots import automatic
from launch.config.sections import Resources
from nas.ledger.results import MEMORY_STEPS
from nas.trial.trial import Trial

PEAK = "peak_memory_bytes"
"""Where an outcome has what its trial held at most of the device, of torch's own counting."""
WAITING = 16  # GPUs for each of which one trial may wait


@dataclass
class _Out:
    """A trial that was handed out."""

    trial: Trial
    request: Request | None
    micro_batch: int | None
    began: bool = False


class Placement:
    """Is told what happens to trials; says what they ask for.

    Args:
        nodes: returns the nodes that take trials.
        cards: returns the bytes of each GPU of every node, by its id; empty tuples where unknown.
        on_gpu: returns whether trials run on GPUs that are there or to come.
        cpu: cores of a trial.
        processes: of a trial, on GPUs each with one of its own.
        packing: of ``trials_per_gpu: auto``; None gives every trial the usual share.
        climb: how many a GPU pay.
        workers: at most so many trials at a time.
        clock: returns seconds.
    """

    def __init__(
        self,
        nodes: Callable[[], Sequence[Node]],
        cards: Callable[[], Mapping[str, tuple[int, ...]]],
        on_gpu: Callable[[], bool],
        *,
        cpu: int = 1,
        processes: int = 1,
        packing: Packing | None = None,
        climb: Climb | None = None,
        workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes, self._cards, self.on_gpu, self._cpu = nodes, cards, on_gpu, cpu
        self._packing, self._workers, self._clock = packing, workers, clock
        self._whole = float(processes)
        self._climb = climb or Climb()
        self._ladder = Ladder()
        self._out: dict[int, _Out] = {}
        self._changes = 0
        self._answer: tuple[Any, bool] = (None, True)

    @property
    def most(self) -> int:
        """Trials a GPU at most, as it stands."""
        return self._climb.most

    def has_room(self) -> bool:
        """Return whether the search should propose one more trial now."""
        if self._packing is None or not self.on_gpu():
            return True
        nodes = tuple(self._nodes())
        state = nodes, self._changes, self._climb.most
        if self._answer[0] != state:  # Tune asks many times a second
            self._answer = state, self._look(nodes)
        return self._answer[1]

    def asks(self, number: int, trial: Trial) -> dict[str, Any]:
        """Note that a trial is handed out; return what travels with it beside the architecture."""
        request, on_gpu = None, self.on_gpu()
        if self._packing is not None and on_gpu:
            request = self._packing.request(trial, self._climb.most)
        step = self._ladder.at(number) or Step()
        if step.alone and on_gpu:
            only = step.only or (request.only if request else ())
            request = Request(self._whole, only, self._cpu)
        self._out[number] = _Out(trial, request, step.micro_batch)
        self._changes += 1
        asked: dict[str, Any] = {} if request is None else {"gpu": request.gpu}
        if request is not None and request.only:
            asked["only"] = list(request.only)
        if step.micro_batch is not None:
            asked["micro_batch"] = step.micro_batch
        return asked

    def began(self, number: int) -> None:
        """Note that a worker has taken a trial."""
        if number in self._out:
            self._out[number].began = True
            self._changes += 1
            self._climb.began(number, self._clock())

    def reported(self, number: int, place: Sequence[Any] | None) -> None:
        """Note the end of an epoch.

        Args:
            number: of the trial.
            place: node, host and GPUs that it runs on, where they are known.
        """
        if (gpu := gpu_of(place)) is not None:
            self._climb.reported(number, gpu, self._clock())

    def left(
        self,
        number: int,
        outcome: Mapping[str, Any] | None = None,
        place: Sequence[Any] | None = None,
    ) -> None:
        """Note that a trial has left its worker, with an outcome or without."""
        out = self._out.pop(number, None)
        if out is None:
            return
        self._changes += 1
        outcome = outcome or {}
        work = None
        if outcome.get("status") == "complete":
            all_of_them = out.trial.recipe.epochs * out.trial.repeats
            epochs = int(outcome.get("epochs", all_of_them))  # fewer where patience ran out
            work = float(outcome["scores"].get("macs", 1.0)) * max(1, epochs)
        self._climb.ended(number, self._clock(), gpu=gpu_of(place), work=work)
        peak = outcome.get(PEAK)
        if peak and self._packing is not None and out.micro_batch is None:
            self._packing.measured(out.trial, int(peak))

    def ran_out(self, number: int, trial: Trial, *, alone: bool) -> Step | None:
        """Return how to try a trial next whose memory ran out; None: no more."""
        return self._ladder.climb(number, trial, alone=alone, cards=self._cards())

    def row(self, number: int, outcome: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an outcome that is final, with the steps that its trial's memory took it."""
        steps = self._ladder.steps(number)
        self._ladder.forget(number)
        return {**outcome, MEMORY_STEPS: steps} if steps else outcome

    def _look(self, nodes: Sequence[Node]) -> bool:
        if self._workers is not None and len(self._out) >= self._workers:
            return False
        requests = [(o.request, o.began) for o in self._out.values()]
        running = [request for request, began in requests if request and began]
        waiting = [request for request, began in requests if request and not began]
        if not requests:
            return True
        late = without_room(nodes, running, waiting)
        gpus = sum(int(node.gpus) for node in nodes)
        least = Request(share_of(self._climb.most), cpu=self._cpu)
        return late < max(1, gpus // WAITING) and room(nodes, running, least, waiting)


def placement_of(
    resources: Resources,
    nodes: Callable[[], Sequence[Node]],
    cards: Callable[[], Mapping[str, tuple[int, ...]]],
    on_gpu: Callable[[], bool],
    estimate: Callable[[Trial], int | None] | None,
    say: Callable[[str], None],
) -> Placement:
    """Return the placement that a configuration asks for.

    Args:
        resources: of a trial. A share given as ``gpu`` is taken before ``trials_per_gpu``.
        nodes: see :class:`Placement`.
        cards: the same.
        on_gpu: the same.
        estimate: see :class:`launch.cluster.peaks.Peaks`.
        say: is told a line for the user.
    """
    packing = None
    if automatic(resources):
        peaks = Peaks(estimate, resources.memory_margin)
        packing = Packing(peaks, cards, say, cpu=resources.cpu)
    return Placement(
        nodes,
        cards,
        on_gpu,
        cpu=resources.cores,
        processes=resources.processes,
        packing=packing,
        workers=resources.workers,
    )


def gpu_of(place: Sequence[Any] | None) -> Gpu | None:
    """Return the node and the GPU of what ``Place.to_list`` gives; None for a CPU."""
    return (str(place[0]), int(place[2][0])) if place and place[2] else None
