"""Datasets by name: scikit-learn's digits, random noise, and those of torchvision."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.arrays import Images, held_out
from nas.data.config import DataConfig
from nas.data.pictures import ImageFiles
from nas.data.places import data_root
from nas.errors import InputError, first_line

NOISE_SIDE, NOISE_CLASSES = 64, 101  # the classes of Food-101
UNREADABLE = (
    RuntimeError, OSError, ValueError, AssertionError, EOFError, KeyError, struct.error, zlib.error,
    pickle.UnpicklingError,
)  # fmt: skip


def digits(config: DataConfig, train: bool) -> Images:
    """Return scikit-learn's 1,797 digits of 8 × 8 pixels, every fifth of a class a test image."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images[:, None] / 16).astype(np.float32)
    names = tuple(str(name) for name in bunch.target_names)
    labels = bunch.target.astype(np.int64)
    chosen = held_out(labels, train)
    return Images(pixels[chosen], labels[chosen], names)


def noise(config: DataConfig, train: bool) -> Images:
    """Return N(0, 1) pixels, for what is measured of untrained nets; they are not in [0, 1]."""
    side = config.image_size or NOISE_SIDE
    labels = np.arange(NOISE_CLASSES * 4, dtype=np.int64) % NOISE_CLASSES
    rng = np.random.default_rng(int(train))
    pixels = rng.standard_normal((len(labels), 3, side, side), dtype=np.float32)
    return Images(pixels, labels, tuple(map(str, range(NOISE_CLASSES))))


def torchvision_arrays(class_name: str, folder: str) -> Callable[[DataConfig, bool], Images]:
    """Return the reader of a torchvision dataset that holds its images as one array."""

    def read(config: DataConfig, train: bool) -> Images:
        dataset = _torchvision(class_name, folder, config, train=train)
        pixels = np.asarray(dataset.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        labels = np.asarray(dataset.targets, dtype=np.int64)
        return Images(np.ascontiguousarray(pixels), labels, tuple(map(str, dataset.classes)))

    return read


def torchvision_files(
    class_name: str, folder: str, samples: str, side: int
) -> Callable[[DataConfig, bool], ImageFiles]:
    """Return the reader of a torchvision dataset of image files."""

    def read(config: DataConfig, train: bool) -> ImageFiles:
        dataset = _torchvision(class_name, folder, config, split="train" if train else "test")
        if samples:
            files, labels = zip(*getattr(dataset, samples), strict=True)
        else:
            files, labels = dataset._image_files, dataset._labels
        names = tuple(getattr(dataset, "classes", range(max(labels) + 1)))
        return ImageFiles(
            tuple(map(Path, files)),
            np.asarray(labels, dtype=np.int64),
            tuple(map(str, names)),
            config.image_size or side,
        )

    return read


def _torchvision(class_name: str, folder: str, config: DataConfig, **part: Any) -> Any:
    from torchvision import datasets

    root = data_root(config)
    try:
        return getattr(datasets, class_name)(str(root), download=config.download, **part)
    except UNREADABLE as error:
        raise InputError(
            f"data: {config.name} was not found: expected its files in {root / folder}; put them "
            "there, set PSINAS_DATA or data.root to where they are, or set data.download=true "
            f"({first_line(error)})"
        ) from error
