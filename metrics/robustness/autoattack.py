"""AutoAttack: four attacks without a parameter to set, the worst case over which is reported.

Source: Croce and Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks* (arXiv 2003.01690), the ``standard`` version: Auto-PGD on the cross
entropy, targeted Auto-PGD on the difference of logits ratio, targeted FAB and Square, in this order
and with these budgets, each on the images that the ones before it left.

A difference of logits ratio towards a class needs four of them. With fewer, targeted Auto-PGD
climbs the cross entropy towards each other class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metrics.answers import logits_of
from metrics.attacks import APGD, FAB, Attack, Square, SquareL2, TargetedAPGD
from metrics.attacks.geometry import check_length, check_norm
from metrics.engine.evaluator import evaluator
from metrics.metric import Metric
from metrics.robustness.accuracy import standard_error, wilson
from metrics.robustness.cascade import Cascade, cascade

VERSIONS = ("standard",)
ATTACKERS = ("apgd_ce", "apgd_t", "fab_t", "square")
STEPS, TARGETS, QUERIES = 100, 9, 5000
LEAST_CLASSES = 4  # of the targeted difference of logits ratio
SAME = 1e-3  # change of a logit, over the largest, that is none


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Metric):
    """Accuracy left by AutoAttack's standard suite, the worst case over four attacks.

    ``_by_...`` is the share of images that each attack broke, of those that the ones before it
    left. ``_zero_gradients`` and ``_nonfinite_gradients`` are as of any attack; ``_randomized`` is
    the share of images whose logits change from pass to pass: the suite is not made for such
    models, whose accuracy it overrates.

    Args:
        norm: ``linf`` or ``l2``.
        epsilon: radius of the ball.
        version: ``standard``, the only one.
        steps: of Auto-PGD and FAB; ``targets`` classes of their targeted versions; ``queries`` of
            Square. Fewer than the defaults are no AutoAttack any more.

    Raises:
        ValueError: an unknown norm or version, and what an attack refuses.
    """

    default_label: ClassVar[str] = "autoattack"
    suffixes: ClassVar[tuple[str, ...]] = (
        "_accuracy",
        "_accuracy_stderr",
        "_accuracy_low",
        "_accuracy_high",
        *(f"_by_{name}" for name in ATTACKERS),
        "_zero_gradients",
        "_nonfinite_gradients",
        "_randomized",
    )
    norm: str = "linf"
    epsilon: float = 8 / 255
    version: str = "standard"
    steps: int = STEPS
    targets: int = TARGETS
    queries: int = QUERIES

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_length("epsilon", self.epsilon, self.norm, zero=True)
        if self.version not in VERSIONS:
            raise ValueError(f"version: expected one of {list(VERSIONS)}, got {self.version!r}")
        self.attacks(LEAST_CLASSES)

    def attacks(self, classes: int) -> tuple[Attack, ...]:
        """Return the attacks in their order, for a model of so many classes."""
        return standard_attacks(
            classes,
            norm=self.norm,
            epsilon=self.epsilon,
            steps=self.steps,
            targets=self.targets,
            queries=self.queries,
        )

    def run(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        fast: bool = True,
    ) -> Cascade:
        """Return what the suite leaves, image by image; arguments as of :func:`cascade`."""
        with evaluator(model, images, labels, batch_size=batch_size, fast=False) as ready:
            classes = logits_of(ready.model, ready.images[:1]).shape[1]
        return cascade(
            model,
            images,
            labels,
            self.attacks(classes),
            generator=generator,
            batch_size=batch_size,
            fast=fast,
        )

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = self.run(model, images, labels, generator=generator)
        n = len(labels)
        return (
            found.accuracy,
            standard_error(found.accuracy, n),
            *wilson(found.accuracy, n),
            *((found.broken_by == i).double().mean().item() for i in range(len(ATTACKERS))),
            found.zero_gradients / n,
            found.nonfinite_gradients / n,
            randomized(model, images, labels),
        )


def standard_attacks(
    classes: int,
    *,
    norm: str = "linf",
    epsilon: float = 8 / 255,
    steps: int = STEPS,
    targets: int = TARGETS,
    queries: int = QUERIES,
) -> tuple[Attack, ...]:
    """Return the attacks of AutoAttack's standard version, in its order.

    Args:
        classes: of the model: with fewer than 4, the targeted loss is the cross entropy.
        norm, epsilon: of all.
        steps, targets, queries: as of :class:`AutoAttack`.
    """
    ball: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "steps": steps}
    loss = "dlr" if classes >= LEAST_CLASSES else "ce"
    square = Square if norm == "linf" else SquareL2
    return (
        APGD(**ball),
        TargetedAPGD(**ball, loss=loss, targets=targets),
        FAB(**ball, targets=targets),
        square(epsilon=epsilon, queries=queries),
    )


def randomized(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose logits change from one pass to the next."""
    with evaluator(model, images, labels, fast=False) as ready:
        changed = 0
        for x in ready.images.split(ready.batch_size):
            once, again = (logits_of(ready.model, x).nan_to_num() for _ in range(2))
            change = (once - again).abs().amax(dim=1)
            changed += int((change > SAME * once.abs().amax(dim=1)).sum())
    return changed / len(labels)
