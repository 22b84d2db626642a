"""Reads datasets: by name through scikit-learn and torchvision, or from a file or a folder.

A search sees the images of :func:`load_images`; test images come from :func:`load_test_images`
alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nas.data.arrays import Images, stratified_order
from nas.data.config import DataConfig
from nas.errors import InputError, first_line

NOISE_SIDE, NOISE_CLASSES = 64, 101  # the classes of Food-101
HELD_OUT = 5  # a dataset without a test part gives every fifth image of each class to one


def load_images(config: DataConfig) -> Images:
    """Return all training images of the dataset, validation images included.

    Raises:
        InputError: unknown dataset, or its files are not there; the message says where to put them.
    """
    return _read(config, train=True)


def load_test_images(config: DataConfig) -> Images:
    """Return the test images. Nothing that trains or chooses calls this, only what reports."""
    return _read(config, train=False)


def check_dataset(name: str) -> None:
    """Refuse a dataset that nobody can read.

    Raises:
        InputError: with the known names.
    """
    kind, _, path = name.partition(":")
    if name not in DATASETS and not (path and kind in READERS_OF_PATHS):
        known = ", ".join([*DATASETS, *(f"{k}:PATH" for k in READERS_OF_PATHS)])
        raise InputError(f"data.name: expected one of {known}, got {name!r}")


def data_root(config: DataConfig) -> Path:
    """Return the directory in which the files of named datasets are looked for."""
    given = config.root or os.environ.get("PSINAS_DATA") or "~/.cache/psinas"
    return Path(given).expanduser()


def _read(config: DataConfig, *, train: bool) -> Images:
    check_dataset(config.name)
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


def _noise(config: DataConfig, train: bool) -> Images:
    """Return N(0, 1) pixels, for what is measured of untrained nets; they are not in [0, 1]."""
    side = config.image_size or NOISE_SIDE
    labels = np.arange(NOISE_CLASSES * 4, dtype=np.int64) % NOISE_CLASSES
    rng = np.random.default_rng(int(train))
    pixels = rng.standard_normal((len(labels), 3, side, side), dtype=np.float32)
    return Images(pixels, labels, tuple(map(str, range(NOISE_CLASSES))))


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
            f"({first_line(error)})"
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
    "noise": _noise,
    "food101": _torchvision_files("Food101", "food-101", "", 64),
}
READERS_OF_PATHS: dict[str, Callable[[DataConfig, Path, bool], Images]] = {
    "npz": _npz,
    "folder": _folder,
}
