"""A training step and a batch of judging, of a model without values: what is alive at once.

The trial's own code runs, where it needs no values. Where it does (checks of images, comparisons of
a model before and after), what that code allocates stands here instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metrics.attacks import Attack, Square, SquareL2
from metrics.attacks.geometry import Randomness
from metrics.cost import Cost
from metrics.engine.folding import copied, folded
from metrics.engine.memory import CACHE, LEAST, MOST, SHARE, TWICE
from metrics.metric import Metric
from metrics.robustness.scores import AttackAccuracy, CleanAccuracy
from metrics.susceptibility.scores import PsiRatio
from nas.trial.live_bytes import LiveBytes
from nas.trial.minibatch import gradients
from nas.trial.recipe import Recipe
from nas.trial.recipe_checks import PAIRED
from nas.trial.trial import Trial
from search_spaces import Task

OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}  # of the parameters


class Rehearsal:
    """The training and scoring of one model without values, its state counted in ``live``."""

    def __init__(
        self,
        live: LiveBytes,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        micro_batch: int | None,
        device: str,
    ) -> None:
        self.live, self.model, self.task, self.recipe = live, model, task, recipe
        self.micro_batch, self.device = micro_batch, device
        self.batch = min(recipe.batch_size, micro_batch or recipe.batch_size)
        self.activation_bytes = 0
        parameters = list(model.parameters())
        copies = OPTIMIZER_COPIES[recipe.optimizer]
        if recipe.optimizer == "sgd" and not recipe.momentum:
            copies = 0
        copies += recipe.accumulate > 1  # the sums of several minibatches
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        self._state = [[torch.empty_like(p) for p in parameters] for _ in range(copies)]
        averaged = recipe.weight_average is not None
        self._average = [torch.empty_like(v) for v in (*parameters, *model.buffers()) if averaged]
        self.state_bytes = live.now
        self._best = self._weights()
        self._best_average = self._weights() if averaged else []

    def training(self, count: int) -> int:
        """Return the peak of a training step, from the second epoch on."""
        size, live, recipe = min(self.recipe.batch_size, count), self.live, self.recipe
        self.batch = min(self.batch, size)
        loaded = torch.empty(size, *self.task.shape)
        x = torch.empty_like(loaded) if _changes(recipe) else loaded
        y = torch.zeros(size, dtype=torch.long)
        self.model.train()
        live.begin()
        attack: Any = recipe.attack()
        standin: Any = None if attack is None else _AsCalled(attack)
        with self._activations():
            gradients(
                self.model, x, y, recipe, standin, torch.Generator(), self.micro_batch,
                perturb=recipe.perturbs(recipe.epochs),
            )  # fmt: skip
        sizes = [p.numel() * p.element_size() for p in self.model.parameters()] or [0]
        # A GPU's optimizer takes all parameters at a time, a CPU's one after another.
        step = self._step_copies() * (sum(sizes) if self.device == "cuda" else max(sizes))
        better = _bytes(self._best)
        if self._average:  # beside the new best average the model's own weights, put aside
            better *= 2
        return max(live.most, live.now + step, live.now + better)

    def scoring(self, trial: Trial, count: int, free_bytes: int | None) -> int:
        """Return the peak of judging an epoch and of the metrics at the end."""
        live, recipe = self.live, self.recipe
        self.model.eval()
        self.model.zero_grad(set_to_none=True)
        live.begin()
        with _looked_at(self.model):
            quick = _quick(self.model)
            _in_float64(self.model)
            size = self._suitable(quick, free_bytes)
            judged = min(size, recipe.selection_images, count)
            before = live.now
            self._pass(quick, recipe.judge(), judged)
            a_pass = live.most - before
        judging = live.most + 4 * math.prod(self.task.shape) * min(recipe.selection_images, count)
        judging += _bytes(self._average)  # the model's own weights, put aside
        rows = max((_rows(metric, size, count) for metric in trial.metrics), default=0)
        # Then the optimizer and an average are gone, and the last epoch's weights stand for the
        # best's.
        held = before - _bytes(v for copy in self._state for v in copy)
        held -= _bytes(self._average) + _bytes(self._best_average)
        scored = 4 * math.prod(self.task.shape) * count
        scoring = held + scored + a_pass * rows // max(judged, 1) if rows else 0
        return max(judging if recipe.selection_images else 0, scoring)

    def _pass(self, quick: nn.Module, attack: Attack, size: int) -> None:
        """Attack ``size`` images, none of which breaks, and look at them without gradients."""
        if not size:
            return
        x, y = torch.empty(size, *self.task.shape), torch.zeros(size, dtype=torch.long)
        with torch.no_grad():
            self.model(x.clone())
        short = _short(attack)
        short.search(quick, x.clone(), y, Randomness(x, torch.Generator()))

    def _suitable(self, quick: nn.Module, free_bytes: int | None) -> int:
        """Return what ``metrics.engine.memory.suitable_batch`` does."""
        before = self.live.now
        with torch.enable_grad():
            kept = quick(torch.empty(1, *self.task.shape).requires_grad_().clone())
        saved = self.live.now - before
        del kept
        most = min(MOST[self.device], self.micro_batch or MOST[self.device])
        room: float = CACHE
        if self.device == "cuda":
            room = math.inf if free_bytes is None else SHARE * free_bytes / TWICE
        return int(max(min(LEAST, most), min(most, room / max(saved, 1))))

    def _weights(self) -> list[Tensor]:
        return [torch.empty_like(v) for v in self.model.state_dict().values()]

    def _step_copies(self) -> int:
        """Return how many copies of parameters an optimizer's step makes."""
        if self.recipe.optimizer == "sgd":
            return bool(self.recipe.weight_decay) + bool(self.recipe.momentum)
        return 2

    @contextmanager
    def _activations(self) -> Iterator[None]:
        """Note what forward passes in training mode leave behind, those of one loss together."""
        kept: list[int] = []
        before = 0

        def begin(module: nn.Module, inputs: Any) -> None:
            nonlocal before
            before = self.live.now

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            if module.training:
                kept.append(self.live.now - before)
                of_one_loss = kept[-2:] if self.recipe.loss in PAIRED else kept[-1:]
                self.activation_bytes = max(self.activation_bytes, sum(of_one_loss))

        handles = (
            self.model.register_forward_pre_hook(begin),
            self.model.register_forward_hook(end),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _changes(recipe: Recipe) -> bool:
    """Whether training images are augmented, and so copied."""
    return bool(recipe.flip or recipe.crop_padding or recipe.cutout)


class _AsCalled:
    """An attack as training calls it, without the checks of values; one step of it."""

    def __init__(self, attack: Attack) -> None:
        self.attack = _short(attack)
        self.leaks_labels = attack.leaks_labels

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor | None,
        *,
        generator: torch.Generator,
        batch_size: int | None = None,
    ) -> Tensor:
        training = model.training
        with _looked_at(model):
            x = images.clone()
            model.eval()
            parts = [
                self.attack.perturb(model, part, None if labels is None else y, generator)
                for part, y in zip(
                    x.split(batch_size or len(x)),
                    (x if labels is None else labels).split(batch_size or len(x)),
                    strict=True,
                )
            ]
            images = torch.cat(parts) if batch_size else parts[0]
        model.train(training)
        return images.detach()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(v.numel() * v.element_size() for v in tensors)


