"""What is tried with a trial whose memory ran out, step by step. No Ray here.

1. **alone**: with a whole GPU, or on a CPU with a whole node, to itself.
2. **micro-batch n**: the same batches in parts of which gradients are summed, so that the
   effective batch stays what the recipe says: half, a quarter, ... down to :data:`FLOOR` images.
3. **larger card**: a node whose cards all have more memory than any that it has been on, if the
   cluster has one, with the last micro-batch.

Then its status is ``oom``. Each step is in the row. The ladder is the driver's own knowledge: after
a resume a trial that was lost on the way begins it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nas.trial.trial import Trial

FLOOR = 16  # images, below which batch statistics mean little
SHARED, ALONE, LARGER = "shared", "alone", "larger card"


@dataclass(frozen=True)
class Step:
    """How a trial is tried.

    Attributes:
        taken: the steps up to this one, as they are told.
        alone: with a whole GPU or node.
        micro_batch: images at a time in training; None: the whole batch.
        only: ids of the nodes that it may run on; empty: any.
    """

    taken: tuple[str, ...] = (SHARED,)
    alone: bool = False
    micro_batch: int | None = None
    only: tuple[str, ...] = ()


class Ladder:
    """Remembers how far each trial has come."""

    def __init__(self) -> None:
        self._at: dict[int, Step] = {}

    def at(self, number: int) -> Step | None:
        """Return the step that a trial is at; None: its memory never ran out."""
        return self._at.get(number)

    def climb(
        self, number: int, trial: Trial, *, alone: bool, cards: Mapping[str, tuple[int, ...]]
    ) -> Step | None:
        """Return how to try a trial next whose memory ran out; None: its status is ``oom``.

        Args:
            number: of the trial.
            trial: whose batch counts.
            alone: it had a GPU, or a node of a CPU, to itself.
            cards: bytes of each GPU by the node's id; empty where they are not known.
        """
        at = self._at.get(number) or Step((ALONE if alone else SHARED,), alone)
        step = _after(at, trial.recipe.batch_size, cards)
        if step is not None:
            self._at[number] = step
        return step

    def steps(self, number: int) -> list[str]:
        """Return how a trial was tried, for its row; empty where its memory never ran out."""
        return list(self._at[number].taken) if number in self._at else []

    def forget(self, number: int) -> None:
        """Forget a trial that has its outcome."""
        self._at.pop(number, None)


def _after(at: Step, batch: int, cards: Mapping[str, tuple[int, ...]]) -> Step | None:
    if not at.alone:
        return replace(at, alone=True, taken=(*at.taken, ALONE))
    half = (at.micro_batch or batch) // 2
    if half >= FLOOR:
        return replace(at, micro_batch=half, taken=(*at.taken, f"micro-batch {half}"))
    nodes = () if at.only else larger(cards)
    return replace(at, only=nodes, taken=(*at.taken, LARGER)) if nodes else None


def larger(cards: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Return the nodes of which every card is the cluster's largest, if some node has smaller."""
    sizes = {node: min(bytes_of) for node, bytes_of in cards.items() if bytes_of}
    most = max(sizes.values(), default=0)
    found = tuple(sorted(node for node, size in sizes.items() if size == most))
    return found if len(found) < len(sizes) else ()
