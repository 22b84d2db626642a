"""Adversarial training under a :class:`Recipe`, one epoch at a time.

A share of every minibatch is attacked, against the current weights (0.5 as Kurakin et al. 2017,
1.0 as Madry et al. 2018); the loss is the recipe's (:mod:`nas.trial.objective`) plus
``entropy_weight`` times the entropy of the prediction (Cubuk et al. 2017: it penalises entropy).
Where a batch does not fit into memory, its gradient is summed over micro-batches (:func:`train`).
After each epoch the model is judged on validation images; the weights of the best epoch *and* of
the last are kept, since robust accuracy can fall while training goes on (robust overfitting). Of a
``weight_average`` the averaged model is judged beside the plain one, by the same attack from the
same random starts, and the better of the two is kept. With ``patience`` training ends where that
long no epoch was better (Rice et al. 2020, arXiv 2002.11569).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from metrics.attacks import Attack
from metrics.checks import values_known
from metrics.deadline import doing
from metrics.engine.memory import at_most
from metrics.robustness.accuracy import robust_accuracy
from nas.data.arrays import Data
from nas.errors import Diverged
from nas.trial.adversary import LOOKED_AT, Adversary
from nas.trial.augmentation import augment
from nas.trial.averaging import statistics_batches
from nas.trial.captured import captured
from nas.trial.group import ALONE, Group, Part
from nas.trial.minibatch import gradients
from nas.trial.optimizing import Accumulation, learning_rate, steps_of_epoch
from nas.trial.precision import check_precision
from nas.trial.recipe import Recipe
from nas.trial.state import (
    Epoch,
    TrainingState,
    out_of_patience,
)
from nas.trial.trained import Training, ended
from nas.trial.waiting import LossWatch, values_fine

EpochScore = Literal["robust_accuracy", "clean_accuracy"]
EPOCH_SCORES: tuple[EpochScore, ...] = get_args(EpochScore)
"""What every epoch is judged by, on ``recipe.selection_images`` images: of plain and averaged
weights the better (``nas.trial.state.better_scores``)."""
T = TypeVar("T")


def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    attack: Attack | None,
    generator: torch.Generator,
    *,
    micro_batch: int | None = None,
    begin: Callable[[TrainingState], None] | None = None,
    capture: bool = False,
    group: Group = ALONE,
) -> Generator[Epoch, None, Training]:
    """Train ``model`` in place, yield a report after every epoch, return the training.

    With ``micro_batch`` so many images at a time are attacked, go forwards and backwards; the
    gradients of a batch are summed before its one step, each image counting the same. Order,
    augmentation, random starts and which images are made adversarial are those of the whole batch,
    so that without batch norm the weights are those of training without micro-batches, up to
    rounding. Batch norm normalises by, and keeps, statistics of micro-batches, and dropout draws
    for each. Epochs are then judged on no more images at a time either.

    In a ``group`` of processes each calls this with equal arguments, trains on its rows of every
    batch and returns the same training; the first judges the epochs, for all of them.

    Args:
        model: on the device of ``data``; afterwards in ``eval()`` with the best epoch's weights,
            best by robust accuracy, then clean accuracy, then the earlier epoch, then plain before
            averaged ones; the last epoch's where no images judge them.
        data: train and validation images.
        recipe: how.
        attack: makes the adversarial images; None trains on clean ones.
        generator: on that device; decides order, augmentation and random starts.
        micro_batch: images at a time in each process; None is its whole batch.
        begin: is given the state before the first epoch, which it may set to that after a later
            one (:mod:`nas.trial.checkpoint`): training goes on from there.
        capture: replay steps as a CUDA graph where that can be done (:mod:`nas.trial.captured`).
        group: of the processes that train the model.

    Raises:
        Diverged: the loss or a weight is not finite.
        ValueError: micro_batch below 1, a recipe that no group trains, or bf16 on a card that has
            none.
        TimeUp: a limit has passed (:mod:`metrics.deadline`), which every step looks at.
    """
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch: expected a number of images >= 1, got {micro_batch}")
    check_precision(recipe, data.train.labels.device)
    group.check(recipe)
    group.copied(model.state_dict().values())
    state = TrainingState.begun(model, recipe, generator)
    known = values_fine(data)
    adversary = None
    if attack is not None and recipe.epochs:
        doing("while making a copy to attack")
        adversary = Adversary(attack, model, data.train.images(slice(LOOKED_AT)), recipe)
        state.parts["adversary"] = adversary

    def compute(x: Tensor, y: Tensor, part: Part | None = None) -> Tensor:
        with values_known(known):
            perturb = recipe.perturbs(state.first_epoch())
            return gradients(
                model, x, y, recipe, adversary, generator, micro_batch, part, perturb=perturb
            )

    replayed = (
        captured(compute, model, generator, micro_batch, recipe)
        if capture and group.size == 1
        else None
    )
    if begin is not None:
        begin(state)
    for number in range(state.first_epoch(), recipe.epochs + 1):
        if state.epochs and state.epochs[-1].stopped_early:
            break
        started = time.perf_counter()
        steady = True
        if adversary is not None:
            doing(f"while comparing the attacked copy, before epoch {number} of {recipe.epochs}")
            adversary.begin_epoch(number)
            steady = adversary.steady
        if replayed is not None:
            replayed.begin_epoch(recipe.perturbs(number))
        step = replayed if replayed is not None and steady else compute
        train_loss = _epoch(state, number, data, recipe, step, adversary, group)
        doing(f"while judging epoch {number} of {recipe.epochs}")
        state.optimizer.zero_grad(set_to_none=True)  # an evaluator would keep copies of gradients
        judged = [math.nan] * 4
        if group.rank == 0:
            with at_most(micro_batch):
                judged = [
                    *_judge(model, data, recipe, state.judge_seed),
                    *_judge_average(state, data, recipe, attack, micro_batch),
                ]
        clean, robust, *averages = group.told(judged)
        seconds = time.perf_counter() - started
        report = Epoch(number, train_loss, clean, robust, seconds, averages[0], averages[1])
        if number < recipe.epochs and out_of_patience(recipe, [*state.epochs, report]):
            report = replace(report, stopped_early=True)
        state.note(report, judged=recipe.selection_images > 0)
        yield report
    training = ended(state, judged=recipe.selection_images > 0)
    model.eval()
    return replace(
        training,
        capture="off" if replayed is None else replayed.status,
        attack_precision="" if adversary is None else adversary.precision,
    )


def _epoch(
    state: TrainingState,
    number: int,
    data: Data,
    recipe: Recipe,
    compute: Callable[..., Tensor],
    adversary: Adversary | None,
    group: Group,
) -> float:
    """Go through the training images once, and return the mean loss."""
    model, optimizer, generator = state.model, state.optimizer, state.generator
    device = data.train.labels.device
    steps_an_epoch = steps_of_epoch(len(data.train), recipe)
    accumulation = Accumulation(model, recipe.accumulate)
    model.train()
    losses: list[Tensor] = []
    watch = LossWatch(number)
    group.same_draws(generator)
    order = torch.randperm(len(data.train), generator=generator, device=generator.device)
    batches = order.to(device).split(recipe.batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = batches[:-1]  # batch norm has no variance of one image
    for step, indices in enumerate(batches):
        doing(f"in epoch {number} of {recipe.epochs}, step {step + 1}")
        x, y = augment(data.train.images(indices), recipe, generator), data.train.labels[indices]
        if adversary is not None:
            adversary.at(indices, len(data.train))
        if (part := group.part(len(y))) is not None:
            x, y = part.take(x), part.take(y)
        losses.append(group.summed(model, compute(x, y, *([] if part is None else [part])), part))
        watch.note(step, losses[-1])
        if not accumulation.step_due(len(indices), last=step + 1 == len(batches)):
            continue
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        for settings in optimizer.param_groups:
            settings["lr"] = learning_rate(recipe, state.step, steps_an_epoch)
        optimizer.step()
        state.step += 1
        if state.average is not None:
            state.average.update()
    group.copied(model.buffers())
    train_loss = torch.stack(losses).mean().item()
    if not math.isfinite(train_loss) or not _finite(model):
        raise Diverged(f"the loss is {train_loss} after epoch {number}, or a weight not finite")
    return train_loss


def drain(steps: Generator[Any, None, T]) -> T:
    """Run a generator such as :func:`train` to its end and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _judge(model: nn.Module, data: Data, recipe: Recipe, seed: int) -> tuple[float, float]:
    """Return clean and robust accuracy; the same random starts in every epoch."""
    if not recipe.selection_images:
        return math.nan, math.nan
    chosen = slice(recipe.selection_images)
    x, y = data.validation.images(chosen), data.validation.labels[chosen]
    generator = torch.Generator(device=y.device).manual_seed(seed)
    found = robust_accuracy(model, x, y, recipe.judge(), generator=generator)
    return found.clean.double().mean().item(), found.accuracy


def _judge_average(
    state: TrainingState,
    data: Data,
    recipe: Recipe,
    attack: Attack | None,
    micro_batch: int | None,
) -> tuple[float, float]:
    """Return clean and robust accuracy of the averaged model; NaN where there is none."""
    average = state.average
    if average is None:
        return math.nan, math.nan
    average.renew(
        lambda: statistics_batches(
            state.model, data.train, recipe, attack, state.judge_seed, micro_batch=micro_batch
        )
    )
    with average.in_model():
        return _judge(state.model, data, recipe, state.judge_seed)


def _finite(model: nn.Module) -> bool:
    return bool(torch.stack([w.isfinite().all() for w in model.state_dict().values()]).all())
