"""One trial, from architecture to scores, in a plain Python process.

A trial is a value (:class:`Trial`); :func:`evaluate` gives its :class:`Evaluation`. A failure is a
status with a reason, never an exception: a search goes on, and the trial table says what happened.
Every seed is hashed from the search seed, the architecture, the recipe and the purpose, so that a
trial has the same scores whoever proposed it, in whatever worker and order.
"""

from __future__ import annotations

import gc
import math
import platform
import time
import traceback
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from metrics.engine.precision import full_float32
from metrics.metric import Metric
from nas.data.arrays import Data, DataConfig, Images, Limit, prepare
from nas.data.datasets import load_images
from nas.errors import Diverged, InputError
from nas.seeds import derive_seed, settings_hash
from nas.trial.training import Epoch, Recipe, Training, Weights, drain, train
from search_spaces import Architecture, InvalidArchitecture, Task, space_of

SECONDS = "_seconds"  # ends the names of scores that are wall time, never the same twice
TRAINING_SCORES = (
    "best_epoch",
    "best_epoch_robust_accuracy",
    "last_epoch_robust_accuracy",
    "train_seconds",
    "score_seconds",
)


@dataclass(frozen=True)
class Trial:
    """Architecture + recipe + data + seed: all that scores depend on, the machine aside."""

    architecture: Architecture
    recipe: Recipe
    data: DataConfig
    metrics: tuple[Metric, ...]
    seed: int = 0
    repeat: int = 0

    @property
    def key(self) -> str:
        """Equal for two trials that must have the same scores."""
        return "-".join(
            (self.architecture.hash, self.recipe.hash, self.data.hash, str(self.repeat))
        )

    def varied(self, name: str, value: Any) -> Trial:
        """Return this trial with ``recipe.KEY``, ``data.KEY`` or ``repeat`` set to ``value``.

        ``recipe`` alone takes a mapping of several of its keys.

        Raises:
            ValueError: another name, or a value out of range.
        """
        part, _, key = name.partition(".")
        if name == "recipe":
            return replace(self, recipe=replace(self.recipe, **value))
        if part == "recipe" and key in {f.name for f in fields(Recipe)}:
            return replace(self, recipe=replace(self.recipe, **{key: value}))
        if part == "data" and key in {f.name for f in fields(DataConfig)}:
            if key == "limit":
                value = Limit(**value)
            if key == "classes" and value is not None:
                value = tuple(value)
            return replace(self, data=replace(self.data, **{key: value}))
        if name == "repeat":
            return replace(self, repeat=value)
        raise ValueError(f"expected recipe, recipe.KEY, data.KEY or repeat, got {name!r}")

    def seed_for(self, purpose: str) -> int:
        """Return the seed of one purpose; a trial's number and worker play no part."""
        return derive_seed(
            self.seed, self.architecture.hash, self.recipe.hash, self.repeat, purpose
        )


@dataclass(frozen=True)
class Evaluation:
    """What became of a trial.

    Attributes:
        status: ``complete``, ``diverged``, ``oom``, ``invalid``, ``timeout`` or ``error``; the
            ledger knows ``stopped`` (by a scheduler) and ``running`` besides.
        reason: why, where the status is not ``complete``.
        scores: flat name -> number.
        epochs: one report an epoch.
        seconds: wall time of the whole trial.
        environment: versions, device and threads that the numbers depend on.
        traceback: of an ``error``.
        task, weights, last_weights: what the model fits, its best epoch's weights and its last's
            (None where they are the same); they stay on this machine.
    """

    status: str
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    traceback: str = ""
    task: Task | None = None
    weights: Weights | None = None
    last_weights: Weights | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the ledger keeps, as plain JSON types."""
        return {
            "status": self.status,
            "reason": self.reason,
            "scores": self.scores,
            "epochs": len(self.epochs),
            "seconds": self.seconds,
            "environment": self.environment,
        }


def evaluate(
    trial: Trial,
    images: Images | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    time_limit_seconds: float | None = None,
) -> Evaluation:
    """Train and score one trial in this process.

    Args:
        trial: what to do.
        images: of ``trial.data``'s source; None reads them.
        device: ``cpu`` or ``cuda``.
        threads: of torch on the CPU; None leaves them. Sums, and so scores, can depend on it.
        time_limit_seconds: give up after the epoch in which this is passed.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    data = prepare(load_images(trial.data) if images is None else images, trial.data, device)
    return drain(evaluation(trial, data, time_limit_seconds=time_limit_seconds))


