"""A model made ready to be attacked in batches, and a count of what that spends.

Attacks run on a fast copy (:mod:`metrics.engine.folding`), where there is one. Rounding differs in
the copy, so nothing counts as broken until the model itself has misclassified the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metrics.answers import answer, logits_of, misclassified
from metrics.attacks.base import Attack, Found, check_attack
from metrics.attacks.geometry import Randomness
from metrics.checks import (
    check_batch_size,
    check_classes,
    check_images,
    check_labels,
    check_model,
    scripted,
)
from metrics.engine.draws import Draws
from metrics.engine.folding import fast_copy
from metrics.engine.memory import in_batches, out_of_memory, suitable_batch
from metrics.engine.sharing import Shared, shared_of
from metrics.left_as_found import evaluating
from metrics.precision import full_float32

GRADIENT_AGREEMENT = 0.01  # change of a logit where gradients are on, over the largest


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
        images, labels: as given, checked.
        spent: forwards and backwards so far, of both.
        batch_size: images at a time; less than asked for, where memory has run out.
    """

    def __init__(
        self,
        model: nn.Module,
        quick: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        spent: Spent,
        batch_size: int,
        early_exit: bool,
        shared: Shared,
    ) -> None:
        self.model, self.quick, self.spent = model, quick, spent
        self.images, self.labels = images, labels
        self.batch_size, self.early_exit = batch_size, early_exit
        self._shared = shared

    def clean_wrong(self) -> Tensor:
        """Return ``(N,)`` bool: which of :attr:`images` the model gets wrong without an attack."""

        def make() -> Tensor:
            return self.wrong(self.images, self.labels, check=True)

        return self._shared.mask(self.images, self.labels, make).clone()

    def wrong(self, images: Tensor, labels: Tensor, *, check: bool = False) -> Tensor:
        """Return ``(N,)`` bool: which images the model itself gets wrong.

        ``check`` refuses labels that have no logit.
        """
        found = [torch.zeros(0, dtype=torch.bool, device=labels.device)]

        def look(part: slice) -> Tensor:
            logits = logits_of(self.model, images[part])
            if check and part.start == 0:
                check_classes(logits, labels)
            return misclassified(logits, labels[part])

        for _, mask, size in in_batches(len(labels), self.batch_size, look):
            found.append(mask)
            self.batch_size = size
        return torch.cat(found)

    def search(
        self,
        attack: Attack,
        rows: Tensor,
        generator: torch.Generator | None,
        *,
        keep_images: bool = False,
    ) -> Found:
        """Return what ``attack`` finds; what is broken, the model itself misclassifies.

        The random numbers belong to the images: neither which others are attacked nor how many at
        a time plays a part.

        Args:
            attack: any.
            rows: ``(n,)`` long, which of :attr:`images` are attacked, ascending.
            generator: None is one that torch's global one seeds.
            keep_images: else the result has none.
        """
        draws = Draws.of(self.images, generator, whole=not attack.draws_by_image)
        parts = []
        if attack.draws_by_image:
            places = rows.tolist()

            def work(part: slice) -> Found:
                x, y = (_ordinary(v[rows[part]]) for v in (self.images, self.labels))
                return self._search(attack, x, y, draws, places[part], keep_images)

            for _, found, most in in_batches(len(places), self.batch_size, work):
                parts.append(found)
                self.batch_size = most
        else:  # whole blocks, whoever is asked for
            for block in sorted({place // draws.size for place in rows.tolist()}):
                some = slice(block * draws.size, (block + 1) * draws.size)
                x, y = (_ordinary(v[some]) for v in (self.images, self.labels))
                asked = rows[(rows >= some.start) & (rows < some.stop)] - some.start
                every = list(range(some.start, some.start + len(x)))
                parts.append(self._search(attack, x, y, draws, every, keep_images).of(asked))
        return Found(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))

    def _search(
        self,
        attack: Attack,
        x: Tensor,
        labels: Tensor,
        draws: Draws,
        places: Sequence[int],
        keep_images: bool,
    ) -> Found:
        found = self._quickly(attack, x, labels, draws, places)
        if self.quick is not self.model:
            broken = found.broken.nonzero().squeeze(1)
            rounded = broken[~self.wrong(found.images[broken], labels[broken])]
            if len(rounded):  # with the same draws, on the model itself
                again = self._slowly(attack, x, labels, draws, places, rounded)
                found.images[rounded] = again.images
                found.broken[rounded] = again.broken
        return found if keep_images else replace(found, images=x[:0].clone())  # no view of x

    def _quickly(
        self, attack: Attack, x: Tensor, labels: Tensor, draws: Draws, places: Sequence[int]
    ) -> Found:
        try:
            return self._once(attack, self.quick, x, labels, draws.at(places, x))
        except Exception as error:
            if self.quick is self.model or out_of_memory(error):
                raise
            self.quick = self.model  # what the copy cannot do after all, the model may
        return self._once(attack, self.model, x, labels, draws.at(places, x))

    def _slowly(
        self,
        attack: Attack,
        x: Tensor,
        labels: Tensor,
        draws: Draws,
        places: Sequence[int],
        rows: Tensor,
    ) -> Found:
        """Search on the model itself for these rows of a batch."""
        if not attack.draws_by_image:
            return self._once(attack, self.model, x, labels, draws.at(places, x)).of(rows)
        x, labels, places = x[rows], labels[rows], [places[i] for i in rows.tolist()]
        return self._once(attack, self.model, x, labels, draws.at(places, x))

    def _once(
        self, attack: Attack, model: nn.Module, x: Tensor, labels: Tensor, random: Randomness
    ) -> Found:
        return attack.search(model, x, labels, random, early_exit=self.early_exit)


@contextmanager
def evaluator(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int | None = None,
    fast: bool = True,
    early_exit: bool = True,
    attacks: Sequence[Attack] = (),
) -> Iterator[Evaluator]:
    """Make ``model`` ready; it is left as found.

    Within, gradients are on whatever the caller's mode, and convolutions and matrix products are in
    full float32: TF32 changes which images break. ``batch_size`` None is what suits the model and
    the device. ``attacks`` are those to come: refused now, whatever the model gets right.

    Raises:
        ValueError: images, labels or a model that no attack can work with; an epsilon further than
            any two images are apart.
    """
    check_model(model)
    batch_size = check_batch_size(batch_size)
    images = check_images(images)
    for attack in attacks:
        check_attack(attack)
        attack.check_reach(images)
    labels = check_labels(images, labels)
    spent = Spent()
    shared = shared_of(model)
    with (
        full_float32(),
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
    ):
        seen = _Followed(model) if scripted(model) else model
        shared.once("gradients", lambda: _check_gradients(seen, images))
        quick = shared.once("copy", lambda: fast_copy(model, images)) if fast else None
        quick = quick or seen
        if batch_size is None:
            batch_size = shared.once("batch", lambda: suitable_batch(quick, images))
        handles = [_count(m, spent) for m in ([seen] if quick is seen else [seen, quick])]
        try:
            yield Evaluator(
                seen,
                quick,
                images,
                labels,
                spent=spent,
                batch_size=batch_size,
                early_exit=early_exit,
                shared=shared,
            )
        finally:
            for handle in handles:
                handle.remove()


def _check_gradients(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError for a model that is another one where gradients are on."""
    x = images[:2].detach().clone().requires_grad_()
    plain = logits_of(model, x.detach())
    if not torch.equal(plain.nan_to_num(), logits_of(model, x.detach()).nan_to_num()):
        return  # never twice the same: random
    try:
        apart = (answer(model, x).detach() - plain).nan_to_num(0, 0, 0).abs().max()
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return  # it runs without gradients only: an attack that wants some will say so
    size = plain.nan_to_num(0, 0, 0).abs().max()
    if apart > GRADIENT_AGREEMENT * size:
        raise ValueError(
            "model: expected the same logits with gradients and without, got a change of "
            f"{float(apart / size):.2g} of the largest; attacks would see another model than users"
        )


class _Followed(nn.Module):
    """A module around a TorchScript one, which takes no hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def _ordinary(v: Tensor) -> Tensor:
    """Return ``v``, copied if it was made under ``inference_mode``: such have no gradients."""
    return v.clone() if v.is_inference() else v.detach()


def _count(model: nn.Module, spent: Spent) -> Any:
    """Count images through ``model`` until the returned handle is removed."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        spent.forwards += len(inputs[0])
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        spent.backwards += len(gradient)

    return model.register_forward_hook(hook)
