"""Several attacks in turn, each on the images that the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack
from metrics.engine.evaluator import evaluator
from metrics.robustness.accuracy import effort_text, gradient_lines, share_of, share_text, wilson
from metrics.showing import brief


@dataclass(frozen=True)
class Cascade:
    """The worst case over several attacks, image by image.

    Attributes:
        accuracy, stderr: of the images that no attack broke.
        robust: ``(N,)`` bool.
        accuracies: accuracy left after each attack, those before it included.
        broken_by: ``(N,)`` long: the attack that broke the image, -1 where it was wrong already,
            the number of attacks where it still stands.
        zero_gradients, nonfinite_gradients: as in :class:`AttackResult`, the most of any attack.
        forwards, backwards: as in :class:`AttackResult`.
        attacks: as used, in their order.
    """

    accuracy: float
    stderr: float
    robust: Tensor
    accuracies: tuple[float, ...]
    broken_by: Tensor
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int
    attacks: tuple[Attack, ...] = ()

    __repr__ = brief

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of the accuracy."""
        return wilson(self.accuracy, len(self.robust))

    def __str__(self) -> str:
        """Return what a person reads: the worst case, and what each attack left of it."""
        lines = [f"robust accuracy {share_text(self.robust)}, the worst case of:"]
        left = int((self.broken_by >= 0).sum())
        for number, accuracy in enumerate(self.accuracies):
            broke = int((self.broken_by == number).sum())
            name = str(self.attacks[number]) if self.attacks else f"attack {number}"
            lines.append(f"  {accuracy:6.1%} after {name}, which broke {broke} of {left}")
            left -= broke
        lines += [effort_text(self.forwards, self.backwards)]
        return "\n".join([*lines, *gradient_lines(self.zero_gradients, self.nonfinite_gradients)])


def cascade(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack],
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    fast: bool = True,
) -> Cascade:
    """Return the worst case over ``attacks``: each is run on what those before it left standing.

    Put the cheap ones first: FGSM, then PGD, then APGD.

    Raises:
        ValueError: no attacks, and as in :func:`robust_accuracy`.
    """
    if not isinstance(attacks, Sequence) or not attacks:
        raise ValueError(f"attacks: expected a list of at least one, got {attacks!r}")
    with evaluator(
        model, images, labels, batch_size=batch_size, fast=fast, attacks=attacks
    ) as ready:
        broken_by = torch.where(ready.clean_wrong(), -1, len(attacks))
        accuracies, zero, nonfinite = [], 0, 0
        for number, attack in enumerate(attacks):
            standing = (broken_by == len(attacks)).nonzero().squeeze(1)
            if len(standing):
                found = ready.search(attack, standing, generator)
                broken_by[standing[found.broken]] = number
                zero = max(zero, int(found.zero_gradients.sum()))
                nonfinite = max(nonfinite, int(found.nonfinite_gradients.sum()))
            accuracies.append(share_of(broken_by == len(attacks))[0])
    robust = broken_by == len(attacks)
    spent = ready.spent
    return Cascade(
        *share_of(robust),
        robust,
        tuple(accuracies),
        broken_by,
        zero,
        nonfinite,
        spent.forwards,
        spent.backwards,
        tuple(attacks),
    )