class TrialRunner:
    """Runs one trial after another in one process, the images staying on the device.

    Args:
        template: the trial of which every other is a copy, its architecture aside.
        images: by ``DataConfig.source``.
        device: ``cpu`` or ``cuda``.
        threads: of torch on the CPU.
        time_limit_seconds: of one trial.
    """

    def __init__(
        self,
        template: Trial,
        images: Mapping[tuple[str, str | None, int | None], Images],
        *,
        device: str,
        threads: int,
        time_limit_seconds: float | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._template, self._images, self._device = template, images, device
        self._limit = time_limit_seconds
        self._prepared: tuple[str, Data] | None = None

    def trial(self, architecture: Mapping[str, Any], overrides: Mapping[str, Any]) -> Trial:
        """Return the trial of an architecture's dict and what it varies beside."""
        trial = replace(self._template, architecture=Architecture.from_dict(architecture))
        for name, value in overrides.items():
            trial = trial.varied(name, value)
        return trial

    def run(self, trial: Trial) -> Generator[Epoch, None, Evaluation]:
        """Do what :func:`evaluation` does; a dataset that cannot be prepared fails the trial."""
        if self._prepared is None or self._prepared[0] != trial.data.hash:
            self._prepared = None  # the old dataset makes room for the new one
            try:
                images = self._images[trial.data.source]
                self._prepared = trial.data.hash, prepare(images, trial.data, self._device)
            except InputError as error:
                return Evaluation("invalid", str(error))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                return Evaluation("oom", f"the dataset does not fit: {_first_line(error)}")
        return (yield from evaluation(trial, self._prepared[1], time_limit_seconds=self._limit))


def evaluation(
    trial: Trial, data: Data, *, time_limit_seconds: float | None = None
) -> Generator[Epoch, None, Evaluation]:
    """Do what :func:`evaluate` does, handing over after every epoch.

    Torch's global generator is seeded for the trial and given back as found.
    """
    started = time.perf_counter()
    device = data.train.labels.device
    epochs: list[Epoch] = []
    environment = _environment(device)

    def failed(status: str, reason: str, trace: str = "") -> Evaluation:
        seconds = time.perf_counter() - started
        return Evaluation(status, reason, {}, tuple(epochs), seconds, environment, trace)

    saved = torch.get_rng_state()
    torch.manual_seed(trial.seed_for("torch"))
    try:
        space = space_of(trial.architecture)
        model = space.build(trial.architecture, data.task, seed=trial.seed_for("weights"))
        model = model.to(device)
        _check_output(model, data)
        generator = torch.Generator(device=device).manual_seed(trial.seed_for("training"))
        scores = _score(trial, model, data, "init")
        early_seconds = time.perf_counter() - started
        steps = train(model, data, trial.recipe, trial.recipe.attack(), generator)
        while True:
            try:
                epochs.append(next(steps))
            except StopIteration as end:
                training: Training = end.value
                break
            if len(epochs) == 1:
                scored = time.perf_counter()
                scores.update(_score(trial, model, data, "epoch1"))
                early_seconds += time.perf_counter() - scored
            yield epochs[-1]
            late = time_limit_seconds and time.perf_counter() - started > time_limit_seconds
            if late and len(epochs) < trial.recipe.epochs:
                return failed(
                    "timeout",
                    f"the limit of {time_limit_seconds:g} s was passed in epoch {len(epochs)} "
                    f"of {trial.recipe.epochs}",
                )
        trained = time.perf_counter()
        scores.update(_score(trial, model, data, "end"))
        best, last = training.best, training.last
        own = (
            best.epoch,
            best.robust_accuracy,
            last.robust_accuracy,
            trained - started - early_seconds,
            early_seconds + time.perf_counter() - trained,
        )
        named = zip(TRAINING_SCORES, map(float, own), strict=True)
        scores.update((name, v) for name, v in named if not math.isnan(v))  # no epochs, no judge
        weights = {name: w.cpu() for name, w in model.state_dict().items()}
        last_weights = {name: w.cpu() for name, w in training.last_weights.items()}
        return Evaluation(
            "complete",
            scores=scores,
            epochs=tuple(epochs),
            seconds=time.perf_counter() - started,
            environment=environment,
            task=data.task,
            weights=weights,
            last_weights=None if best == last else last_weights,
        )
    except Diverged as error:
        return failed("diverged", str(error))
    except InvalidArchitecture as error:
        return failed("invalid", str(error))
    except Exception as error:  # noqa: BLE001  a failure is a row of the table, not a crash
        status = "oom" if _out_of_memory(error) else "error"
        return failed(status, _first_line(error), traceback.format_exc())
    finally:
        torch.set_rng_state(saved)
        if device.type == "cuda":  # the next trial may need what this one held
            steps = model = None  # type: ignore[assignment]
            gc.collect()
            torch.cuda.empty_cache()


def score(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    metrics: tuple[Metric, ...],
    seeds: dict[str, int],
) -> dict[str, float]:
    """Return the scores of these metrics; each has its own generator, so order plays no part.

    Convolutions run in full float32: TF32 keeps ten bits, too few for Ψ at small radii.
    """
    scores: dict[str, float] = {}
    with full_float32():
        for metric in metrics:
            generator = torch.Generator(device=labels.device).manual_seed(seeds[metric_key(metric)])
            scores.update(metric(model, images, labels, generator=generator))
    return scores


def metric_key(metric: Metric) -> str:
    """Return what tells a metric and its settings from any other."""
    name, settings = metric.identity()
    return f"{name}-{settings_hash(settings)}"


def _score(trial: Trial, model: nn.Module, data: Data, stage: str) -> dict[str, float]:
    """Return the scores of the metrics of a stage; what early ones took is a score too."""
    scores: dict[str, float] = {}
    metrics = [m for m in trial.metrics if m.stage == stage]
    if not metrics:
        return scores
    x, y = data.validation.images(), data.validation.labels
    for metric in metrics:
        started = time.perf_counter()
        key = metric_key(metric)
        scores.update(score(model, x, y, (metric,), {key: trial.seed_for(key)}))
        if stage != "end":
            scores[f"{metric.prefix}{SECONDS}"] = time.perf_counter() - started
    return scores


def _check_output(model: nn.Module, data: Data) -> None:
    """Run two images: a wrong shape is an invalid architecture, found before training."""
    expected = (min(2, len(data.validation)), data.task.classes)
    model.eval()
    with torch.no_grad():
        logits = model(data.validation.images(slice(2)))
    if tuple(logits.shape) != expected:
        raise InvalidArchitecture(f"expected logits of shape {expected}, got {tuple(logits.shape)}")


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _environment(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }


def not_finite(scores: dict[str, float], names: tuple[str, ...]) -> list[str]:
    """Return those of ``names`` that are missing from ``scores`` or not finite."""
    return [n for n in names if not math.isfinite(scores.get(n, math.nan))]
