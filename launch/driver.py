"""The Ray Tune side of a search: Tune executes, the ledger remembers.

:class:`StudySearcher` hands Tune what ``nas.search.Search`` proposes and hands back what came of
it. :class:`TrialActor` runs one trial an epoch a step, on a worker that is used again for the next.
Nothing of Tune's own state is kept: a resumed search is a fresh Tuner over the same ledger.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import socket
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # these are read when ray is imported
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "60")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import ASHAScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from launch.config import Config, Resources  # noqa: E402
from launch.display import Display  # noqa: E402
from nas.data import DataConfig, Images, load_images, prepare  # noqa: E402
from nas.errors import InputError  # noqa: E402
from nas.evaluation import Evaluation, Trial, TrialRunner  # noqa: E402
from nas.rundir import drop_weights, save_trial  # noqa: E402
from nas.search import Proposal, Search, failure, worth_keeping  # noqa: E402
from nas.training import Epoch  # noqa: E402

OUTCOME = "psinas_outcome"  # the key of Tune's result that holds a finished trial
SOURCES = dict[tuple[str, str | None, int | None], Images]


@dataclass(frozen=True)
class Slots:
    """How trials fit on the cluster: how many at a time, and what each takes."""

    count: int
    cpu: int
    gpu: float


def run_search(
    search: Search, config: Config, run: Path, display: Display, *, address: str | None = None
) -> bool:
    """Run what is left of a search; return False when it was interrupted.

    Args:
        search: over the run's ledger, which the caller has locked.
        config: the resolved configuration.
        run: the run directory, on storage that all nodes share.
        display: told of everything that happens.
        address: of a Ray cluster, ``auto`` or ``ray://...``; None starts Ray here and ends it.

    Raises:
        InputError: no such cluster, or one that cannot meet ``resources``.
    """
    images = {}
    for data in _data_configs(config, search):
        if data.source not in images:
            images[data.source] = load_images(data)
        prepare(images[data.source], data)  # refused here rather than in every trial
    with _ray(address):
        slots = fit(config.resources, ray.cluster_resources())
        display.begin(search, slots.count)
        searcher = StudySearcher(search, config, run, display)
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
                scheduler=_scheduler(config),
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
                callbacks=[NoteDeaths(searcher)],
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            return False
        finally:
            shutil.rmtree(run / ".tune", ignore_errors=True)
    if searcher.failure is not None:
        raise searcher.failure
    return not search.running  # after Ctrl-C Tune returns, and trials are left running


class StudySearcher(Searcher):  # type: ignore[misc]
    """Tune's view of a :class:`Search`: suggest and complete; save and restore do nothing."""

    def __init__(self, search: Search, config: Config, run: Path, display: Display) -> None:
        super().__init__()
        self._search: Search | None = search
        self._config, self._run, self._display = config, run, display
        self._numbers: dict[str, int] = {}
        self.deaths: dict[str, str] = {}
        self.failure: Exception | None = None
        self._kept: list[Mapping[str, Any]] = []
        self._keep(search.results())

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for its own restore, which we never use: the ledger is the truth
        return {**self.__dict__, "_search": None, "_display": None}

    def set_search_properties(self, *arguments: Any, **more: Any) -> bool:
        """Say that this searcher owns its objectives."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return what travels to a worker, or ``Searcher.FINISHED``."""
        assert self._search is not None
        try:
            proposal = None if self.failure else self._search.propose()
        except Exception as error:  # noqa: BLE001  Tune would swallow it: raised after the run
            self.failure = error
            proposal = None
        if proposal is None:
            finished: str = Searcher.FINISHED
            return finished
        self._numbers[trial_id] = proposal.number
        self._display.started(proposal, self._search)
        return to_worker(proposal)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write what became of a trial."""
        assert self._search is not None
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        if error:
            first = self.deaths.get(trial_id, "unknown")
            outcome = failure("error", f"the worker failed twice, first with {first}")
        elif not result or not result.get("done"):
            return  # interrupted: it stays RUNNING in the ledger, for a resume to take over
        elif OUTCOME in result:
            outcome = json.loads(result[OUTCOME])
        else:
            outcome = self._stopped(number, result)
        written = self._search.finish(number, outcome)
        self._display.finished(number, written, self._search)
        self._keep([*self._kept, {"number": number, **written}])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the truth."""

    def _keep(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Delete the weights of those results that are not worth keeping."""
        config = self._config
        self._kept = worth_keeping(results, config.objectives, config.keep.top)
        kept = {r["number"] for r in self._kept}
        drop_weights(self._run, {r["number"] for r in results} - kept)

    def _stopped(self, number: int, result: Mapping[str, Any]) -> dict[str, Any]:
        assert self._search is not None
        scheduler = self._config.scheduler
        if scheduler is None:
            return failure("error", "the trial ended without an outcome")
        epoch, value = int(result["epoch"]), float(result[scheduler.metric])
        self._search.report(number, epoch, value)
        reason = f"{scheduler.name} after epoch {epoch} at {scheduler.metric} {value:.4f}"
        return {**failure("stopped", reason), "epochs": epoch, "seconds": result["time_total_s"]}


class NoteDeaths(tune.Callback):  # type: ignore[misc]
    """Keeps what a worker died of: Tune tells a searcher only that it did."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note the first death; Tune then runs the trial once more."""
        error = trial.get_pickled_error()
        cause = getattr(error, "cause", None) or error
        line = next((ln.strip() for ln in reversed(str(cause).splitlines()) if ln.strip()), "")
        self._searcher.deaths[trial.trial_id] = f"{type(cause).__name__}: {line}"


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """A worker: one step is one epoch, the last step scores."""

    _steps: Generator[Epoch, None, Evaluation] | None = None
    _trial: Trial
    _number: int
    _last: dict[str, Any]

    def setup(
        self,
        config: dict[str, Any],
        *,
        template: Trial,
        images: SOURCES,
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
            device="cuda" if ray.get_gpu_ids() else "cpu",
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
                self._last = {
                    "epoch": epoch.epoch,
                    "robust_accuracy": epoch.robust_accuracy,
                    "clean_accuracy": epoch.clean_accuracy,
                }
                if epoch.epoch < self._trial.recipe.epochs:
                    return self._last
        except StopIteration as end:
            evaluation: Evaluation = end.value
            save_trial(self._run, self._number, self._trial, evaluation)
            return {**self._last, OUTCOME: json.dumps(evaluation.to_dict()), "done": True}

    def cleanup(self) -> None:
        """End a trial that was stopped early, and give back what it held."""
        if self._steps is not None:
            self._steps.close()

    def _begin(self, config: dict[str, Any]) -> None:
        self.cleanup()
        self._number = int(config["number"])
        self._trial = self._runner.trial(config["architecture"], config["overrides"])
        self._steps = self._runner.run(self._trial)
        # A trial that fails before its first epoch still has what a scheduler looks at.
        self._last = {"epoch": 0, "robust_accuracy": 0.0, "clean_accuracy": 0.0}


def to_worker(proposal: Proposal) -> dict[str, Any]:
    """Return the plain dict that a worker makes the trial from."""
    return {
        "number": proposal.number,
        "architecture": proposal.trial.architecture.to_dict(),
        "overrides": dict(proposal.overrides),
    }


def fit(resources: Resources, cluster: Mapping[str, float]) -> Slots:
    """Return how many trials fit, refusing what would wait for ever.

    Raises:
        InputError: a trial wants more than any cluster of this size has.
    """
    cpus, gpus = int(cluster.get("CPU", 0)), cluster.get("GPU", 0.0)
    if resources.gpu == "auto":
        gpu = 1 / resources.trials_per_gpu if gpus else 0.0
    else:
        gpu = float(resources.gpu)
    if gpu > gpus:
        raise InputError(
            f"resources.gpu: expected at most the {gpus:g} GPUs that Ray sees here, got {gpu:g}"
        )
    if resources.cpu > cpus:
        raise InputError(
            f"resources.cpu: expected at most the {cpus} cores that Ray sees here, "
            f"got {resources.cpu}"
        )
    count = cpus // resources.cpu
    if gpu:
        count = min(count, math.floor(gpus / gpu + 1e-9))
    if resources.workers is not None:
        count = min(count, resources.workers)
    return Slots(max(count, 1), resources.cpu, gpu)


def _data_configs(config: Config, search: Search) -> list[DataConfig]:
    template = search.plan.template
    varied = [
        template.varied(name, value).data
        for name, values in search.plan.vary.items()
        if name.startswith("data.")
        for value in values
    ]
    return [config.data, *varied]


def _scheduler(config: Config) -> TrialScheduler | None:
    if config.scheduler is None:
        return None
    return ASHAScheduler(
        time_attr="epoch",
        metric=config.scheduler.metric,
        mode="max",
        max_t=max([config.recipe.epochs, *config.vary.get("recipe.epochs", [])]),
        grace_period=config.scheduler.grace_period,
        reduction_factor=config.scheduler.reduction_factor,
    )


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray here and stop only what was started."""
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # Workers find modules beside the configuration, as this process does.
        path = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(p for p in path if p)
        settings["include_dashboard"] = False
    if address is not None:
        _check_reachable(address)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ray's notice on GPU variables
        try:
            ray.init(address=address or "local", **settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise InputError(
                f"--address: expected a running Ray cluster, got {address!r}: {line}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address at which nothing listens: ray would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise InputError(f"--address: expected auto, HOST:PORT or ray://HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"--address: expected a running Ray cluster, got {address!r}: {error}"
        ) from error
