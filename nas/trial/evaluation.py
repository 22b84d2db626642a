"""One trial, from architecture to scores, in a plain Python process.

:func:`evaluate` gives the :class:`Evaluation` of a :class:`nas.trial.trial.Trial`. A failure is a
status with a reason, never an exception: a search goes on, and the trial table says what happened.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from metrics.deadline import TimeUp, doing, limited
from metrics.engine.device_faults import device_fault
from metrics.engine.memory import out_of_memory
from nas.data.arrays import Data, Images, prepare
from nas.data.datasets import load_images
from nas.errors import DeviceFault, Diverged, ProcessLost, handled_trace, one_line
from nas.trial.captured import capture_asked
from nas.trial.checkpoint import Checkpoints
from nas.trial.generators import global_generators
from nas.trial.group import ALONE
from nas.trial.kept import BEST_IS_AVERAGE
from nas.trial.machine import environment_of, peak_memory
from nas.trial.process import process_as_found
from nas.trial.repeats import repeated
from nas.trial.scoring import check_output, score_stage
from nas.trial.state import Epoch, Weights
from nas.trial.team import team_of
from nas.trial.trained import Training
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import InvalidArchitecture, Task, space_of

TRAINING_SCORES = (
    "best_epoch",
    "best_epoch_robust_accuracy",
    "last_epoch_robust_accuracy",
    "train_seconds",
    "score_seconds",
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
        environment: versions, device, threads and precision that the numbers depend on.
        traceback: of an ``error``.
        repeats: the scores of every repeat, where the trial has several; ``scores`` are means.
        kept_repeat: the repeat whose weights these are; see ``nas.trial.repeats``.
        micro_batch: images that were trained on at a time, where that was asked for.
        peak_memory_bytes: the most that torch held on the GPU, the images included; None on a CPU,
            which counts no such thing. Of repeats the largest.
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
    repeats: tuple[dict[str, float], ...] = ()
    kept_repeat: int | None = None
    micro_batch: int | None = None
    peak_memory_bytes: int | None = None
    task: Task | None = None
    weights: Weights | None = None
    last_weights: Weights | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the ledger keeps, as plain JSON types."""
        several = {"repeats": list(self.repeats), "kept_repeat": self.kept_repeat}
        memory = {
            "micro_batch": self.micro_batch,
            "peak_memory_bytes": self.peak_memory_bytes,
        }
        return {
            "status": self.status,
            "reason": self.reason,
            "scores": self.scores,
            "epochs": len(self.epochs),
            "seconds": self.seconds,
            "environment": self.environment,
            **(several if self.repeats else {}),
            **{name: value for name, value in memory.items() if value is not None},
        }


