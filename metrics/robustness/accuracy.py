"""Clean and robust accuracy, with the standard error and interval that a finite sample leaves.

An image is *broken* when any image that the attack visited, inside the ball and the box, is
misclassified; it is then left alone. So robust accuracy here is at most that of the attack's last
iterate, which other libraries count and ``early_exit=False`` gives. Images that are wrong without
an attack are broken and are not attacked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack
from metrics.attacks.geometry import own_generator
from metrics.engine.evaluator import evaluator
from metrics.showing import brief

QUANTILE = 1.959963984540054  # of the standard normal distribution at 0.975


@dataclass(frozen=True)
class AttackResult:
    """What an attack left standing, and what repeats it.

    Attributes:
        accuracy: share of images that no visited image breaks.
        stderr: its standard error, never 0 (:func:`standard_error`).
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

    __repr__ = brief

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval of the accuracy."""
        return wilson(self.accuracy, len(self.robust))

    def __str__(self) -> str:
        """Return what a person reads: the accuracy, its interval, and what was run."""
        lines = [
            f"robust accuracy {share_text(self.robust)}, clean {share_text(self.clean)}",
            f"under {self.attack}",
            effort_text(self.forwards, self.backwards),
        ]
        return "\n".join([*lines, *gradient_lines(self.zero_gradients, self.nonfinite_gradients)])


def share_text(mask: Tensor) -> str:
    """Return ``81.2 % [77.0, 84.8] (203 of 250)``: a share of images, and its 95 % interval."""
    n, right = len(mask), int(mask.sum())
    low, high = wilson(right / n, n)
    return f"{right / n:.1%} [{100 * low:.1f}, {100 * high:.1f}] ({right} of {n})"


def effort_text(forwards: int, backwards: int) -> str:
    """Return what an attack cost: images through the model, and gradients that came back."""
    return f"{forwards:,} forwards, {backwards:,} backwards"


def gradient_lines(zero: int, nonfinite: int) -> list[str]:
    """Return a line for each reason not to believe a gradient attack, none where there is none."""
    lines = []
    if zero:
        lines.append(f"! {zero} images have no gradient: no gradient attack can move them")
    if nonfinite:
        lines.append(f"! {nonfinite} images have a NaN or infinite gradient")
    return lines


def wilson(share: float, n: int, z: float = QUANTILE) -> tuple[float, float]:
    """Return the ends of the Wilson score interval of a share of ``n``, 95 % by default.

    Unlike share ± z sqrt(p (1 - p) / n) it has a length where the share is 0 or 1, and stays in
    [0, 1]. Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def standard_error(share: float, n: int) -> float:
    """Return the standard error of a share of ``n``: half the Wilson interval at z = 1.

    It is near sqrt(p (1 - p) / n) for middling shares, and 1 / (2 (n + 1)) at 0 and 1.
    """
    low, high = wilson(share, n, z=1.0)
    return (high - low) / 2


def correct(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int | None = None
) -> Tensor:
    """Return ``(N,)`` bool: which images the model, in ``eval()`` mode, gets right.

    A model that answers NaN or infinity gets none of those images right.

    Raises:
        ValueError: no images, labels or logits that do not fit, images outside [0, 1].
    """
    with evaluator(model, images, labels, batch_size=batch_size, fast=False) as ready:
        return ~ready.clean_wrong()


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
        batch_size: images at a time; None is what suits the model and the device.
        fast: attack a folded copy of the model where that is possible; every broken image is
            checked on the model itself (:mod:`metrics.engine.evaluator`).
        early_exit: count every visited image; False counts what a call of the attack returns, its
            last iterate for PGD.

    Raises:
        ValueError: no images, labels or logits that do not fit, images outside [0, 1], a model
            made under ``inference_mode``.
    """
    source = own_generator(generator, torch.device("cpu"))
    state = None if generator is None else source.get_state()
    with evaluator(
        model,
        images,
        labels,
        batch_size=batch_size,
        fast=fast,
        early_exit=early_exit,
        attacks=[attack],
    ) as ready:
        clean = ~ready.clean_wrong()
        robust, zero, nonfinite = clean.clone(), 0, 0
        right = clean.nonzero().squeeze(1)
        if len(right):
            found = ready.search(attack, right, source)
            robust[right] = ~found.broken
            zero, nonfinite = int(found.zero_gradients.sum()), int(found.nonfinite_gradients.sum())
    accuracy, stderr = share_of(robust)
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


def share_of(mask: Tensor) -> tuple[float, float]:
    """Return the share that is True, and its standard error."""
    share = mask.double().mean().item()
    return share, standard_error(share, len(mask))
