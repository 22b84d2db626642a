"""What is done about a fault that is not, or may not be, of the trial's architecture.

A trial whose worker, device or memory was lost runs again under its own number, and never costs the
search its budget: only what it does to several processes is held against it. A place that loses one
trial after another is closed. No Ray here: :class:`Faults` is told what happened, and says what
follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from launch.cluster.ladder import Step
from launch.cluster.place import Place
from nas.search.books import failure

MAX_TRIES = 3  # processes that a trial may lose before the loss is its outcome
IN_A_ROW = 3  # losses at one place, of several trials, after which it is closed
ANYWHERE = 6  # trials lost without an outcome between: the search stops


@dataclass(frozen=True)
class Verdict:
    """What follows from a fault.

    Attributes:
        outcome: of the trial, where this was its last try; None lets it run again.
        alone: it runs again with a device to itself, once nothing else is left.
        at_once: it runs again without waiting for another outcome: what it asks for has changed.
        stop: why the search stops; nothing is held against what runs.
        say: a line for the user.
    """

    outcome: Mapping[str, Any] | None = None
    alone: bool = False
    at_once: bool = False
    stop: str | None = None
    say: str | None = None


class Faults:
    """Remembers what was lost where.

    Args:
        nodes: returns the ids of the living nodes.

    Attributes:
        closed: nodes that are used no more.
        expected: errors that are of the architectures.
    """

    def __init__(self, nodes: Callable[[], Collection[str]]) -> None:
        self._nodes = nodes
        self._tries: Counter[int] = Counter()
        self._nodes_lost: Counter[int] = Counter()
        self._kept: dict[int, int] = {}  # epochs of a trial's checkpoint when it was last lost
        self._row: list[int] = []  # trials lost since the last outcome, anywhere
        self._rows: dict[Place, list[int]] = {}  # the same at each place
        self._sick: dict[tuple[Place, str], int] = {}  # how much had worked then
        self._worked = 0
        self.closed: set[str] = set()
        self.expected: set[str] = set()

    def worked(self, place: Place) -> None:
        """Note that a trial came to an outcome of its own, other than an error."""
        self._row.clear()
        self._worked += 1
        self._rows.pop(place, None)

    def got_on(self, number: int, epochs: int) -> None:
        """Note how far the checkpoint of a trial is that is lost now.

        What it has lost before it got further is not held against it; and since workers can work,
        it does not stop the search with what other trials have lost.
        """
        if epochs <= self._kept.get(number, 0):
            return
        self._kept[number] = epochs
        self._tries[number] = self._nodes_lost[number] = 0
        self._row.clear()

    def lost(self, number: int, place: Place | None, what: str, text: str) -> Verdict:
        """Judge a device or a worker that was lost while a trial ran.

        Args:
            number: of the trial.
            place: where; None if nobody knows.
            what: that was lost, ``worker`` or ``device``.
            text: what was said.
        """
        self._tries[number] += 1
        if self._tries[number] >= MAX_TRIES:
            self._row.clear()
            self._rows.clear()
            reason = f"lost its {what} {MAX_TRIES} times: {text}"
            return Verdict(outcome=failure("error", reason))
        suspects = 2 if what == "device" else 3  # what kills a process is likelier the trial
        return self._counted(number, place, f"lost its {what}: {text}", suspects=suspects)

    def node_lost(self, number: int) -> Verdict:
        """Judge a node that died or stopped to answer: a trial is seldom the cause.

        One under which ``MAX_TRIES`` nodes died runs alone, so that it takes no others with it, and
        ends after twice as many.
        """
        self._nodes_lost[number] += 1
        lost = self._nodes_lost[number]
        if lost >= 2 * MAX_TRIES:
            return Verdict(outcome=failure("error", f"lost its node {lost} times"))
        if lost >= MAX_TRIES:
            return Verdict(alone=True, say=f"trial {number} lost its node {lost} times: now alone")
        return Verdict(say=f"trial {number} lost its node: once more")

    def never_began(self, number: int, place: Place | None, text: str) -> Verdict:
        """Judge a worker that could not be set up: no trial had begun."""
        return self._counted(number, place, f"found no worker that begins: {text}", suspects=1)

    def out_of_memory(
        self, number: int, outcome: Mapping[str, Any], step: Step | None, *, on_gpu: bool
    ) -> Verdict:
        """Judge memory that ran out: with others beside it, it may have been theirs.

        Args:
            number: of the trial.
            outcome: its last one.
            step: of the ladder, that comes next; None: there is none left.
            on_gpu: the trials of this search run on GPUs, of which a step reserves a whole one. On
                a CPU it waits until nothing else is left.
        """
        if step is None:
            return Verdict(outcome=outcome)
        say = f"trial {number} ran out of memory: once more, {step.taken[-1]}"
        return Verdict(alone=not on_gpu, at_once=on_gpu, say=say)

    def sick(self, place: Place, text: str) -> Verdict:
        """Judge a process in which one trial after another ended with the same error."""
        before = self._sick.get((place, text))
        self._sick[place, text] = self._worked
        said = f"one trial after another ended with {text!r} on {place}"
        if before is None:
            return Verdict(say=f"{said}: its process is not used any more")
        if self._worked > before and len({*self._nodes()} - self.closed) > 1:
            return self._close(place, said)
        self.expected.add(text)
        return Verdict(say=f"{said}, and again in another process: it is taken for the trials'")

    def _counted(self, number: int, place: Place | None, text: str, *, suspects: int) -> Verdict:
        """Count a loss; ``suspects`` is how many trials it takes to blame the place.

        The only place left is blamed for the losses of ``ANYWHERE`` different trials alone: a few
        that break every process come to their outcomes by ``MAX_TRIES``.
        """
        row = [] if place is None else self._rows.setdefault(place, [])
        for counted in (self._row, row):
            counted.append(number)
        others = len({*self._nodes()} - self.closed) > 1
        if place is not None and others and len(row) >= IN_A_ROW and len(set(row)) >= suspects:
            return self._close(place, f"trial {number} {text}")
        began = suspects > 1
        most = ANYWHERE if began or others else IN_A_ROW
        if len(set(self._row) if began else self._row) >= most:
            return Verdict(stop=f"{len(self._row)} times in a row a trial {text}")
        return Verdict(say=f"trial {number} {text}: once more")

    def _close(self, place: Place, said: str) -> Verdict:
        self.closed.add(place.node)
        self._rows.pop(place, None)
        self._row.clear()
        return Verdict(say=f"{said}: {place} is not used any more")
