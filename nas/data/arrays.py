"""Images as arrays that live on the device: no loader workers, no transforms in Python.

:func:`prepare` takes a dataset's training images (``nas.data.datasets`` reads them), picks classes,
splits off the validation images and caps the sizes; a :class:`Split` is the result on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.checksum import of_arrays
from nas.data.config import DataConfig
from nas.errors import InputError, NoImages
from nas.seeds import derive_seed
from search_spaces.task import Task

HELD_OUT = 5  # a dataset without a test part gives every fifth image of each class to one


@dataclass(frozen=True)
class Images:
    """Images as they were read.

    Attributes:
        pixels: ``(N, C, H, W)``, uint8 in 0...255 or float32 in [0, 1].
        labels: ``(N,)`` int64.
        class_names: the name of every label.
        validation: ``(N,)`` bool: which of them whoever made the dataset set aside to judge models
            on; None leaves that to ``data.validation_share``.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    validation: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        dtype, shape = self.pixels.dtype, self.pixels.shape
        if self.pixels.ndim != 4 or dtype not in (np.uint8, np.float32) or 0 in shape[1:]:
            raise InputError(f"images: expected uint8 or float32 (N, C, H, W), got {dtype} {shape}")
        if dtype == np.float32 and not np.isfinite(self.pixels).all():
            raise InputError("images: expected finite pixels, got some that are not")
        if shape[0] == 0:
            raise NoImages("images: expected one or more, got none")
        if len(self.labels) != shape[0]:
            raise InputError(f"expected one label an image, got {len(self.labels)} for {shape[0]}")
        known = len(self.class_names)
        if self.labels.min() < 0 or self.labels.max() >= known:
            low, high = self.labels.min(), self.labels.max()
            raise InputError(f"labels: expected 0 ... {known - 1}, got {low} ... {high}")

    def checksum(self) -> str:
        """Return 16 hex digits over pixels and labels."""
        return of_arrays(self.pixels, self.labels)


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


def prepare(images: Images, config: DataConfig, device: torch.device | str = "cpu") -> Data:
    """Return the train and validation images of ``config`` on ``device``.

    The split is stratified and depends on ``config.seed`` alone: a smaller ``limit`` gives the
    first images of the larger one's. Images that were set aside are the validation images, whatever
    ``validation_share`` says. Shuffled labels are those of the images that the limit leaves,
    so that class shares stay; another limit shuffles them otherwise.

    Raises:
        InputError: unknown classes, ones without images, or too few images to split.
    """
    pixels, labels, classes = _pick_classes(images, config)
    _refuse_empty_classes(labels, classes, config)
    order = stratified_order(labels, config.seed)
    if images.validation is None:
        aside = np.arange(len(order)) < round(config.validation_share * len(order))
    else:
        aside = images.validation[_of_classes(images, config)][order]
        _refuse_empty_classes(labels[order[~aside]], classes, config)
    validation = order[aside][: config.limit.validation]
    train = order[~aside][: config.limit.train]
    if not len(train) or not len(validation):
        raise InputError(
            f"{config.name}: expected images for training and for validation, got {len(train)} "
            f"and {len(validation)} (validation_share {config.validation_share:.3g})"
        )
    chosen = pixels[train]
    given = labels[train]
    if config.shuffled_labels:
        rng = np.random.default_rng(derive_seed(config.seed, "shuffled labels"))
        given = rng.permutation(given)
    mean, std = _moments(chosen)
    task = Task(tuple(pixels.shape[1:]), classes, mean, std)
    return Data(
        _split(chosen, given, device),
        _split(pixels[validation], labels[validation], device),
        task,
    )


def prepare_test(images: Images, config: DataConfig, device: torch.device | str = "cpu") -> Split:
    """Return the images of ``load_test_images``, classes picked and size capped."""
    pixels, labels, _ = _pick_classes(images, config)
    chosen = stratified_order(labels, config.seed)[: config.limit.test]
    return _split(pixels[chosen], labels[chosen], device)


def chosen_test_indices(images: Images, config: DataConfig) -> NDArray[np.int64]:
    """Return ``(N,)``: the images of :func:`prepare_test`, by their places in what is given it."""
    _, labels, _ = _pick_classes(images, config)
    kept = _of_classes(images, config)
    return kept[stratified_order(labels, config.seed)[: config.limit.test]]


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


def held_out(labels: NDArray[np.int64], train: bool) -> NDArray[np.bool_]:
    """Return ``(N,)``: which images are of a part, of a dataset that has no test part.

    Every fifth image of each class is one of the test part.
    """
    order = stratified_order(labels, seed=0)
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[order[: len(order) // HELD_OUT]] = True
    return ~in_test if train else in_test


def _refuse_empty_classes(labels: NDArray[np.int64], classes: int, config: DataConfig) -> None:
    """Refuse classes without training images: outputs that nothing is ever learned of."""
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    if len(present) < 2:
        raise InputError(
            f"{config.name}: expected two or more classes with images, got {len(present)}"
        )
    if not (empty := np.flatnonzero(counts == 0)).size:
        return
    asked = config.classes or range(classes)
    some = ", ".join(str(asked[label]) for label in empty[:5]) + ", ..." * (len(empty) > 5)
    raise InputError(
        f"{config.name}: expected training images of every label, got none of {some} ({len(empty)} "
        f"of {classes}): number the classes from 0, or pick those with images by data.classes"
    )


def _of_classes(images: Images, config: DataConfig) -> NDArray[np.intp]:
    """Return the places of the images that :func:`_pick_classes` picks."""
    if config.classes is None:
        return np.arange(len(images.labels))
    return np.flatnonzero(np.isin(images.labels, config.classes))


def _pick_classes(
    images: Images, config: DataConfig
) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    known = len(images.class_names)
    every = _with_channels(images.pixels, config)
    if config.classes is None:
        return every, images.labels, known
    if not set(config.classes) <= set(range(known)):
        raise InputError(
            f"data.classes: expected labels of {config.name}, 0 ... {known - 1}, "
            f"got {list(config.classes)}"
        )
    renumbered = np.full(known, -1, dtype=np.int64)
    renumbered[list(config.classes)] = np.arange(len(config.classes))
    labels = renumbered[images.labels]
    return every[labels >= 0], labels[labels >= 0], len(config.classes)


def _with_channels(pixels: NDArray[Any], config: DataConfig) -> NDArray[Any]:
    """Return images of as many channels as are asked for: a view, where grey is copied."""
    own = pixels.shape[1]
    if config.channels in (None, own):
        return pixels
    if own != 1:
        raise InputError(
            f"data.channels: expected null for images of {own} channels, got {config.channels}"
        )
    return np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:]))


def _split(pixels: NDArray[Any], labels: NDArray[np.int64], device: torch.device | str) -> Split:
    # An axis of length 1 may have any stride, and keeps it: of grey images torch then guesses
    # another layout, and sums in another order, in one process than in the next. Empty tensors
    # have the one stride that fits.
    ours = torch.empty(pixels.shape, dtype=torch.from_numpy(pixels[:0]).dtype)
    ours.copy_(torch.from_numpy(pixels))
    return Split(ours.to(device), torch.tensor(labels, device=device))


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
