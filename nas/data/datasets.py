"""Reads datasets: by name through scikit-learn and torchvision, or from a file or a folder.

A search sees the images of :func:`load_images`; test images come from :func:`load_test_images`
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nas.data import named
from nas.data.arrays import Images
from nas.data.checksum import Checksums, refuse_changed
from nas.data.config import DataConfig
from nas.data.folder import find_folder, told_of_folder
from nas.data.npz import read_npz
from nas.data.pictures import ImageFiles
from nas.data.places import find_path, path_of
from nas.errors import InputError, NoImages


def load_images(config: DataConfig) -> Images:
    """Return all training images of the dataset, validation images included.

    Raises:
        InputError: unknown dataset, or its files are not there; the message says where to put them.
    """
    return _pixels(_find(config, train=True))


def load_test_images(config: DataConfig) -> Images:
    """Return the test images. Nothing that trains or chooses calls this, only what reports."""
    return _pixels(_find(config, train=False))


def load_as_before(
    config: DataConfig, known: Mapping[str, Mapping[str, str]], *, test: bool
) -> Images:
    """Return the images of one part, which must be those that a search saw.

    Args:
        config: which data.
        known: dataset -> part -> checksum, as a run directory or an export keeps them.
        test: test images rather than training ones.

    Raises:
        InputError: they have changed, or cannot be read.
    """
    images = load_test_images(config) if test else load_images(config)
    if expected := known.get(config.name):
        part = {"test" if test else "train": part_checksum(config, images, test=test)}
        refuse_changed(whereabouts(config), expected, part)
    return images


def whereabouts(config: DataConfig) -> str:
    """Return what a dataset is called, and where it was found if that is one place."""
    path = path_of(config.name)
    return config.name if path is None else f"{config.name} ({find_path(config, path)})"


def told_of(config: DataConfig) -> str | None:
    """Return one line on how a folder of images is read; None of other datasets.

    Raises:
        InputError: it cannot be read.
    """
    path = path_of(config.name)
    if path is None or config.name.partition(":")[0] != "folder":
        return None
    return told_of_folder(config, path)


def checksums(config: DataConfig, images: Images | None = None) -> Checksums:
    """Return the checksums of both parts of a dataset; of test images nothing else is learned.

    Args:
        config: which data.
        images: its training images, where they have been read.

    Raises:
        InputError: a part that cannot be read.
    """
    if config.name == "noise":  # made, not read
        return {}
    found = {"train": part_checksum(config, images, test=False)}
    try:
        return {**found, "test": part_checksum(config, test=True)}
    except NoImages:  # a search does not need any
        return found


def part_checksum(config: DataConfig, images: Images | None = None, *, test: bool) -> str:
    """Return the checksum of one part, of the images themselves where they have been read.

    Raises:
        InputError: it cannot be read.
    """
    if images is not None and config.name.partition(":")[0] not in OF_FILES:
        return images.checksum()
    return _find(config, train=not test).checksum()


def check_dataset(name: str) -> None:
    """Refuse a dataset that nobody can read.

    Raises:
        InputError: with the known names.
    """
    if name not in DATASETS and path_of(name) is None:
        known = ", ".join([*DATASETS, *(f"{k}:PATH" for k in READERS_OF_PATHS)])
        raise InputError(f"data.name: expected one of {known}, got {name!r}")


def check_there(config: DataConfig) -> None:
    """Refuse a dataset whose training images cannot be read; files of pictures are only listed.

    Raises:
        InputError: unknown dataset, or its files are not there.
    """
    _find(config, train=True)


def _find(config: DataConfig, *, train: bool) -> Images | ImageFiles:
    check_dataset(config.name)
    if (path := path_of(config.name)) is not None:
        return READERS_OF_PATHS[config.name.partition(":")[0]](config, path, train)
    return DATASETS[config.name](config, train)


def _pixels(found: Images | ImageFiles) -> Images:
    return found if isinstance(found, Images) else found.read()


DATASETS: dict[str, Callable[[DataConfig, bool], Images | ImageFiles]] = {
    "digits": named.digits,
    "mnist": named.torchvision_arrays("MNIST", "MNIST/raw"),
    "fashion-mnist": named.torchvision_arrays("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": named.torchvision_arrays("CIFAR10", "cifar-10-batches-py"),
    "cifar100": named.torchvision_arrays("CIFAR100", "cifar-100-python"),
    "gtsrb": named.torchvision_files("GTSRB", "gtsrb", "_samples", 32),
    "noise": named.noise,
    "food101": named.torchvision_files("Food101", "food-101", "", 64),
}
READERS_OF_PATHS: dict[str, Callable[[DataConfig, Path, bool], Images | ImageFiles]] = {
    "npz": read_npz,
    "folder": find_folder,
}
OF_FILES = ("gtsrb", "food101", "folder")
"""Those whose images are files of their own, which is what is hashed of them."""
