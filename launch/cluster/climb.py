"""How many trials a GPU pay, learnt from how long their epochs take. No Ray here.

With k trials on a GPU each is slower than alone, and the GPU as a whole does k times what each of
them does. So many run on one as still raise that by :data:`GAIN`: the next larger number is tried,
and kept if it pays; where it does not, the next smaller one is tried in turn.

Architectures differ by far more than GPUs slow down. So a trial is compared with itself: the epochs
that it did among j trials with those among k, the first epoch aside; the median over such trials
counts. Neighbours come and go, above all while a new number is tried, so most trials see two. Where
trials are too short for that, whole trials are compared with whole trials of the other number, by
seconds an epoch and multiply-accumulate where the trial table has these.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import median

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)  # trials a GPU
FIRST, LEAST = 3, 2  # to try one alone costs half of a card where that is wrong, and saves little
GAIN = 0.05  # by which the work of a GPU has to rise
FEWEST = 12  # trials before a median is looked at
LATEST = 256  # trials that are looked at, whatever their median's standard error
STEADY = 0.05  # of a span, for which its number of trials may have been another
NEAR = 0.25  # of a trial, that the mean number over a whole one may be off

Gpu = tuple[str, int]
"""A node's id, and the GPU's number there."""


@dataclass
class _Span:
    """A trial on a GPU: when it began and ended, and its epochs' ends."""

    began: float
    gpu: Gpu | None = None
    ended: float = math.inf
    ends: list[float] = field(default_factory=list)
    work: float | None = None  # of an epoch; None: it came to no outcome that counts


