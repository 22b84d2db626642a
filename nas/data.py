"""Datasets as arrays that live on the device: no loader workers, no transforms in Python.

:func:`load_images` reads the training images of a dataset once; :func:`prepare` picks classes,
splits off the validation images and caps the sizes; :class:`Split` holds the result on the device.
A search sees training and validation images. Test images come from :func:`load_test_images` alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import InputError
from nas.seeds import value_hash
from search_spaces.base import Task

HELD_OUT = 5  # a dataset without a test part gives every fifth image of each class to one


@dataclass(frozen=True)
class Limit:
    """Caps on the sizes; None takes all there is."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
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
        name: a name in ``DATASETS``, ``npz:PATH`` or ``folder:PATH``.
        root: where the files are; None takes ``$PSINAS_DATA``, else ``~/.cache/psinas``.
        download: let torchvision download what is missing.
        image_size: side to which ``folder``, ``gtsrb`` and ``food101`` images are resized and
            cropped; None is the dataset's usual one.
        classes: keep these labels only, renumbered from 0 in this order; None keeps all.
        limit: caps on the numbers of images, class shares kept.
        validation_share: share of the training images that the search is judged on.
        seed: decides the split.

    Raises:
        ValueError: a value out of range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str = "digits"
    root: str | None = None
    download: bool = False
    image_size: int | None = None
    classes: tuple[int, ...] | None = None
    limit: Limit = Limit()
    validation_share: float = 1 / 6
    seed: int = 0

    def __post_init__(self) -> None:
        kind, _, path = self.name.partition(":")
        if self.name not in DATASETS and not (path and kind in READERS_OF_PATHS):
            known = ", ".join([*DATASETS, *(f"{k}:PATH" for k in READERS_OF_PATHS)])
            raise ValueError(f"name: expected one of {known}, got {self.name!r}")
        if not 0 < self.validation_share < 1:
            raise ValueError(
                f"validation_share: expected a share in (0, 1), got {self.validation_share}"
            )
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size: expected >= 1, got {self.image_size}")
        if self.classes is not None and not len(set(self.classes)) == len(self.classes) >= 2:
            raise ValueError(
                f"classes: expected two or more distinct labels, got {list(self.classes)}"
            )

    @property
    def source(self) -> tuple[str, str | None, int | None]:
        """What :func:`load_images` depends on."""
        return self.name, self.root, self.image_size

    @property
    def hash(self) -> str:
        """16 hex digits of what decides the images; where the files lie plays no part."""
        return value_hash(self, leave_out=("root", "download"))


@dataclass(frozen=True)
class Images:
    """Images as they were read.

    Attributes:
        pixels: ``(N, C, H, W)``, uint8 in 0...255 or float32 in [0, 1].
        labels: ``(N,)`` int64.
        class_names: the name of every label.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        dtype, shape = self.pixels.dtype, self.pixels.shape
        if self.pixels.ndim != 4 or dtype not in (np.uint8, np.float32) or not len(shape):
            raise InputError(f"images: expected uint8 or float32 (N, C, H, W), got {dtype} {shape}")
        if len(self.labels) != shape[0] or shape[0] == 0:
            raise InputError(f"expected one label an image, got {len(self.labels)} for {shape[0]}")
        known = len(self.class_names)
        if self.labels.min() < 0 or self.labels.max() >= known:
            low, high = self.labels.min(), self.labels.max()
            raise InputError(f"labels: expected 0 ... {known - 1}, got {low} ... {high}")


@dataclass(frozen=True)
class Split:
    """Images on one device: ``pixels`` ``(N, C, H, W)`` uint8 or float32, ``labels`` ``(N,)``."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Return float32 images in [0, 1]."""
        return as_float(self.pixels[indices])


@dataclass(frozen=True)
class Data:
    """What a trial trains on and is judged on, and the task that its model must fit."""

    train: Split
    validation: Split
    task: Task


