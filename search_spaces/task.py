"""What a model must fit: the shape of its images, its classes, and how pixels are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """What a model must fit: images in, logits out.

    Attributes:
        shape: ``(C, H, W)`` of one image.
        classes: number of logits.
        mean, std: per channel, of the training images in [0, 1]; the model normalises with them.
    """

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def plain(cls, shape: tuple[int, int, int], classes: int) -> Task:
        """Return a task whose model does not normalise (mean 0, std 1)."""
        return cls(shape, classes, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Task:
        """Return the task that :meth:`to_dict` wrote."""
        channels, height, width = value["shape"]
        return cls(
            (channels, height, width), value["classes"], tuple(value["mean"]), tuple(value["std"])
        )
