"""Images in a directory for each class: ``ROOT/CLASS/*.png``, or ``ROOT/train`` and ``ROOT/test``.

What is hidden (its name begins with a dot), what operating systems leave and what is no image file
is passed over. Directories that could be classes or something else are refused.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.arrays import held_out
from nas.data.config import DataConfig
from nas.data.pictures import ImageFiles
from nas.data.places import find_path
from nas.errors import InputError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TRAINING = ("train", "training")
OTHERS = ("test", "testing", "val", "valid", "validation")
"""Names of the directory that holds test images; the first that is there is read."""
LEFT_BY_SYSTEMS = {
    "__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information",
}  # fmt: skip
SIDE = 64  # pixels, where ``data.image_size`` names none


@dataclass(frozen=True)
class _Place:
    """A directory: its image files and its directories, sorted."""

    path: Path
    images: tuple[Path, ...]
    directories: tuple[Path, ...]


def find_folder(config: DataConfig, path: Path, train: bool) -> ImageFiles:
    """Return the image files of one part of a folder.

    A directory ``train`` that holds directories makes those its classes, with the test images in
    ``test`` or, without one, in ``val``. Without such a one every fifth image of each class is a
    test image.

    Args:
        config: says where a relative path lies, and to what size images are brought.
        path: of the folder.
        train: the training part, else the test part.

    Raises:
        InputError: no class, one without images, or directories that may be no classes.
    """
    path = find_path(config, path)
    parts = _parts(path)
    side = config.image_size or SIDE
    learned = _classes(parts.get("train", path))
    names = tuple(learned)
    if "test" in parts and not train:
        shown = _classes(parts["test"])
        if unknown := sorted(set(shown) - set(learned)):
            raise InputError(
                f"{parts['test']}: expected classes of {parts['train']}, got also {unknown}"
            )
    else:
        shown = learned
    files = tuple(file for name in shown for file in shown[name])
    number = {name: label for label, name in enumerate(names)}
    labels = np.asarray([number[n] for n in shown for _ in shown[n]], dtype=np.int64)
    kept = None if "test" in parts else held_out(labels, train)
    return ImageFiles(files, labels, names, side, kept)


def _parts(root: Path) -> dict[str, Path]:
    """Return the directories of parts, ``train`` and ``test``, if there are any."""
    found: dict[str, Path] = {}
    for directory in _look(root).directories:
        name = directory.name.lower()
        if name in (*TRAINING, *OTHERS) and _holds_classes(directory):
            if name in found:
                raise InputError(f"data: expected one directory {name} in {root}, got two")
            found[name] = directory
    trains = [found[name] for name in TRAINING if name in found]
    others = [found[name] for name in OTHERS if name in found]
    if others and not trains:
        raise InputError(
            f"data: expected a directory train beside {others[0]}, got none: training images of "
            "each class lie there"
        )
    parts = {"train": trains[:1], "test": others[:1]}
    return {part: place for part, places in parts.items() for place in places}


def _holds_classes(directory: Path) -> bool:
    """Whether a directory holds directories and no images: a part, and no class of that name."""
    place = _look(directory)
    return bool(place.directories) and not place.images


def _classes(root: Path) -> dict[str, list[Path]]:
    """Return class -> its image files, both in the order of their names.

    Raises:
        InputError: there is none, one has no images, or they may be no classes.
    """
    directories = _look(root).directories
    if not directories:
        raise InputError(f"data: expected one directory of images a class in {root}, got none")
    _refuse_same(root, directories)
    _refuse_nested(root, directories)
    found = {_name(directory): _images_in(directory) for directory in directories}
    if empty := [name for name, files in found.items() if not files]:
        raise InputError(
            f"data: expected one directory of images a class in {root}, got no image "
            f"({', '.join(SUFFIXES)}) in {', '.join(empty)}"
        )
    return found


def _refuse_same(root: Path, directories: tuple[Path, ...]) -> None:
    """Refuse two classes of one name, the case of its letters aside, or of one directory."""
    by_name: dict[str, Path] = {}
    by_place: dict[str, Path] = {}
    for directory in directories:
        for same, key in ((by_name, _name(directory).casefold()),
                          (by_place, os.path.realpath(directory))):  # fmt: skip
            if (other := same.setdefault(key, directory)) is not directory:
                raise InputError(
                    f"data: expected different classes in {root}, got {other.name!r} and "
                    f"{directory.name!r}"
                )


def _refuse_nested(root: Path, directories: tuple[Path, ...]) -> None:
    """Refuse ``a/cat``, ``b/cat``: whether a and b are the classes, or cat, nobody can tell."""
    inner = Counter(
        inside.name.casefold()
        for directory in directories
        if _holds_classes(directory)
        for inside in _look(directory).directories
    )
    if twice := [name for name, count in inner.items() if count > 1]:
        raise InputError(
            f"data: expected images in each class directory of {root}, got directories: "
            f"{', '.join(sorted(twice))} in several of {', '.join(d.name for d in directories)}; "
            "call the directories of parts train and test"
        )


def _name(directory: Path) -> str:
    """Return a class's name: composed characters, whatever the file system keeps."""
    try:
        directory.name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"data: expected class names in UTF-8, got {ascii(directory.name)}"
        ) from error
    return unicodedata.normalize("NFC", directory.name)


def _images_in(directory: Path) -> list[Path]:
    """Return the image files in a directory and below it, each directory once."""
    above = Path(os.path.realpath(directory))
    seen: set[str] = set()
    places: list[_Place] = []
    todo = [directory]
    while todo:
        place = todo.pop()
        real = os.path.realpath(place)
        if place != directory and (Path(real) == above or Path(real) in above.parents):
            raise InputError(
                f"data: expected images in {directory}, got a link that leads back up: {place}"
            )
        if real not in seen:
            seen.add(real)
            places.append(_look(place))
            todo += places[-1].directories
    places.sort(key=lambda place: str(place.path))
    return [file for place in places for file in place.images]


def _look(directory: Path) -> _Place:
    """Return what a directory holds, what plays no part left out.

    Raises:
        InputError: it cannot be read, or something that is no file is called like an image.
    """
    images: list[Path] = []
    directories: list[Path] = []
    try:
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in LEFT_BY_SYSTEMS:
                continue
            if entry.is_dir():
                directories.append(directory / entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                if not entry.is_file():
                    raise InputError(f"data: expected an image, got {directory / entry.name}, "
                                     "which is no file or a link to none")  # fmt: skip
                images.append(directory / entry.name)
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"data: expected one directory of images a class, got {directory}: {first_line(error)}"
        ) from error
    return _Place(directory, tuple(images), tuple(directories))
