"""Clean and robust accuracy, with the standard error that a finite sample leaves.

An image is *broken* when any image that the attack visited, inside the ball and the box, is
misclassified; it is then left alone. So robust accuracy here is at most that of the attack's last
iterate, which other libraries count and ``early_exit=False`` gives. Images that are wrong without
an attack are broken and are not attacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack
from metrics.attacks.geometry import column, length_of
from metrics.engine.evaluator import Evaluator, evaluator


@dataclass(frozen=True)
class AttackResult:
    """What an attack left standing, and what repeats it.

    Attributes:
        accuracy: share of images that no visited image breaks.
        stderr: its standard error, sqrt(p (1 - p) / N).
        robust: ``(N,)`` bool, the images that stayed right.
        clean: ``(N,)`` bool, the images that are right without the attack.
        zero_gradients: images, right when clean, whose first loss gradient is zero everywhere: such
            an image looks robust to every gradient attack. 0 for attacks that use no gradients.
        nonfinite_gradients: the same with a NaN or infinite gradient (the sign of NaN is 0).
        forwards, backwards: images that went through the model, and whose gradient came back.
        attack, batch_size, fast, early_exit: as used.
        generator_state: of the generator before the attack; None if torch's global one was used.
    """

    accuracy: float
    stderr: float
    robust: Tensor
    clean: Tensor
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int
    attack: Attack
    batch_size: int
    fast: bool
    early_exit: bool
    generator_state: Tensor | None


@dataclass(frozen=True)
class Curve:
    """Robust accuracy over epsilons.

    Attributes:
        epsilons: ascending.
        accuracies, stderrs: one for each epsilon; never rising.
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


def standard_error(share: float, n: int) -> float:
    """Return the binomial standard error of a share of ``n``: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / n)


def correct(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int | None = None
) -> Tensor:
    """Return ``(N,)`` bool: which images the model, in ``eval()`` mode, gets right.

    A model that answers NaN or infinity gets none of those images right.

    Raises:
        ValueError: no images, labels or logits that do not fit, images outside [0, 1].
    """
    with evaluator(model, images, labels, batch_size=batch_size, fast=False) as ready:
        return ~ready.wrong(images, labels)


def robust_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    fast: bool = True,
    early_exit: bool = True,
) -> AttackResult:
    """Return the accuracy under ``attack`` over all ``N`` images.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        attack: any attack value.
        generator: decides the attack's random draws.
        batch_size: images at a time; None is what suits the device. Random draws depend on it.
        fast: attack a folded copy of the model where that is possible; every broken image is
            checked on the model itself (:mod:`metrics.engine.evaluator`).
        early_exit: count every visited image; False counts what a call of the attack returns, its
            last iterate for PGD.

    Raises:
        ValueError: no images, labels or logits that do not fit, images outside [0, 1], a model
            made under ``inference_mode``.
    """
    state = None if generator is None else generator.get_state()
    with evaluator(
        model, images, labels, batch_size=batch_size, fast=fast, early_exit=early_exit
    ) as ready:
        clean = ~ready.wrong(images, labels)
        robust, zero, nonfinite = clean.clone(), 0, 0
        right = clean.nonzero().squeeze(1)
        if len(right):
            found = ready.search(attack, images[right], labels[right], generator)
            robust[right] = ~found.broken
            zero, nonfinite = int(found.zero_gradients.sum()), int(found.nonfinite_gradients.sum())
    accuracy, stderr = _share(robust)
    spent = ready.spent
    return AttackResult(
        accuracy,
        stderr,
        robust,
        clean,
        zero,
        nonfinite,
        spent.forwards,
        spent.backwards,
        attack,
        ready.batch_size,
        fast,
        early_exit,
        state,
    )


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
        epsilons: distinct, in [0, 1], in any order; 0 is clean accuracy.

    Raises:
        ValueError: no epsilons or a repeated one, and as in :func:`robust_accuracy`.
    """
    levels = sorted(epsilons)
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(f"epsilons: expected one or more distinct values, got {list(epsilons)}")
    attacks = [attack.with_epsilon(epsilon) for epsilon in levels]
    with evaluator(model, images, labels, batch_size=batch_size, fast=fast) as ready:
        clean_wrong, zero, nonfinite = ready.wrong(images, labels), 0, 0
        # The index of the smallest epsilon that breaks the image; len(levels) where none does.
        breaks = torch.where(clean_wrong, 0, len(levels))
        for level in reversed(range(len(levels))):
            todo = ((breaks == level + 1) & ~clean_wrong).nonzero().squeeze(1)
            if len(todo) and levels[level] > 0:
                x, y = images[todo], labels[todo]
                found = ready.search(attacks[level], x, y, generator)
                if level == len(levels) - 1:
                    zero = int(found.zero_gradients.sum())
                    nonfinite = int(found.nonfinite_gradients.sum())
                b = found.broken
                breaks[todo[b]] = _shrink(
                    ready, x[b], found.images[b], y[b], levels[: level + 1], attack.distance
                )
        robust = torch.stack([breaks > level for level in range(len(levels))])
    shares = [_share(mask) for mask in robust]
    return Curve(
        tuple(levels),
        tuple(accuracy for accuracy, _ in shares),
        tuple(stderr for _, stderr in shares),
        robust,
        zero,
        nonfinite,
        ready.spent.forwards,
        ready.spent.backwards,
    )


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
    if not attacks:
        raise ValueError("attacks: expected at least one, got none")
    with evaluator(model, images, labels, batch_size=batch_size, fast=fast) as ready:
        broken_by = torch.where(ready.wrong(images, labels), -1, len(attacks))
        accuracies, zero, nonfinite = [], 0, 0
        for number, attack in enumerate(attacks):
            standing = (broken_by == len(attacks)).nonzero().squeeze(1)
            if len(standing):
                found = ready.search(attack, images[standing], labels[standing], generator)
                broken_by[standing[found.broken]] = number
                zero = max(zero, int(found.zero_gradients.sum()))
                nonfinite = max(nonfinite, int(found.nonfinite_gradients.sum()))
            accuracies.append(_share(broken_by == len(attacks))[0])
    robust = broken_by == len(attacks)
    spent = ready.spent
    return Cascade(
        *_share(robust),
        robust,
        tuple(accuracies),
        broken_by,
        zero,
        nonfinite,
        spent.forwards,
        spent.backwards,
    )


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
    delta = adversarial - x
    length = length_of(delta, norm).clamp_min(1e-30)
    reach = torch.tensor(levels, device=x.device, dtype=x.dtype)
    low = torch.zeros(len(x), dtype=torch.long, device=x.device)
    high = torch.full_like(low, len(levels) - 1)
    # At once as small as the perturbation itself is.
    high = torch.minimum(high, torch.searchsorted(reach, length * (1 - 1e-6)))
    while (open_ := (low < high).nonzero().squeeze(1)).numel():
        middle = (low[open_] + high[open_]) // 2
        share = (reach[middle] / length[open_]).clamp_max(1)
        shrunk = (x[open_] + column(share) * delta[open_]).clamp_(0, 1)
        wrong = ready.wrong(shrunk, labels[open_])
        high[open_] = torch.where(wrong, middle, high[open_])
        low[open_] = torch.where(wrong, low[open_], middle + 1)
    return high


def _share(mask: Tensor) -> tuple[float, float]:
    """Return the share that is True, and its standard error."""
    share = mask.double().mean().item()
    return share, standard_error(share, len(mask))