def _short(attack: Attack) -> Any:
    """Return an attack of as few steps as have all that more have at a time.

    Square in L2 is rehearsed as Square, whose tensors have the same sizes: its first images on
    tensors without values damage the heap of torch 2.14 (a crash some tests later, seen by
    ``MALLOC_PERTURB_``), for a reason that was not found.
    """
    if isinstance(attack, SquareL2):
        attack = Square(queries=attack.queries)
    for name, few in (("steps", 2), ("queries", 2), ("draws", 2)):
        if getattr(attack, name, 0) > few:
            attack = replace(attack, **{name: few})
    return attack


@contextmanager
def _looked_at(model: nn.Module) -> Iterator[None]:
    """Hold what ``metrics.left_as_found`` does of a model, and compare with it in the end."""
    held = _bits(model)
    yield
    _bits(model)
    del held


def _bits(model: nn.Module) -> Tensor:
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([v.detach().reshape(-1).view(torch.uint8) for v in tensors])


def _quick(model: nn.Module) -> nn.Module:
    """Return the fast copy, or the model where it cannot be traced."""
    try:
        return folded(copied(model))
    except Exception:  # noqa: BLE001  anybody's model: as ``metrics.engine.folding.fast_copy``
        return model


def _in_float64(model: nn.Module) -> None:
    """Make what a folded net is compared in, where float32 says too little.

    That hangs on the weights, and happens where batch norms are folded: taken for granted there.
    """
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        held = [torch.empty_like(v, dtype=torch.float64) for v in [*model.parameters()] * 2]
        del held  # the model and its folded weights


def _rows(metric: Metric, size: int, count: int) -> int:
    """Return how many rows a metric has in the model at a time."""
    images = min(count, metric.limit or count)
    if isinstance(metric, Cost):
        return 1
    if isinstance(metric, CleanAccuracy | AttackAccuracy):
        return min(size, images)
    if isinstance(metric, PsiRatio):
        return min(size, images * len(metric.radii) * metric.restarts)
    return size  # several rows an image
