"""What PGD and Auto-PGD share: gradient ascent from several starts, away from or to a class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metrics.attacks.geometry import check_norm, moved, project, unit, within
from metrics.attacks.iterative import Iterative, check_counts, check_target
from metrics.attacks.rows import Rows
from metrics.precision import widened


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Iterative):
    """An iterative attack along the gradient.

    Args:
        epsilon: radius of the ball.
        steps: number of steps.
        norm: ``linf`` or ``l2``.
        restarts: how often to begin; of each image the start that fooled the model is kept, else
            the one with the larger loss.
        target: None goes away from the label; ``least-likely`` and ``runner-up`` go towards that
            class of the clean logits; ``labels`` towards the labels that the call is given.

    Raises:
        ValueError: as :class:`Attack`; steps or restarts below 1, unknown norm or target.
    """

    steps: int = 7
    norm: str = "linf"
    restarts: int = 1
    target: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_target(self.target)
        check_counts(steps=self.steps, restarts=self.restarts)

    @property
    def distance(self) -> str:
        return self.norm

    @property
    def towards(self) -> str | None:
        return self.target

    @property
    def starts(self) -> int:
        return self.restarts

    @property
    def looks(self) -> int:
        return self.steps

    def surround(self, rows: Rows) -> None:
        """Add to ``rows`` what :meth:`inside` needs to know of the images."""
        if self.norm == "linf":
            rows.low, rows.high = within(rows.x, self.epsilon)

    def inside(self, rows: Rows, images: Tensor) -> Tensor:
        """Return ``images`` moved into the ball around ``rows.x`` and into the box, exactly."""
        if self.norm == "linf":
            return images.to(rows.x.dtype).clamp(rows.low, rows.high)
        delta = widened(images) - widened(rows.x)
        return moved(rows.x, project(delta, self.norm, self.epsilon))

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the longest step of length 1 up this gradient."""
        return gradient.sign() if self.norm == "linf" else unit(gradient)
