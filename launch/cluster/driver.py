"""Runs a search on Ray Tune: Tune executes, the ledger remembers.

:class:`TrialActor` runs one trial, an epoch a step, on a worker that is used again for the next.
Nothing of Tune's own state is kept: a resumed search is a fresh Tuner over the same ledger.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import launch.cluster.session  # isort: skip  # sets what ray reads when it is imported
import ray
from ray import tune

from launch.cluster.scheduler import RungScheduler, open_rungs
from launch.cluster.searcher import OUTCOME, NoteFailures, StudySearcher
from launch.cluster.session import fit, ray_session
from launch.config.config import Config
from launch.config.sections import EPOCH_SCORES
from launch.show.progress import Progress
from nas.data.arrays import Images, prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images
from nas.device import choose_device
from nas.errors import InputError
from nas.search.search import Search
from nas.trial.evaluation import Evaluation
from nas.trial.files import save_trial
from nas.trial.runner import TrialRunner
from nas.trial.training import Epoch
from nas.trial.trial import Trial

Sources = dict[tuple[str, str | None, int | None], Images]


def run_search(
    search: Search, config: Config, run: Path, progress: Progress, *, address: str | None = None
) -> bool:
    """Run what is left of a search; return False when it was interrupted.

    Args:
        search: over the run's ledger, which the caller has locked.
        config: the resolved configuration.
        run: the run directory, on storage that all nodes share.
        progress: told of everything that happens.
        address: of a Ray cluster, ``auto`` or ``HOST:PORT``; None starts Ray here and ends it.

    Raises:
        InputError: no such data or cluster, or one that cannot meet ``resources``.
        WorkerFailure: workers cannot run trials at all; what ran is left to a resume.
    """
    images = read_sources(config, search)
    with ray_session(address):
        slots = fit(config.resources, launch.cluster.session.nodes())
        progress.begin(search, slots.count)
        rungs = open_rungs(config, search)
        searcher = StudySearcher(search, config, run, progress, rungs)
        actor = tune.with_parameters(
            TrialActor,
            template=search.plan.template,
            images=images,
            run=str(run.resolve()),
            threads=slots.cpu,
            time_limit_seconds=config.resources.time_limit_seconds,
        )
        tuner = tune.Tuner(
            tune.with_resources(actor, {"cpu": slots.cpu, "gpu": slots.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=None if rungs is None else RungScheduler(rungs),
                num_samples=-1,
                max_concurrent_trials=slots.count,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(run.resolve() / ".tune"),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[NoteFailures(searcher)],
            ),
        )
        interrupted = False
        try:
            tuner.fit()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            shutil.rmtree(run / ".tune", ignore_errors=True)
    if searcher.failure is not None:
        raise searcher.failure
    interrupted |= bool(search.running)  # at the first Ctrl-C Tune returns and leaves them
    search.release()
    return not interrupted


def read_sources(config: Config, search: Search) -> Sources:
    """Return the images of every dataset that the search may use, each read once.

    Raises:
        InputError: files that are not there, or a selection that cannot be made of them.
    """
    template = search.plan.template
    varied = [
        template.varied(name, value).data
        for name, values in search.plan.vary.items()
        if name.startswith("data.")
        for value in values
    ]
    images: Sources = {}
    configs: list[DataConfig] = [config.data, *varied]
    for data in configs:
        if data.source not in images:
            images[data.source] = load_images(data)
        prepare(images[data.source], data)  # refused here rather than in every trial
    return images


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
            device=choose_device(bool(ray.get_gpu_ids())),
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
