"""Robust accuracy over several epsilons, for about the price of the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack, check_attack
from metrics.attacks.geometry import column, length_of, moved
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.robustness.accuracy import effort_text, gradient_lines, share_of, share_text
from metrics.showing import brief


@dataclass(frozen=True)
class Curve:
    """Robust accuracy over epsilons.

    Attributes:
        epsilons: ascending.
        accuracies, stderrs: one for each epsilon; never rising where they are of what an attack
            breaks within epsilon, as :func:`accuracy_curve` has it.
        robust: ``(epsilons, N)`` bool.
        zero_gradients, nonfinite_gradients: as in :class:`AttackResult`, at the largest epsilon.
        forwards, backwards: as in :class:`AttackResult`.
    """

    epsilons: tuple[float, ...]
    accuracies: tuple[float, ...]
    stderrs: tuple[float, ...]
    robust: Tensor
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int

    __repr__ = brief

    def __str__(self) -> str:
        """Return what a person reads: a line for each epsilon."""
        pairs = zip(self.epsilons, self.robust, strict=True)
        lines = [f"  epsilon {epsilon:<9.4g} {share_text(mask)}" for epsilon, mask in pairs]
        lines = ["robust accuracy at", *lines, effort_text(self.forwards, self.backwards)]
        return "\n".join([*lines, *gradient_lines(self.zero_gradients, self.nonfinite_gradients)])


def accuracy_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    fast: bool = True,
) -> Curve:
    """Return robust accuracy at every epsilon; what breaks at one is broken at all larger ones.

    From the largest epsilon down, an image is attacked only at the one just below the smallest that
    is known to break it. What breaks it is then shrunk towards the image, forwards only, as far as
    it still breaks it. So an image costs one attack that fails, and few that succeed. What
    withstands an epsilon counts as robust at all smaller ones: an attack that does worse at a
    larger epsilon (suspicion flag ``not_monotone_in_epsilon``) could break more of them alone.

    Args:
        model, images, labels, generator, batch_size, fast: as in :func:`robust_accuracy`.
        attack: its epsilon is replaced, its step size scaled with it.
        epsilons: distinct, each one that the attack takes, in any order; 0 is clean accuracy.

    Raises:
        ValueError: no epsilons or a repeated one, and as in :func:`robust_accuracy`.
    """
    check_attack(attack)
    levels = check_epsilons(epsilons)
    attacks = [attack.with_epsilon(epsilon) for epsilon in levels]
    with evaluator(
        model, images, labels, batch_size=batch_size, fast=fast, attacks=attacks
    ) as ready:
        clean_wrong, zero, nonfinite = ready.clean_wrong(), 0, 0
        # The index of the smallest epsilon that breaks the image; len(levels) where none does.
        breaks = torch.where(clean_wrong, 0, len(levels))
        for level in reversed(range(len(levels))):
            todo = ((breaks == level + 1) & ~clean_wrong).nonzero().squeeze(1)
            if len(todo) and levels[level] > 0:
                x, y = ready.images[todo], ready.labels[todo]
                found = ready.search(attacks[level], todo, generator, keep_images=True)
                if level == len(levels) - 1:
                    zero = int(found.zero_gradients.sum())
                    nonfinite = int(found.nonfinite_gradients.sum())
                b = found.broken
                breaks[todo[b]] = _shrink(
                    ready, x[b], found.images[b], y[b], levels[: level + 1], attack.distance
                )
        robust = torch.stack([breaks > level for level in range(len(levels))])
    return curve_of(ready, levels, robust, zero, nonfinite)


def curve_of(
    ready: Evaluator, levels: tuple[float, ...], robust: Tensor, zero: int, nonfinite: int
) -> Curve:
    """Return the curve of masks ``(epsilons, N)``, with what the evaluator has spent."""
    shares = [share_of(mask) for mask in robust]
    return Curve(
        levels,
        tuple(accuracy for accuracy, _ in shares),
        tuple(stderr for _, stderr in shares),
        robust,
        zero,
        nonfinite,
        ready.spent.forwards,
        ready.spent.backwards,
    )


def check_epsilons(epsilons: Sequence[float]) -> tuple[float, ...]:
    """Return epsilons in ascending order; raise ValueError for none or repeated ones."""
    levels = tuple(sorted(epsilons))
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(f"epsilons: expected one or more distinct values, got {list(epsilons)}")
    return levels


def _shrink(
    ready: Evaluator,
    x: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    levels: Sequence[float],
    norm: str,
) -> Tensor:
    """Return ``(N,)``: the index of the smallest level at which a shrunk perturbation breaks.

    A binary search over the levels, the last of which is known to break.
    """
    delta = adversarial.double() - x.double()
    length = length_of(delta, norm).clamp_min(1e-30)
    reach = torch.tensor(levels, device=x.device, dtype=torch.float64)
    low = torch.zeros(len(x), dtype=torch.long, device=x.device)
    high = torch.full_like(low, len(levels) - 1)
    # At once as small as the perturbation itself is.
    high = torch.minimum(high, torch.searchsorted(reach, length * (1 - 1e-6)))
    while (open_ := (low < high).nonzero().squeeze(1)).numel():
        middle = (low[open_] + high[open_]) // 2
        share = (reach[middle] / length[open_]).clamp_max(1)
        shrunk = moved(x[open_], column(share) * delta[open_])
        wrong = ready.wrong(shrunk, labels[open_])
        high[open_] = torch.where(wrong, middle, high[open_])
        low[open_] = torch.where(wrong, low[open_], middle + 1)
    return high
