"""One step towards the least likely class. Source: Kurakin et al. 2017 (arXiv 1611.01236)."""

from __future__ import annotations

from dataclasses import dataclass

from metrics.attacks.one_step import OneStep


@dataclass(frozen=True, kw_only=True)
class StepLL(OneStep):
    """Single step towards the least likely class of the clean logits; labels play no part.

    x_adv = clip(x - epsilon sign(grad loss(x, argmin logits(x)))), Kurakin et al. 2017.
    """

    @property
    def towards(self) -> str:
        return "least-likely"
