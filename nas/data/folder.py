"""Images in a directory for each class, perhaps below ``train``, ``val`` and ``test``.

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
NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Part -> the names of its directory, in any case."""
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

    A directory ``train`` that holds directories makes those its classes. Beside it, ``test`` holds
    the test images and ``val`` those that the search is judged on; of one without the other, either
    holds the test images, which no search sees. Without both every fifth image of each class is a
    test image.

    Args:
        config: says where a relative path lies, and to what size images are brought.
        path: of the folder.
        train: the training part, validation images included; else the test part.

    Raises:
        InputError: no class, one without images, or directories that may be no classes; a part with
            a class that ``train`` has not.
    """
    path = find_path(config, path)
    parts = _parts(path)
    side = config.image_size or SIDE
    learned = _classes(parts.get("train", path))
    names = tuple(learned)
    shown = [_known(parts["test"], learned, parts) if "test" in parts and not train else learned]
    if train and "validation" in parts:
        shown.append(_known(parts["validation"], learned, parts))
    files = tuple(file for part in shown for name in part for file in part[name])
    number = {name: label for label, name in enumerate(names)}
    labels = np.asarray([number[n] for part in shown for n in part for _ in part[n]], np.int64)
    kept = None if "test" in parts else held_out(labels, train)
    aside = None
    if len(shown) > 1:
        aside = np.arange(len(labels)) >= sum(map(len, learned.values()))
    return ImageFiles(files, labels, names, side, kept, aside)


def told_of_folder(config: DataConfig, path: Path) -> str:
    """Return one line: which images of a folder are of which part, and what is done with each.

    Raises:
        InputError: as of :func:`find_folder`.
    """
    found = find_folder(config, path, train=True)
    tested = int(find_folder(config, path, train=False).kept_here.sum())
    root = find_path(config, path)
    parts = _parts(root)
    images = int(found.kept_here.sum())
    test = f"{tested} test images ({_of(parts, 'test', 'every fifth of each class')})"
    if found.validation is None:
        learned = f"{images} images to train on, {config.validation_share:.3g} of them to validate"
    else:
        aside = int(found.validation.sum())
        learned = f"{images - aside} training images ({parts['train'].name})"
        learned += f", {aside} validation images ({parts['validation'].name})"
    side = found.side
    return (
        f"{root}: {len(found.class_names)} classes, {learned}, {test}; each resized until its "
        f"shorter side is {side}, its centre of {side} x {side} cut out, in 3 channels "
        "(data.image_size: another side)"
    )


def _of(parts: dict[str, Path], part: str, else_: str) -> str:
    return parts[part].name if part in parts else else_


def _known(
    place: Path, learned: dict[str, list[Path]], parts: dict[str, Path]
) -> dict[str, list[Path]]:
    """Return the classes of a part; one may lack, none may be new.

    Raises:
        InputError: a class that ``train`` has not.
    """
    shown = _classes(place)
    if unknown := sorted(set(shown) - set(learned)):
        raise InputError(f"{place}: expected classes of {parts['train']}, got also {unknown}")
    return shown


def _parts(root: Path) -> dict[str, Path]:
    """Return the directories of ``train``, ``validation`` and ``test``, if there are any.

    Raises:
        InputError: two of one part, or others without ``train``.
    """
    found: dict[str, Path] = {}
    of = {name: part for part, names in NAMES.items() for name in names}
    for directory in _look(root).directories:
        part = of.get(directory.name.lower())
        if part is None or not _holds_classes(directory):
            continue
        if part in found:
            raise InputError(
                f"data: expected one directory of {part} images in {root}, got "
                f"{found[part].name} and {directory.name}"
            )
        found[part] = directory
    if found and "train" not in found:
        other = next(iter(found.values()))
        raise InputError(
            f"data: expected a directory train beside {other}, got none: training images of "
            "each class lie there"
        )
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")  # what no search has seen is worth more
    return found


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
