"""Which share of a GPU a trial gets, and whether another trial fits. No Ray here.

A share is large enough for the memory that the trial is expected to hold, and no smaller than what
so many trials a GPU get as pay (:mod:`launch.cluster.climb`). Shares are few unit fractions: Tune
hands a worker on only to a trial that asks for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from launch.cluster.climb import COUNTS
from launch.cluster.peaks import Peaks
from nas.trial.trial import Trial

USUAL = 4  # trials a GPU, where nothing is known of its memory
BESIDE = 1e-9  # of a GPU, that sums of shares may be off


class Node(Protocol):
    """A node of the cluster, as far as trials take room on it."""

    @property
    def id(self) -> str: ...
    @property
    def cpus(self) -> int: ...
    @property
    def gpus(self) -> float: ...


@dataclass(frozen=True)
class Request:
    """What a trial takes: cores, a share of a GPU, and on which nodes; empty: on any."""

    gpu: float
    only: tuple[str, ...] = ()
    cpu: int = 1


def share_of(count: int) -> float:
    """Return the share of a GPU of which ``count`` fit on one."""
    return 1 / count


class Room:
    """What is free on the nodes, and where Ray puts what is asked for.

    Ray takes the node with the most left, and on it the GPU on which the least stays free.

    Args:
        nodes: that take trials.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.free = {node.id: [1.0] * int(node.gpus) for node in nodes}
        self._left = {node: float(len(gpus)) for node, gpus in self.free.items()}
        self._cpus = {node.id: node.cpus for node in nodes}

    def take(self, request: Request) -> tuple[str, int] | None:
        """Return the node and the GPU that a request gets; None: it does not fit now."""
        for node in sorted(self.free, key=self._left.__getitem__, reverse=True):
            if (request.only and node not in request.only) or self._cpus[node] < request.cpu:
                continue
            fits = [free for free in self.free[node] if free + BESIDE >= request.gpu]
            if fits:
                gpu = self.free[node].index(min(fits))
                self._move(node, gpu, request, -1)
                return node, gpu
        return None

    def give_back(self, request: Request, place: tuple[str, int]) -> None:
        """Free what :meth:`take` gave."""
        self._move(*place, request, 1)

    def _move(self, node: str, gpu: int, request: Request, sign: int) -> None:
        self.free[node][gpu] += sign * request.gpu
        self._left[node] += sign * request.gpu
        self._cpus[node] += sign * request.cpu


def room(
    nodes: Sequence[Node],
    running: Iterable[Request],
    following: Request,
    waiting: Iterable[Request] = (),
) -> bool:
    """Return whether one more trial fits beside those that run and those that wait already.

    Where Ray has put what runs is not known: it is laid out anew, the largest first. So this may
    say yes where GPUs are in pieces; the trial then waits for one to become free.
    """
    return _laid_out(nodes, running, waiting)[0].take(following) is not None


def without_room(
    nodes: Sequence[Node], running: Iterable[Request], waiting: Iterable[Request]
) -> int:
    """Return how many of the waiting trials have to wait for another to end."""
    return _laid_out(nodes, running, waiting)[1]


def _laid_out(
    nodes: Sequence[Node], running: Iterable[Request], waiting: Iterable[Request]
) -> tuple[Room, int]:
    free = Room(nodes)
    for request in sorted(running, key=lambda request: -request.gpu):
        free.take(request)
    return free, sum(free.take(request) is None for request in waiting)


class Packing:
    """Gives every trial its share.

    Args:
        peaks: what a trial is expected to hold.
        cards: returns the bytes of each GPU of every node, by the node's id; an empty tuple where
            they are not known.
        say: is told a line for the user.
        cpu: cores of a trial.
    """

    def __init__(
        self,
        peaks: Peaks,
        cards: Callable[[], Mapping[str, tuple[int, ...]]],
        say: Callable[[str], None],
        *,
        cpu: int = 1,
    ) -> None:
        self._peaks, self._cards, self._say, self._cpu = peaks, cards, say, cpu
        self._said: set[str] = set()

    def request(self, trial: Trial, most: int) -> Request:
        """Return what a trial asks for.

        It may run on any node whose smallest card has room for it, and its share counts on the
        smallest of those, since Ray knows no cards. One that is too large for all gets the largest
        for itself.

        Args:
            trial: that is next.
            most: trials a GPU that pay.
        """
        cards = self._cards()
        sizes = {node: min(bytes_of) for node, bytes_of in cards.items() if bytes_of}
        self._tell_unknown(set(cards) - set(sizes))
        need = self._peaks.of(trial)
        if not sizes or need is None:
            return Request(share_of(min(USUAL, most)), cpu=self._cpu)
        if len(sizes) < len(cards):
            most = min(USUAL, most)
        enough = {node: size for node, size in sizes.items() if size >= need}
        if not enough:
            largest = max(sizes.values())
            only = tuple(sorted(node for node, size in sizes.items() if size == largest))
            return self._within(1, only, sizes)
        room = min(enough.values())
        count = max(c for c in COUNTS if c == 1 or (c <= most and c * need <= room))
        return self._within(count, tuple(sorted(enough)), sizes)

    def measured(self, trial: Trial, peak_bytes: int) -> None:
        """Learn from what a trial held at most, of torch's own counting."""
        self._peaks.measured(trial, peak_bytes)

    def _within(self, count: int, nodes: tuple[str, ...], known: Mapping[str, int]) -> Request:
        only = () if len(nodes) == len(known) else nodes
        return Request(share_of(count), only, self._cpu)

    def _tell_unknown(self, nodes: set[str]) -> None:
        if new := nodes - self._said:
            self._said |= new
            named = ", ".join(sorted(new))
            self._say(
                f"trials_per_gpu: the memory of the GPUs of {named} is not known: at most {USUAL} "
                "trials a GPU"
            )