class Climb:
    """Is told when trials begin, report an epoch and end; says how many a GPU pay.

    Nothing of it is kept over a resume: the climb begins again at :data:`FIRST`.

    Args:
        first: trials a GPU to begin with.
    """

    def __init__(self, first: int = FIRST) -> None:
        self.most = self._first = first
        self._trying: tuple[int, ...] | None = None
        self._since = 0  # trials that ended since the last turn
        self._running: dict[int, _Span] = {}
        self._there: dict[Gpu, list[_Span]] = {}  # that may overlap with what is not judged yet
        self._over: list[_Span] = []  # that are not judged yet
        self._pairs: dict[tuple[int, int], deque[float]] = {}
        self._whole: dict[int, deque[float]] = {}

    def began(self, number: int, now: float) -> None:
        """Note that a worker took a trial."""
        self._running[number] = _Span(now)

    def reported(self, number: int, gpu: Gpu, now: float) -> None:
        """Note the end of an epoch; the first one tells where the trial runs."""
        if (span := self._running.get(number)) is not None:
            self._place(span, gpu)
            span.ends.append(now)

    def ended(
        self, number: int, now: float, *, gpu: Gpu | None = None, work: float | None = None
    ) -> None:
        """Note that a trial has left its GPU.

        Args:
            number: of the trial.
            now: in seconds, of one clock.
            gpu: where it ran, if that is known.
            work: of all that it did, in any unit in which trials may be compared; None: it did not
                come to its end.
        """
        if (span := self._running.pop(number, None)) is None:
            return
        if gpu is not None:
            self._place(span, gpu)
        span.ended, span.work = now, work
        self._since += 1
        if span.gpu is not None:
            self._over.append(span)
        self._judge()

    # ------------------------------------------------------------------------------------ learning

    def _place(self, span: _Span, gpu: Gpu) -> None:
        if span.gpu is None:
            span.gpu = gpu
            self._there.setdefault(gpu, []).append(span)

    def _judge(self) -> None:
        """Learn from the trials that ended before any began of which nobody knows where."""
        known_until = min((s.began for s in self._running.values() if s.gpu is None), default=1e300)
        ready = [span for span in self._over if span.ended <= known_until]
        if not ready:
            return
        self._over = [span for span in self._over if span.ended > known_until]
        for span in ready:
            self._learn(span)
        oldest: dict[Gpu, float] = {}
        for span in [*self._over, *self._running.values()]:
            if span.gpu is not None:
                oldest[span.gpu] = min(span.began, oldest.get(span.gpu, math.inf))
        for gpu, there in self._there.items():
            since = min(oldest.get(gpu, math.inf), known_until)
            there[:] = [span for span in there if span.ended > since]
        self._move()

    def _learn(self, span: _Span) -> None:
        seconds: dict[int, list[float]] = {}
        for start, end in zip(span.ends, span.ends[1:], strict=False):  # without the first epoch
            beside = self._mean_number(span, start, end)
            if end > start and abs(beside - round(beside)) <= STEADY:
                seconds.setdefault(round(beside), []).append(end - start)
        logs = {number: math.log(median(values)) for number, values in seconds.items()}
        for low in logs:
            for high in logs:
                if low < high:
                    pairs = self._pairs.setdefault((low, high), deque(maxlen=LATEST))
                    pairs.append(logs[high] - logs[low])
        number = self._mean_number(span, span.began, span.ended)
        if span.work and span.ended > span.began and abs(number - round(number)) <= NEAR:
            whole = self._whole.setdefault(round(number), deque(maxlen=LATEST))
            whole.append(math.log((span.ended - span.began) / span.work))

    def _mean_number(self, span: _Span, start: float, end: float) -> float:
        """Return how many trials the GPU of one had on average, itself included."""
        assert span.gpu is not None
        held = sum(
            max(0.0, min(end, other.ended) - max(start, other.began))
            for other in self._there[span.gpu]
        )
        return held / max(end - start, 1e-9)

    # ------------------------------------------------------------------------------------- climbing

    def gain(self, low: int, high: int) -> float | None:
        """Return by what share a GPU does more with ``high`` trials than with ``low``.

        None until it is known on which side of :data:`GAIN` that is, by two standard errors, or
        there is as much to go by as is looked at.
        """
        slower, error, n = _middle(self._pairs.get((low, high), ()))
        if n < FEWEST:
            few, many = (_middle(self._whole.get(number, ())) for number in (low, high))
            slower, error, n = many[0] - few[0], math.hypot(few[1], many[1]), min(few[2], many[2])
        gain = high / low * math.exp(-slower) - 1
        if n >= LATEST or (n >= FEWEST and abs(gain - GAIN) > 2 * error * (1 + gain)):
            return gain
        return None

    def gains(self) -> Mapping[tuple[int, int], float]:
        """Return every gain that is known, by the two numbers of trials."""
        steps = zip(COUNTS, COUNTS[1:], strict=False)
        return {(low, high): g for low, high in steps if (g := self.gain(low, high)) is not None}

    def _move(self) -> None:
        """Go to the best number known, or in turns to it and a neighbour that is to be tried.

        A turn is as long as it takes for the trials that run to be others: at every change trials
        see both numbers.
        """
        gains = self.gains()
        at = COUNTS.index(self._best(gains))
        around = [COUNTS[i : i + 2] for i in (at, at - 1) if i < len(COUNTS) - 1]
        untried = (step for step in around if step[0] >= LEAST and step not in gains)
        unknown = next(untried, None)
        if unknown is None:
            self.most = COUNTS[at]
        elif unknown != self._trying:
            self.most, self._since = sum(unknown) - COUNTS[at], 0  # the neighbour first
        elif self._since >= max(FEWEST, len(self._running)):
            self.most, self._since = sum(unknown) - self.most, 0
        self._trying = unknown

    def _best(self, gains: Mapping[tuple[int, int], float]) -> int:
        """Return the number from the first up while that pays, or down while less is as good."""
        at = first = COUNTS.index(self._first)
        while at + 1 < len(COUNTS) and gains.get((COUNTS[at], COUNTS[at + 1]), 0.0) >= GAIN:
            at += 1
        if at == first:
            while COUNTS[at] > LEAST and gains.get((COUNTS[at - 1], COUNTS[at]), GAIN) < GAIN:
                at -= 1
        return COUNTS[at]


def _middle(logs: Collection[float]) -> tuple[float, float, int]:
    """Return the median, its standard error by the median deviation, and how many there are."""
    if not logs:
        return 0.0, math.inf, 0
    middle = median(logs)
    spread = 1.4826 * median(abs(value - middle) for value in logs)
    return middle, 1.2533 * spread / math.sqrt(len(logs)), len(logs)
