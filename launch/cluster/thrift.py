"""What a run keeps on disk while it is searched: whose weights, how much, and when to stop.

A worker saves the weights of every trial; here those that are not worth keeping are deleted, and
those of reused trials that are get copied. Where room is short the search ends in order: what runs
comes to its end, and a resume goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.config.config import Config
from launch.config.sections import Keep
from nas.disk import free_on, shown_size, use_of
from nas.errors import InputError
from nas.search.reuse import Earlier, fetch_weights
from nas.search.rungs import Rungs
from nas.search.sampling import Proposal
from nas.search.winners import least_worthy_first, worth_keeping
from nas.trial.checkpoint_file import drop_checkpoints
from nas.trial.files import LAST_WEIGHTS, WEIGHTS, drop_weights, trial_directory

LOOK_SECONDS = 5.0  # between two looks at what is free
TRIALS, BEST = "trials", "best"


def check_room(run: Path, keep: Keep) -> None:
    """Refuse to begin where less is free than the reserve.

    Raises:
        InputError: with what is free, and where.
    """
    if (free := free_on(run)) < keep.reserve_bytes:
        raise InputError(
            f"{run}: expected at least {shown_size(keep.reserve_bytes)} free on its file system "
            f"(keep.reserve_bytes), got {shown_size(free)}: make room, give another --out, or "
            "lower the reserve (--set keep.reserve_bytes=0 is none)"
        )


class Thrift:
    """Keeps a run directory small, and says when the search should end for want of room.

    Args:
        config: of the run.
        run: the run directory.
        say: is told why the search ends.
        results: what the ledger holds already.

    Attributes:
        halted: why no further trial should begin; None as long as there is room.

    Raises:
        InputError: what must stay takes more than ``keep.disk_bytes`` already.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        say: Callable[[str], None],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        self._config, self._run, self._say = config, run, say
        self._kept: list[Mapping[str, Any]] = []
        self._sizes: dict[int, int] = {}  # of the directory of each trial, in bytes
        self._gone: set[tuple[int, str]] = set()  # weights that room was needed for
        self._rest = 0  # what lies beside trials, ledger, table and export
        self._export = 0  # the winner's weights, which are copied
        self._looked = -LOOK_SECONDS
        self.halted: str | None = None
        self._keep(results)
        for result in results:  # of a worker that nobody waited for
            drop_checkpoints(trial_directory(run, result["number"]))
        if self._limit is not None:
            self._measure()
            if not self._bound():
                raise InputError(f"keep.disk_bytes: {self._above()}")

    def finished(self, result: Mapping[str, Any]) -> None:
        """Delete and copy weights after one more result of the ledger, with its number."""
        before = {r["number"] for r in self._kept}
        self._keep([*self._kept, result])
        drop_checkpoints(trial_directory(self._run, result["number"]))
        if self._limit is not None:
            dropped = before - {r["number"] for r in self._kept}
            for number in {result["number"], *dropped}:
                self._sizes[number] = use_of(trial_directory(self._run, number)).total
            if not self._bound():
                self._halt(self._above())

    def look(self) -> int:
        """Return the bytes that are free; halt where they are fewer than the reserve."""
        free = free_on(self._run)
        if free < self._config.keep.reserve_bytes:
            reserve = shown_size(self._config.keep.reserve_bytes)
            self._halt(
                f"{shown_size(free)} are free where {self._run} lies, less than the reserve of "
                f"{reserve} (keep.reserve_bytes): make room, then go on"
            )
        return free

    def look_now_and_then(self) -> bool:
        """Look, if it was some seconds ago; return whether what runs should not end first.

        That is so below half of the reserve: somebody else fills the disk meanwhile.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS or not self._config.keep.reserve_bytes:
            return False
        self._looked = time.monotonic()
        return self.look() < self._config.keep.reserve_bytes / 2

    def _keep(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Delete the weights of those results that are not worth keeping, copy what is missing."""
        self._kept = worth_keeping(results, self._config.objectives, self._config.keep.top)
        kept = {r["number"] for r in self._kept}
        drop_weights(self._run, {r["number"] for r in results} - kept)
        fetch_weights(
            self._run, [r for r in self._kept if (r["number"], WEIGHTS) not in self._gone]
        )

    # ------------------------------------------------------------------------- keep.disk_bytes

    @property
    def _limit(self) -> int | None:
        return self._config.keep.disk_bytes

    def room_each(self, trials: int) -> int | None:
        """Return the bytes that the checkpoints of each of so many trials may take; None: any."""
        if self._limit is None:
            return None
        return max(0, self._limit - self._total()) // max(1, trials)

    def _measure(self) -> None:
        places = list((self._run / TRIALS).glob("[0-9]*"))
        self._sizes = {int(p.name): use_of(p).total for p in places if p.name.isdigit()}
        tables = [path for path in self._run.glob("trials.*") if path.is_file()]
        counted = self._ledger() + sum(path.stat().st_size for path in tables)
        counted += sum(self._sizes.values()) + use_of(self._run / BEST).total
        self._rest = max(0, use_of(self._run).total - counted)

    def _ledger(self) -> int:
        """Return the size of the ledger, which is what grows beside the trials."""
        journal = self._run / "study.journal"
        return journal.stat().st_size if journal.exists() else 0

    def _total(self) -> int:
        """Return what the run takes once its table and its export are written anew.

        The table holds less than the ledger.
        """
        return sum(self._sizes.values()) + self._rest + 2 * self._ledger() + self._export

    def _bound(self) -> bool:
        """Delete weights until the run takes no more than it may; return whether it does.

        The last epoch's go first, then the best epoch's, those of the least worthy trials before
        others. The winner's best epoch stays.
        """
        assert self._limit is not None
        order = [r["number"] for r in least_worthy_first(self._kept, self._config.objectives)]
        if order:
            winner = trial_directory(self._run, order[-1]) / WEIGHTS
            self._export = winner.stat().st_size if winner.exists() else 0
        files = [(n, LAST_WEIGHTS) for n in order] + [(n, WEIGHTS) for n in order[:-1]]
        for number, name in files:
            if self._total() <= self._limit:
                return True
            if (number, name) in self._gone:
                continue
            directory = trial_directory(self._run, number)
            (directory / name).unlink(missing_ok=True)
            self._gone.add((number, name))
            self._sizes[number] = use_of(directory).total
        return self._total() <= self._limit

    def _above(self) -> str:
        assert self._limit is not None
        return (
            f"expected {self._run} to take at most {shown_size(self._limit)}, got "
            f"{shown_size(self._total())} with its table, its export and no weights but the "
            "winner's: raise keep.disk_bytes (--set keep.disk_bytes=...)"
        )

    def _halt(self, why: str) -> None:
        if self.halted is None:
            self.halted = why
            self._say(f"no further trial begins, and what runs comes to its end: {why}")


def take_over(
    run: Path, proposal: Proposal, earlier: Mapping[str, Earlier], rungs: Rungs | None
) -> dict[str, Any] | None:
    """Return the outcome of an equal trial of another run, its files copied; None: there is none.

    With a scheduler it also counts at every rung that it has reached, as if it had run here; where
    nobody knows what it had there, it is trained.

    Args:
        run: the run directory.
        proposal: of the search.
        earlier: trials of other runs, by their key.
        rungs: of the scheduler.
    """
    found = earlier.get(proposal.trial.key)
    if found is None:
        return None
    if rungs is not None:
        last = proposal.trial.recipe.epochs
        reached = found.rungs(epoch for epoch in rungs.epochs if epoch < last)
        if reached is None:
            return None
        rungs.refill([{"number": proposal.number, "rungs": reached}])
    found.copy_files(run, proposal.number)
    return found.outcome()
