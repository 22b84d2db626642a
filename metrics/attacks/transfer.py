"""Transfer: adversarial images made on one model and shown to another (Szegedy et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.answers import predicted
from metrics.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Attack ``source`` and return its adversarial images: a black-box attack on the model.

    Args:
        source: the model whose gradients are used; left as found.
        attack: the attack on it; its epsilon is this attack's.

    Raises:
        ValueError: an attack towards given labels.
    """

    uses_gradients: ClassVar[bool] = False
    source: nn.Module = field(compare=False)
    attack: Attack
    epsilon: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.attack.towards == "labels":
            raise ValueError("attack: expected one that chooses its own target, got target labels")
        object.__setattr__(self, "epsilon", self.attack.epsilon)
        super().__post_init__()

    @property
    def distance(self) -> str:
        return self.attack.distance

    def check_reach(self, images: Tensor) -> None:
        self.attack.check_reach(images)

    def with_epsilon(self, epsilon: float) -> Transfer:
        return replace(self, attack=self.attack.with_epsilon(epsilon))

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        labels = predicted(model, x) if labels is None else labels
        return self.attack(self.source, x, labels, generator=generator)
