"""A worker of the cluster: one trial after another, an epoch a step.

A worker imports this module and what it needs, which is little: no configuration, no ledger.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  sets what ray reads when imported
import ray
from ray import tune

from nas.data.arrays import Images
from nas.errors import InputError
from nas.trial.evaluation import Evaluation
from nas.trial.files import save_trial
from nas.trial.runner import TrialRunner
from nas.trial.training import EPOCH_SCORES, Epoch
from nas.trial.trial import Trial

OUTCOME = "psinas_outcome"  # the key of Tune's result that holds a finished trial
Sources = dict[tuple[str, str | None, int | None], Images]


class TrialActor(tune.Trainable):
    """A worker: one step is one epoch, the last step scores."""

    _steps: Generator[Epoch, None, Evaluation] | None = None
    _trial: Trial
    _number: int

    def setup(
        self,
        config: dict[str, Any],
        *,
        template: Trial,
        images: Sources,
        run: str,
        threads: int,
        time_limit_seconds: float | None,
    ) -> None:
        """Remember what every trial shares and begin the first."""
        if not (Path(run) / "config.yaml").exists():
            raise InputError(f"{run} is not visible on this node: --out must be shared storage")
        self._run = Path(run)
        self._runner = TrialRunner(
            template,
            images,
            device="cuda" if ray.get_gpu_ids() else "cpu",  # a GPU that torch cannot use fails
            threads=threads,
            time_limit_seconds=time_limit_seconds,
        )
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial on the same worker."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run one epoch; the last one goes on to the scores, so that no scheduler cuts them off."""
        assert self._steps is not None
        try:
            while True:
                epoch = next(self._steps)
                if epoch.epoch < (epochs := self._trial.recipe.epochs):
                    scores: dict[str, Any] = {name: getattr(epoch, name) for name in EPOCH_SCORES}
                    return {"epoch": epoch.epoch, "epochs": epochs, **scores}
        except StopIteration as end:
            evaluation: Evaluation = end.value
            save_trial(self._run, self._number, self._trial, evaluation)
            return {OUTCOME: json.dumps(evaluation.to_dict()), "done": True}

    def cleanup(self) -> None:
        """End a trial that was stopped early, and give back what it held."""
        if self._steps is not None:
            self._steps.close()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self.cleanup()
        self._number = int(config["number"])
        self._trial = self._runner.trial(config["architecture"], config["overrides"])
        self._steps = self._runner.run(self._trial)
