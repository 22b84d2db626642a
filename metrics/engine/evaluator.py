"""A model made ready to be attacked in batches, and a count of what that spends.

Attacks run on a fast copy (:mod:`metrics.engine.folding`), where there is one. Rounding differs in
the copy, so nothing counts as broken until the model itself has misclassified the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, misclassified
from metrics.attacks.base import Attack, Found
from metrics.checks import check_images, check_labels, check_logits, check_model
from metrics.engine.folding import fast_copy
from metrics.engine.precision import full_float32
from metrics.left_as_found import evaluating

BATCH_SIZES = {"cpu": 100, "cuda": 1000}  # 100: the fastest of 50 ... 2,000 on a CPU, by up to 2 x


@dataclass
class Spent:
    """Images that went through a model forwards, and whose gradient came back."""

    forwards: int = 0
    backwards: int = 0


class Evaluator:
    """Attacks one model in batches; made by :func:`evaluator`.

    Attributes:
        model: as given, in ``eval()``.
        quick: its fast copy, or the model itself.
        spent: forwards and backwards so far, of both.
    """

    def __init__(
        self,
        model: nn.Module,
        quick: nn.Module,
        *,
        spent: Spent,
        batch_size: int,
        early_exit: bool,
    ) -> None:
        self.model, self.quick, self.spent = model, quick, spent
        self.batch_size, self.early_exit = batch_size, early_exit

    def wrong(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return ``(N,)`` bool: which images the model itself gets wrong."""
        none = torch.zeros(0, dtype=torch.bool, device=labels.device)
        found = [none]
        batches = zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
        for x, y in batches if len(images) else ():
            logits = logits_of(self.model, x)
            check_logits(logits, y)
            found.append(misclassified(logits, y))
        return torch.cat(found)

    def search(
        self, attack: Attack, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Found:
        """Return what ``attack`` finds; what is broken, the model itself misclassifies.

        Each batch draws from a generator of its own: what one batch draws, and when it stops,
        plays no part in the next.
        """
        xs, ys = images.split(self.batch_size), labels.split(self.batch_size)
        device = images.device if generator is None else generator.device
        seeds = torch.randint(2**62, (len(xs),), generator=generator, device=device).tolist()
        batches = [
            self._search(attack, x.detach(), y.long(), partial(_seeded, device, s))
            for x, y, s in zip(xs, ys, seeds, strict=True)
        ]
        return Found(
            torch.cat([found.images for found in batches]),
            torch.cat([found.broken for found in batches]),
            torch.cat([found.zero_gradients for found in batches]),
            torch.cat([found.nonfinite_gradients for found in batches]),
        )

    def _search(
        self,
        attack: Attack,
        x: Tensor,
        labels: Tensor,
        generator: Callable[[], torch.Generator],
    ) -> Found:
        x, labels = _ordinary(x), _ordinary(labels)
        found = self._once(attack, self.quick, x, labels, generator)
        if self.quick is self.model:
            return found
        broken = found.broken.nonzero().squeeze(1)
        rounded = broken[~self.wrong(found.images[broken], labels[broken])]
        if len(rounded):
            again = self._once(attack, self.model, x, labels, generator)  # with the same draws
            found.images[rounded] = again.images[rounded]
            found.broken[rounded] = again.broken[rounded]
        return found

    def _once(
        self,
        attack: Attack,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: Callable[[], torch.Generator],
    ) -> Found:
        return attack.search(model, x, labels, generator(), early_exit=self.early_exit)


@contextmanager
def evaluator(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int | None = None,
    fast: bool = True,
    early_exit: bool = True,
) -> Iterator[Evaluator]:
    """Make ``model`` ready; it is left as found.

    Within, gradients are on whatever the caller's mode, and convolutions on a GPU are in full
    float32: TF32 changes which images break. ``batch_size`` None is what suits the device.

    Raises:
        ValueError: images, labels or a model that no attack can work with.
    """
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"expected one label for each of at least one image, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    check_images(images)
    check_labels(images, labels)
    check_model(model)
    spent = Spent()
    if batch_size is None:
        batch_size = BATCH_SIZES.get(images.device.type, BATCH_SIZES["cuda"])
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        full_float32(),
    ):
        quick = (fast_copy(model, images[:2]) if fast else None) or model
        models = [model] if quick is model else [model, quick]
        handles = [_count(m, spent) for m in models]
        try:
            yield Evaluator(model, quick, spent=spent, batch_size=batch_size, early_exit=early_exit)
        finally:
            for handle in handles:
                handle.remove()


def _seeded(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


def _ordinary(v: Tensor) -> Tensor:
    """Return ``v``, copied if it was made under ``inference_mode``: such have no gradients."""
    return v.clone() if v.is_inference() else v


def _count(model: nn.Module, spent: Spent) -> Any:
    """Count images through ``model`` until the returned handle is removed."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        spent.forwards += len(inputs[0])
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        spent.backwards += len(gradient)

    return model.register_forward_hook(hook)
