"""Adversarial against random susceptibility: does noise do what an attack of its size does?

Source: Sutton et al. 2023 (arXiv 2309.03665), section 7, equations 6 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.geometry import length_of
from metrics.checks import check_images
from metrics.engine.evaluator import evaluator
from metrics.engine.sharing import sharing
from metrics.precision import widened
from metrics.robustness.accuracy import wilson
from metrics.robustness.smallest import Smallest, gradient_line
from metrics.showing import brief
from metrics.stability.draws import UnitDraws
from metrics.stability.hits import hits_of

DELTAS = (1.0, 2.0, 5.0, 10.0)
DRAWS = 2000
LENGTH, SCALINGS = 5.0, 256


@dataclass(frozen=True)
class Share:
    """So many of so many, as a number that may not be there.

    Attributes:
        count, of: how many of how many.
    """

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share in [0, 1], NaN of none."""
        return self.count / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval, NaN of none."""
        return wilson(self.value, self.of) if self.of else (math.nan, math.nan)

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % ({self.count} of {self.of})" if self.of else "n/a (of 0)"


@dataclass(frozen=True)
class Stability:
    """What an attack and noise of multiples of its size do to the same images.

    Attributes:
        right: ``(N,)`` bool, the images that the model gets right (C of the paper).
        size: ``(N,)`` float64: e(x), the L2 length of the smallest attack on the line; infinity
            where none was found, NaN where the image is wrong already.
        lengths: ``(3, N)`` float64: its L1, L2 and L infinity norm; NaN where there is none.
        deltas: multiples of e(x), ascending as given.
        hit: ``(deltas, N)`` bool: some draw of δ e(x) is misclassified; False outside of S.
        hits: ``(deltas, N)`` long: how many are; None where only the share was asked for.
        draws: how many there are in the set.
        pixels: n, the values of an image.
        zero_gradients: right images along whose line there is nothing to see.
        forwards, backwards: images that went through the model, and whose gradient came back.
    """

    right: Tensor
    size: Tensor
    lengths: Tensor
    deltas: tuple[float, ...]
    hit: Tensor
    hits: Tensor | None
    draws: int
    pixels: int
    zero_gradients: int
    forwards: int
    backwards: int

    __repr__ = brief

    @property
    def attacked(self) -> Tensor:
        """``(N,)`` bool: right images with an attack on the line (S of the paper)."""
        return self.size.isfinite()

    @property
    def accuracy(self) -> Share:
        """Equation 6: right images of all."""
        return Share(int(self.right.sum()), len(self.right))

    @property
    def adversarial(self) -> Share:
        """Equation 7: images with an attack, of the right ones."""
        return Share(int(self.attacked.sum()), int(self.right.sum()))

    @property
    def random(self) -> tuple[Share, ...]:
        """Equation 8 for each δ: images that some draw breaks, of those with an attack."""
        of = int(self.attacked.sum())
        return tuple(Share(int(hit.sum()), of) for hit in self.hit)

    @property
    def unseen(self) -> float:
        """The 95 % upper bound, for an image that no draw breaks, on the chance that one does.

        The rule of three, 3 / draws. No number of draws makes it 0.
        """
        return min(1.0, 3 / self.draws)

    def norms(self) -> tuple[tuple[float, float], ...]:
        """Return mean and standard deviation of the attacks' L1, L2 and L infinity norms.

        NaN of no attacks; the deviation of one is NaN too.
        """
        found = self.lengths[:, self.attacked]
        return tuple((float(v.mean()), float(v.std()) if len(v) > 1 else math.nan) for v in found)


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    deltas: Sequence[float] = DELTAS,
    draws: int = DRAWS,
    region: str = "ball",
    seed: int = 0,
    mode: str = "margin",
    length: float = LENGTH,
    scalings: int = SCALINGS,
    clip: bool = False,
    count: bool = False,
    batch_size: int | None = None,
    fast: bool = True,
) -> Stability:
    """Return how often an attack, and noise of multiples of its size, break images.

    For each right image, e(x) is the smallest of ``scalings`` equally spaced lengths of its
    gradient that breaks it (:func:`metrics.robustness.smallest.gradient_line`). Then δ e(x) u is
    added to it for each draw u of one set that all images share. e(x) is an upper bound on the
    distance to the boundary: a high random susceptibility can also mean a weak attack.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        deltas: multiples of the attack's length.
        draws: how many random perturbations.
        region: of :data:`metrics.stability.draws.REGIONS`, all of about the same length.
        seed: decides the draws, for every model and every image of this shape.
        mode: of the gradient: ``margin`` (never saturated), ``loss`` (as printed) or
            ``cross-entropy``.
        length: of the longest attack, L2 in pixels of [0, 1].
        scalings: how many lengths, 0 and the longest included.
        clip: put perturbed images back into [0, 1]; the paper does not say that it does.
        count: count the draws that break an image; else it is left alone after the first.
        batch_size: images at a time; None is what suits the model and the device.
        fast: as in :func:`metrics.robustness.accuracy.robust_accuracy`; an image counts as broken
            once the model itself gets it wrong.

    Raises:
        ValueError: a value out of range, and as :func:`metrics.robustness.smallest.gradient_line`.
    """
    levels = check_deltas(deltas)
    images = check_images(images)
    noise = UnitDraws.of(tuple(images.shape[1:]), draws, region=region, seed=seed)
    with sharing(model):
        line = gradient_line(
            model,
            images,
            labels,
            mode=mode,
            length=length,
            scalings=scalings,
            clip=clip,
            batch_size=batch_size,
            fast=fast,
        )
        with evaluator(model, images, labels, batch_size=batch_size, fast=fast) as ready:
            right = ~ready.clean_wrong()
            size = torch.where(right, line.size, torch.nan)
            rows = size.isfinite().nonzero().squeeze(1)
            sizes = torch.stack([level * size for level in levels]).to(widened(images[:0]).dtype)
            hits = hits_of(ready, rows, sizes, noise, clip=clip, count=count)
    spent = ready.spent
    return Stability(
        right,
        size,
        _lengths(line, ready.images, size),
        levels,
        hits > 0,
        hits if count else None,
        draws,
        images[0].numel(),
        line.zero_gradients,
        line.forwards + spent.forwards,
        line.backwards + spent.backwards,
    )


def check_deltas(deltas: Sequence[float]) -> tuple[float, ...]:
    """Return multiples as floats; raise ValueError for none, repeated or negative ones."""
    levels = tuple(map(float, deltas))
    right = all(math.isfinite(level) and level >= 0 for level in levels)
    if not (levels and right and len(set(levels)) == len(levels)):
        raise ValueError(
            f"deltas: expected one or more distinct multiples >= 0, got {list(deltas)}"
        )
    return levels


def _lengths(line: Smallest, images: Tensor, size: Tensor) -> Tensor:
    """Return ``(3, N)`` float64: L1, L2 and L infinity norms of the attacks, else NaN."""
    delta = line.images.double() - images.double()
    norms = (delta.flatten(1).abs().sum(dim=1), *(length_of(delta, n) for n in ("l2", "linf")))
    return torch.stack(norms).where(size.isfinite(), torch.nan)
