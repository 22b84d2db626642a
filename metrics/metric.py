"""What a metric is: a value that, called with (model, images, labels), returns named floats.

``label`` names them: two PGD metrics in one configuration are told apart by theirs (``as: pgd20``
gives ``pgd20_accuracy``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A named way to score a model.

    Args:
        label: begins the names of the scores; empty takes the metric's own.
        limit: use only the first so many images; None uses all.

    Raises:
        ValueError: limit below 1, or a setting that the metric refuses.
    """

    stage: ClassVar[str] = "end"  # of a trial: init, before training; epoch1, after one; end
    default_label: ClassVar[str]  # empty where the suffixes are whole names
    suffixes: ClassVar[tuple[str, ...]] = ("_accuracy", "_accuracy_stderr")
    label: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"expected limit >= 1, got {self.limit}")

    @property
    def prefix(self) -> str:
        """The beginning of every score's name."""
        return self.label or self.default_label

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the scores, in the order of :meth:`measure`'s values."""
        joint = "_" if self.prefix and not self.default_label else ""
        return tuple(f"{self.prefix}{joint}{suffix}" for suffix in self.suffixes)

    @property
    def about(self) -> str:
        """One line for a list of metrics."""
        return first_line(self)

    def settings(self) -> dict[str, Any]:
        """Return what a configuration says of it, the label aside."""
        return {name: value for name, value in asdict(self).items() if name != "label"}

    def identity(self) -> tuple[str, Mapping[str, Any]]:
        """Return a name and the settings that its random draws follow from.

        Trials are replayed from their ledger, so this stays as it is for a metric that is there.
        """
        return type(self).__name__, self.settings()

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, float]:
        """Return the scores.

        Args:
            model: images in [0, 1] to logits; left as found.
            images: ``(N, C, H, W)`` in [0, 1].
            labels: ``(N,)``.
            generator: decides every random draw of the metric.
        """
        values = self.measure(model, images[: self.limit], labels[: self.limit], generator)
        return dict(zip(self.score_names, map(float, values), strict=True))

    @abstractmethod
    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        """Return one value for each of ``suffixes``."""


def first_line(value: object) -> str:
    """Return the first line of the docstring of a value's class."""
    return (type(value).__doc__ or "").strip().partition("\n")[0]