def as_float(pixels: Tensor) -> Tensor:
    """Return float32 in [0, 1]."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def load_images(config: DataConfig) -> Images:
    """Return all training images of the dataset, validation images included.

    Raises:
        InputError: unknown dataset, or its files are not there; the message says where to put them.
    """
    return _read(config, train=True)


def load_test_images(config: DataConfig) -> Images:
    """Return the test images. Nothing that searches or trains calls this."""
    return _read(config, train=False)


def prepare(images: Images, config: DataConfig, device: torch.device | str = "cpu") -> Data:
    """Return the train and validation images of ``config`` on ``device``.

    The split is stratified and depends on ``config.seed`` alone: a smaller ``limit`` gives the
    first images of the larger one's.

    Raises:
        InputError: unknown classes, or too few images to split.
    """
    pixels, labels, classes = _pick_classes(images, config)
    present = len(np.unique(labels))
    if present < 2:
        raise InputError(f"{config.name}: expected two or more classes with images, got {present}")
    order = stratified_order(labels, config.seed)
    validation_size = round(config.validation_share * len(order))
    validation = order[:validation_size][: config.limit.validation]
    train = order[validation_size:][: config.limit.train]
    if not len(train) or not len(validation):
        raise InputError(
            f"{config.name}: expected images for training and for validation, got {len(train)} "
            f"and {len(validation)} (validation_share {config.validation_share:.3g})"
        )
    chosen = pixels[train]
    mean, std = _moments(chosen)
    task = Task(tuple(pixels.shape[1:]), classes, mean, std)
    return Data(
        _split(chosen, labels[train], device),
        _split(pixels[validation], labels[validation], device),
        task,
    )


def prepare_test(images: Images, config: DataConfig, device: torch.device | str = "cpu") -> Split:
    """Return test images (from :func:`load_test_images`), classes picked and size capped."""
    pixels, labels, _ = _pick_classes(images, config)
    chosen = stratified_order(labels, config.seed)[: config.limit.test]
    return _split(pixels[chosen], labels[chosen], device)


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a shuffled order of the indices of which every prefix has about the class shares.

    The k-th of a class's n images, in random order, stands at (k + U)/n of the way, U in [0, 1).
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(place, kind="stable").astype(np.int64)


def data_root(config: DataConfig) -> Path:
    """Return the directory in which the files of named datasets are looked for."""
    given = config.root or os.environ.get("PSINAS_DATA") or "~/.cache/psinas"
    return Path(given).expanduser()


def _pick_classes(
    images: Images, config: DataConfig
) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    known = len(images.class_names)
    if config.classes is None:
        return images.pixels, images.labels, known
    if not set(config.classes) <= set(range(known)):
        raise InputError(
            f"data.classes: expected labels of {config.name}, 0 ... {known - 1}, "
            f"got {list(config.classes)}"
        )
    renumbered = np.full(known, -1, dtype=np.int64)
    renumbered[list(config.classes)] = np.arange(len(config.classes))
    labels = renumbered[images.labels]
    return images.pixels[labels >= 0], labels[labels >= 0], len(config.classes)


def _split(pixels: NDArray[Any], labels: NDArray[np.int64], device: torch.device | str) -> Split:
    return Split(torch.tensor(pixels, device=device), torch.tensor(labels, device=device))


def _moments(pixels: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel in [0, 1]; a constant one has std 1e-3."""
    means, stds = [], []
    for channel in pixels.swapaxes(0, 1):
        if pixels.dtype == np.uint8:  # exact, and without a float copy of a large dataset
            shares = np.bincount(channel.ravel(), minlength=256) / channel.size
            levels = np.arange(256) / 255
            mean = float(shares @ levels)
            std = float(np.sqrt(shares @ (levels - mean) ** 2))
        else:
            mean = float(channel.mean(dtype=np.float64))
            std = float(channel.std(dtype=np.float64))
        means.append(mean)
        stds.append(max(std, 1e-3))
    return tuple(means), tuple(stds)


# ------------------------------------------------------------------------------------- the readers


def _read(config: DataConfig, *, train: bool) -> Images:
    kind, _, path = config.name.partition(":")
    if path and kind in READERS_OF_PATHS:
        return READERS_OF_PATHS[kind](config, Path(path).expanduser(), train)
    return DATASETS[config.name](config, train)


def _digits(config: DataConfig, train: bool) -> Images:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images[:, None] / 16).astype(np.float32)
    names = tuple(str(name) for name in bunch.target_names)
    return _held_out(pixels, bunch.target.astype(np.int64), names, train)


