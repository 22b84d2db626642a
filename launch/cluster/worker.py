"""A worker of the cluster: one trial after another, an epoch a step.

A worker imports this module and what it needs, which is little: no configuration, no ledger.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import launch.cluster.environment  # isort: skip  # noqa: F401  sets what ray reads when imported
import ray
from ray import tune

from launch.cluster.devices import check_device
from launch.cluster.place import DeviceLost, Place, WorkerSick
from nas.data.arrays import Images
from nas.errors import DeviceFault, InputError
from nas.search.hanging import grace_seconds
from nas.trial.checkpoint import Checkpoints
from nas.trial.evaluation import Evaluation
from nas.trial.files import HANGING, save_trial, trial_directory
from nas.trial.runner import TrialRunner
from nas.trial.state import Epoch, better_scores
from nas.trial.trial import Trial

if TYPE_CHECKING:
    from nas.search.sampling import Proposal

OUTCOME = "psinas_outcome"  # the key of Tune's result that holds a finished trial
PLACE = "psinas_place"  # the key of where it runs
OF = "psinas_of"  # the key of its last epoch's number, over all repeats
AGAIN = "psinas_again"  # the key of whether an earlier process trained this epoch
SPENT = "psinas_spent"  # the key of the seconds that earlier processes spent
SAYS = "psinas_says"  # the key of lines that a user should hear
SICK = 3  # equal errors in a row after which a worker's process is not used any more
Sources = dict[tuple[str, str | None, int | None], Images]


class TrialActor(tune.Trainable):
    """A worker: one step is one epoch, the last step scores.

    A step raises where this process is of no more use: :class:`DeviceLost`, :class:`WorkerSick`,
    or what kept it from saving. Tune then takes another process for the next trial.
    """

    _steps: Generator[Epoch, None, Evaluation] | None = None
    _trial: Trial
    _number: int
    _last_error = ""
    _errors = 0  # equal ones in a row
    _expected: frozenset[str] = frozenset()
    _checkpoints = Checkpoints()

    def setup(
        self,
        config: dict[str, Any],
        *,
        template: Trial,
        images: Sources,
        run: str,
        device: str,
        threads: int,
        time_limit_seconds: float | None,
        checkpoint_seconds: float | None = None,
        reserve_bytes: int = 0,
        processes: int = 1,
    ) -> None:
        """Remember what every trial shares and begin the first."""
        if not (Path(run) / "config.yaml").exists():
            raise InputError(f"{run} is not visible on this node: --out must be shared storage")
        for polite in (signal.SIGTERM, signal.SIGINT):
            # Ray's raise in the trial's code, which would be booked as its error.
            signal.signal(polite, signal.SIG_DFL)
        self._run = Path(run)
        self._limit = time_limit_seconds
        self._every, self._reserve = checkpoint_seconds, reserve_bytes
        self._place = Place.here()
        device = "cuda" if ray.get_gpu_ids() and device != "cpu" else "cpu"
        try:
            check_device(device)
        except InputError as error:
            raise InputError(f"{self._place.host}: {error}") from None
        self._runner = TrialRunner(
            template,
            images,
            device=device,
            threads=threads,
            time_limit_seconds=time_limit_seconds,
            processes=processes,
        )
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial on the same worker."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run one epoch; the last one goes on to the scores, so that no scheduler cuts them off.

        Of one that ends early the number is told as the last one's, and the next step scores.
        """
        assert self._steps is not None
        try:
            with self._watched():
                while True:
                    epoch = next(self._steps)
                    epochs = self._trial.recipe.epochs
                    if epoch.epoch < (of := epochs * self._trial.repeats):
                        scores: dict[str, Any] = better_scores(asdict(epoch))
                        if epoch.stopped_early and epoch.epoch > of - epochs:
                            of = epoch.epoch  # of the last repeat: scores come next
                        here = {PLACE: self._place.to_list(), OF: of, **self._kept()}
                        return {"epoch": epoch.epoch, "epochs": epochs, **scores, **here}
        except StopIteration as end:
            evaluation: Evaluation = end.value
            save_trial(self._run, self._number, self._trial, evaluation)
            outcome = json.dumps(evaluation.to_dict())
            self._note(evaluation, outcome)
            return {OUTCOME: outcome, PLACE: self._place.to_list(), "done": True}
        except DeviceFault as fault:
            raise DeviceLost(self._place, str(fault)) from None

    def cleanup(self) -> None:
        """End a trial that was stopped early, and give back what it held."""
        if self._steps is not None:
            self._steps.close()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self.cleanup()
        self._number, self._began = int(config["number"]), time.monotonic()
        self._expected = frozenset(config.get("expected_errors", ()))
        self._trial = self._runner.trial(config["architecture"], config["overrides"])
        self._checkpoints = Checkpoints(
            trial_directory(self._run, self._number),
            self._every,
            most_bytes=config.get("checkpoint_bytes"),
            reserve_bytes=self._reserve,
        )
        self._steps = self._runner.run(
            self._trial, micro_batch=config.get("micro_batch"), checkpoints=self._checkpoints
        )

    def _kept(self) -> dict[str, Any]:
        """Return what the driver should know of what the trial goes on from."""
        found = self._checkpoints
        lines, found.lines = found.lines, []
        return {AGAIN: found.repeating, SPENT: found.spent, SAYS: lines}

    def _note(self, evaluation: Evaluation, outcome: str) -> None:
        """Count equal errors in a row, after which it may be this process and not the trials.

        Errors that other processes gave too are expected: they are of the architectures.

        Raises:
            WorkerSick: with the last trial's outcome.
        """
        if evaluation.status != "error":
            self._errors = 0
        else:
            same = evaluation.reason == self._last_error
            self._errors = self._errors + 1 if same else 1
            self._last_error = evaluation.reason
            if self._errors >= SICK and evaluation.reason not in self._expected:
                raise WorkerSick(self._place, evaluation.reason, outcome)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process some time after the limit, with a trace of where it hung.

        The trial looks at its limit in every step and batch (``metrics.deadline``); this is for one
        that never comes back to that, and runs without Python: a thread of C that needs no lock of
        the interpreter.
        """
        if self._limit is None:
            yield
            return
        directory = trial_directory(self._run, self._number)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / HANGING
        spent = time.monotonic() - self._began + self._checkpoints.spent
        seconds = self._limit + grace_seconds(self._limit) - spent
        with path.open("w", encoding="utf-8") as file:
            faulthandler.dump_traceback_later(max(seconds, 0.1), exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
        path.unlink(missing_ok=True)


def to_worker(proposal: Proposal) -> dict[str, Any]:
    """Return the plain dict that a worker makes the trial from."""
    return {
        "number": proposal.number,
        "architecture": proposal.trial.architecture.to_dict(),
        "overrides": dict(proposal.overrides),
        "alone": proposal.alone,
    }
