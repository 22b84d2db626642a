"""Which images a trial sees: the data part of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.seeds import value_hash


@dataclass(frozen=True)
class Limit:
    """Caps on the sizes; None takes all there is."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    first_fields: ClassVar[tuple[str, ...]] = ("train", "validation", "test")  # see nas.seeds
    train: int | None = None
    validation: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        for field in ("train", "validation", "test"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field}: expected >= 1 or null, got {value}")


@dataclass(frozen=True)
class DataConfig:
    """Which images.

    Args:
        name: a name in ``nas.data.datasets.DATASETS``, ``npz:PATH`` or ``folder:PATH``.
        root: where the files are, and where a relative ``PATH`` is looked for first; None takes
            ``$PSINAS_DATA``, else ``~/.cache/psinas``. A search stores it as an absolute path.
        download: let torchvision download what is missing.
        image_size: side to which ``folder``, ``gtsrb`` and ``food101`` images are resized and
            cropped, and of ``noise``; None is the dataset's usual one.
        channels: 3 copies the one channel of grey images, as nets for colour images want it; None
            leaves them.
        classes: keep these labels only, renumbered from 0 in this order; None keeps all.
        limit: caps on the numbers of images, class shares kept.
        validation_share: share of the training images that the search is judged on.
        seed: decides the split, and the shuffle of labels.
        shuffled_labels: permute the labels of the training images among them (Cubuk et al. 2017):
            each image keeps one label, which is its own by chance alone. Validation and test labels
            stay true, so accuracy on them is that of guessing: what a net learned shows on the
            training images, and ``recipe.selection_images: 0`` keeps its last epoch.

    Raises:
        ValueError: a value out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    first_fields: ClassVar[tuple[str, ...]] = (  # see nas.seeds
        "name", "root", "download", "image_size", "classes", "limit", "validation_share", "seed",
    )  # fmt: skip
    name: str = "digits"
    root: str | None = None
    download: bool = False
    image_size: int | None = None
    channels: int | None = None
    classes: tuple[int, ...] | None = None
    limit: Limit = Limit()
    validation_share: float = 1 / 6
    seed: int = 0
    shuffled_labels: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(
                f"validation_share: expected a share in (0, 1), got {self.validation_share}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected >= 0, got {self.seed}")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size: expected >= 1, got {self.image_size}")
        if self.channels not in (None, 3):
            raise ValueError(f"channels: expected 3 or null, got {self.channels}")
        if self.classes is not None and not len(set(self.classes)) == len(self.classes) >= 2:
            raise ValueError(
                f"classes: expected two or more distinct labels, got {list(self.classes)}"
            )

    @property
    def source(self) -> tuple[str, str | None, int | None]:
        """What reading them depends on."""
        return self.name, self.root, self.image_size

    @property
    def hash(self) -> str:
        """16 hex digits of what decides the images; where the files lie plays no part."""
        return value_hash(self, leave_out=("root", "download"))