def _held_out(
    pixels: NDArray[Any], labels: NDArray[np.int64], names: tuple[str, ...], train: bool
) -> Images:
    order = stratified_order(labels, seed=0)
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[order[: len(order) // HELD_OUT]] = True
    chosen = ~in_test if train else in_test
    return Images(pixels[chosen], labels[chosen], names)


def _torchvision_arrays(class_name: str, folder: str) -> Callable[[DataConfig, bool], Images]:
    """Return the reader of a torchvision dataset that holds its images as one array."""

    def read(config: DataConfig, train: bool) -> Images:
        dataset = _torchvision(class_name, folder, config, train=train)
        pixels = np.asarray(dataset.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        labels = np.asarray(dataset.targets, dtype=np.int64)
        return Images(np.ascontiguousarray(pixels), labels, tuple(map(str, dataset.classes)))

    return read


def _torchvision_files(
    class_name: str, folder: str, samples: str, side: int
) -> Callable[[DataConfig, bool], Images]:
    """Return the reader of a torchvision dataset of image files."""

    def read(config: DataConfig, train: bool) -> Images:
        dataset = _torchvision(class_name, folder, config, split="train" if train else "test")
        if samples:
            files, labels = zip(*getattr(dataset, samples), strict=True)
        else:
            files, labels = dataset._image_files, dataset._labels
        names = tuple(getattr(dataset, "classes", range(max(labels) + 1)))
        pixels = _decode([Path(f) for f in files], config.image_size or side)
        return Images(pixels, np.asarray(labels, dtype=np.int64), tuple(map(str, names)))

    return read


def _torchvision(class_name: str, folder: str, config: DataConfig, **part: Any) -> Any:
    from torchvision import datasets

    root = data_root(config)
    try:
        return getattr(datasets, class_name)(str(root), download=config.download, **part)
    except (RuntimeError, FileNotFoundError, OSError) as error:
        raise InputError(
            f"data: {config.name} was not found: expected its files in {root / folder}; put them "
            "there, set PSINAS_DATA or data.root to where they are, or set data.download=true "
            f"({str(error).splitlines()[0]})"
        ) from error


def _npz(config: DataConfig, path: Path, train: bool) -> Images:
    if not path.exists() and (data_root(config) / path).exists():
        path = data_root(config) / path
    part = "train" if train else "test"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys = set(arrays.files)
            if not {"x_train", "y_train", "x_test", "y_test"} <= keys:
                raise InputError(
                    f"{path}: expected arrays x_train, y_train, x_test, y_test, got {sorted(keys)}"
                )
            pixels = arrays[f"x_{part}"]
            labels = {p: _labels(arrays[f"y_{p}"], f"{path}: y_{p}") for p in ("train", "test")}
            names = [str(n) for n in np.atleast_1d(arrays["classes"])] if "classes" in keys else []
    except (OSError, ValueError, EOFError, TypeError, BadZipFile, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"data: expected a readable .npz at {path}, got {error}") from error
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise InputError(
            f"{path}: expected x_{part} as uint8 (N, H, W) or (N, H, W, C), "
            f"got {pixels.dtype} {pixels.shape}"
        )
    # Names beyond the last label are of no class: a stray file in a folder, say.
    count = 1 + int(max(y.max(initial=0) for y in labels.values()))
    names = names[:count] + [str(label) for label in range(len(names), count)]
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Images(pixels, labels[part], tuple(names))


def _labels(array: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Return integer labels ``(N,)``; Keras writes ``(N, 1)``."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what}: expected integer labels (N,), got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def _folder(config: DataConfig, path: Path, train: bool) -> Images:
    from torchvision.datasets import ImageFolder

    parts = [d for d in ("test", "val") if (path / d).is_dir()]
    split = (path / "train").is_dir() and bool(parts)

    def listing(root: Path) -> Any:
        try:
            return ImageFolder(str(root))
        except (FileNotFoundError, OSError) as error:
            raise InputError(
                f"data: expected one directory of images a class in {root}, got {error}"
            ) from error

    learned = listing(path / "train" if split else path)
    shown = learned if train or not split else listing(path / parts[0])
    if unknown := set(shown.classes) - set(learned.classes):
        raise InputError(
            f"{path / parts[0]}: expected classes of {path / 'train'}, got also {sorted(unknown)}"
        )
    renumbered = [learned.class_to_idx[shown.classes[label]] for label in shown.targets]
    pixels = _decode([Path(f) for f, _ in shown.samples], config.image_size or 64)
    labels = np.asarray(renumbered, dtype=np.int64)
    if split:
        return Images(pixels, labels, tuple(learned.classes))
    return _held_out(pixels, labels, tuple(learned.classes), train)


def _decode(files: list[Path], side: int) -> NDArray[np.uint8]:
    """Return ``(N, 3, side, side)`` uint8: shorter side resized to ``side``, centre cropped."""
    from PIL import Image, ImageOps

    def read(path: Path) -> NDArray[np.uint8]:
        try:
            with Image.open(path) as image:
                return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side)), dtype=np.uint8)
        except OSError as error:
            raise InputError(f"data: expected an image, got {path}: {error}") from error

    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(read, files))
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


DATASETS: dict[str, Callable[[DataConfig, bool], Images]] = {
    "digits": _digits,
    "mnist": _torchvision_arrays("MNIST", "MNIST/raw"),
    "fashion-mnist": _torchvision_arrays("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": _torchvision_arrays("CIFAR10", "cifar-10-batches-py"),
    "cifar100": _torchvision_arrays("CIFAR100", "cifar-100-python"),
    "gtsrb": _torchvision_files("GTSRB", "gtsrb", "_samples", 32),
    "food101": _torchvision_files("Food101", "food-101", "", 64),
}
READERS_OF_PATHS: dict[str, Callable[[DataConfig, Path, bool], Images]] = {
    "npz": _npz,
    "folder": _folder,
}