def evaluate(
    trial: Trial,
    images: Images | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    time_limit_seconds: float | None = None,
    micro_batch: int | None = None,
    processes: int = 1,
) -> Evaluation:
    """Train and score one trial in this process, all its repeats.

    Args:
        trial: what to do.
        images: of ``trial.data``'s source; None reads them.
        device: ``cpu`` or ``cuda``.
        threads: of torch on the CPU; None leaves them. Sums, and so scores, can depend on it.
        time_limit_seconds: give up once this has passed, in training or while scoring.
        micro_batch: images that are trained on, judged and scored at a time; None is the whole
            batch, and what fits for the others. It is no part of the trial, whose seeds stay.
        processes: that train the trial, on ``cuda`` each on a GPU of its own; this one alone judges
            and scores. No part of the trial either.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    data = prepare(load_images(trial.data) if images is None else images, trial.data, device)
    run = partial(evaluation, data=data, micro_batch=micro_batch, processes=processes)
    return drain(limited(repeated(run, trial), time_limit_seconds))


def evaluation(
    trial: Trial,
    data: Data,
    *,
    micro_batch: int | None = None,
    checkpoints: Checkpoints | None = None,
    processes: int = 1,
) -> Generator[Epoch, None, Evaluation]:
    """Do what :func:`evaluate` does for one repeat, handing over after every epoch.

    A limit is the caller's (:func:`metrics.deadline.limited`); the epochs before it are kept. With
    ``checkpoints`` it goes on from what an earlier process left, whose epochs it hands over first.

    The global generators of torch, numpy and Python are seeded for the trial; they and what else
    a network may set in its process are given back as found.

    Raises:
        DeviceFault: the device failed, in a way that ends this process's work on it.
    """
    began = time.perf_counter()
    device = data.train.labels.device
    environment = environment_of(device, trial.recipe)
    environment |= {"processes": processes} if processes > 1 else {}
    checkpoint = (checkpoints or Checkpoints()).of(trial, environment, micro_batch)
    kept = checkpoint.read(device)
    if kept is not None and kept.ended is not None:
        yield from checkpoint.epochs()
        return Evaluation(**kept.ended, task=data.task)
    epochs: list[Epoch] = []
    started = began

    def failed(status: str, reason: str, trace: str = "") -> Evaluation:
        seconds = time.perf_counter() - started
        return Evaluation(
            status,
            reason,
            {},
            tuple(epochs),
            seconds,
            environment,
            trace,
            micro_batch=micro_batch,
            peak_memory_bytes=checkpoint.peak(peak_memory(device)),
        )

    generators = global_generators(device)
    saved = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(trial.seed_for("torch"))
    found = ExitStack()
    found.enter_context(process_as_found(trial.seed_for("python")))
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        team = found.enter_context(team_of(trial, data, processes, micro_batch=micro_batch))
        doing("while building the network")
        space = space_of(trial.architecture)
        model = space.build(trial.architecture, data.task, seed=trial.seed_for("weights"))
        model = model.to(device)
        check_output(model, data)
        generator = torch.Generator(device=device).manual_seed(trial.seed_for("training"))
        if (kept := checkpoint.refuse(model)) is None:
            scores = score_stage(trial, model, data, "init", micro_batch)
        else:
            scores, started = dict(kept.scores), began - kept.seconds
        early_seconds = time.perf_counter() - began + (kept.score_seconds if kept else 0.0)
        for epoch in checkpoint.epochs():
            epochs.append(epoch)
            yield epoch
        attack = trial.recipe.attack()
        group = ALONE if team is None else team.joined()
        steps = train(
            model, data, trial.recipe, attack, generator, micro_batch=micro_batch,
            begin=checkpoint.begin, capture=capture_asked(), group=group,
        )  # fmt: skip
        while True:
            try:
                epochs.append(next(steps))
            except StopIteration as end:
                training: Training = end.value
                break
            if len(epochs) == 1:
                scored = time.perf_counter()
                scores.update(score_stage(trial, model, data, "epoch1", micro_batch))
                early_seconds += time.perf_counter() - scored
            seconds = time.perf_counter() - started
            checkpoint.note(scores, seconds, early_seconds, peak_memory(device))
            yield epochs[-1]
        if team is not None:
            team.end()
        trained = time.perf_counter()
        training = replace(training, plain=None, average=None)  # no memory while scoring
        scores.update(score_stage(trial, model, data, "end", micro_batch))
        best, last = training.best, training.last
        robust = [
            (e.average_rank if averaged else e.rank)[0]
            for e, averaged in ((best, training.best_is_average), (last, training.last_is_average))
        ]
        own = (
            best.epoch,
            *robust,
            trained - started - early_seconds,
            early_seconds + time.perf_counter() - trained,
        )
        named = zip(TRAINING_SCORES, map(float, own), strict=True)
        scores.update((name, v) for name, v in named if not math.isnan(v))  # no epochs, no judge
        if trial.recipe.weight_average is not None:
            scores[BEST_IS_AVERAGE] = float(training.best_is_average)
        weights = {name: w.cpu() for name, w in model.state_dict().items()}
        last_weights = {name: w.cpu() for name, w in training.last_weights.items()}
        ended = Evaluation(
            "complete",
            scores=scores,
            epochs=tuple(epochs),
            seconds=time.perf_counter() - started,
            environment=environment | in_use(training),
            micro_batch=micro_batch,
            peak_memory_bytes=checkpoint.peak(peak_memory(device)),
            task=data.task,
            weights=weights,
            last_weights=None if best.epoch == last.epoch else last_weights,
        )
        checkpoint.end({f: v for f, v in vars(ended).items() if f != "task"})
        return ended
    except TimeUp as late:
        return failed("timeout", str(late))
    except Diverged as error:
        return failed("diverged", str(error))
    except InvalidArchitecture as error:
        return failed("invalid", str(error))
    except ProcessLost as error:
        if error.status == "device":
            raise DeviceFault(error.reason) from error
        return failed(error.status, error.reason, error.trace)
    except (Exception, SystemExit) as error:  # a failure is a row of the table, not a crash
        if device_fault(error):
            raise DeviceFault(one_line(error)) from error
        status = "oom" if out_of_memory(error) else "error"
        return failed(status, one_line(error), handled_trace())
    finally:
        found.close()
        for generator, state in zip(generators, saved, strict=True):
            generator.set_state(state)
        if device.type == "cuda":  # the next trial may need what this one held
            steps = model = None  # type: ignore[assignment]
            gc.collect()
            torch.cuda.empty_cache()


def in_use(training: Training) -> dict[str, str]:
    """Return what training ran on beside its device, for the environment."""
    attack = {"attack_precision": training.attack_precision} if training.attack_precision else {}
    return {"capture": training.capture, **attack}
