"""The memory that a trial is expected to hold: an estimate, corrected by what trials held before.

The estimate is of the architecture and the recipe. What it leaves out alike for all of them (the
workspaces of convolutions, memory in pieces) shows in the ratio of measured to estimated bytes, of
which a high quantile of the latest counts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from nas.trial.trial import Trial

CONTEXT = 500 * 2**20  # bytes of a process on a GPU that torch does not count
LATEST = 64  # trials whose ratios are looked at
FEWEST = 8  # ratios before which the estimate stands as it is
QUANTILE = 0.9
LEAST, MOST = 0.5, 4.0  # what a correction may come to: beyond, the two count different things


class Peaks:
    """What trials are expected to hold of a card, in bytes.

    Args:
        estimate: returns the peak of a trial in bytes, of torch's own counting, or None as long as
            it is not known; None: nothing is known of any.
        margin: share of the corrected estimate that is added.
    """

    def __init__(self, estimate: Callable[[Trial], int | None] | None, margin: float) -> None:
        self._estimate, self._margin = estimate, margin
        self._known: dict[tuple[str, str, str], int | None] = {}
        self._ratios: deque[float] = deque(maxlen=LATEST)

    def of(self, trial: Trial) -> int | None:
        """Return the bytes to keep free for a trial, margin and context included.

        None where its architecture cannot be estimated: what is wrong with it, its row will say.
        """
        estimated = self._estimated(trial)
        if estimated is None:
            return None
        return math.ceil(estimated * self.correction() * (1 + self._margin)) + CONTEXT

    def measured(self, trial: Trial, peak_bytes: int) -> None:
        """Learn from a trial that ran with its whole batch, and held so much at most."""
        estimated = self._estimated(trial)
        if estimated and peak_bytes > 0:
            self._ratios.append(peak_bytes / estimated)

    def correction(self) -> float:
        """Return what estimates are multiplied by."""
        if len(self._ratios) < FEWEST:
            return 1.0
        ranked = sorted(self._ratios)
        return min(MOST, max(LEAST, ranked[math.ceil(QUANTILE * len(ranked)) - 1]))

    def _estimated(self, trial: Trial) -> int | None:
        if self._estimate is None:
            return None
        key = trial.architecture.hash, trial.recipe.hash, trial.data.hash
        if key not in self._known:
            try:
                found = self._estimate(trial)
                if found is None:
                    return None
                self._known[key] = found
            except Exception:  # noqa: BLE001  anybody's architecture: the trial will fail by itself
                self._known[key] = None
        return self._known[key]
