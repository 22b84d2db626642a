"""Images and labels in one ``.npz`` of numpy: x_train, y_train, x_test, y_test, and classes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nas.data.arrays import Images
from nas.data.config import DataConfig
from nas.data.places import find_path
from nas.errors import InputError, first_line

KEYS = ("x_train", "y_train", "x_test", "y_test")
MOST_LABELS = 65_536
UNREADABLE = (
    OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile, RuntimeError, KeyError,
    MemoryError, OverflowError, zlib.error, struct.error,
)  # fmt: skip


def read_npz(config: DataConfig, path: Path, train: bool) -> Images:
    """Return one part of an ``.npz``; object arrays are refused and nothing is unpickled.

    Args:
        config: says where a relative path lies.
        path: of a file with x_train and x_test, uint8 ``(N, H, W)`` or ``(N, H, W, C)``, y_train
            and y_test, integers ``(N,)`` or ``(N, 1)``, and perhaps classes, their names.
        train: the training part, else the test part.

    Raises:
        InputError: another file, or arrays of another kind or shape.
    """
    path = find_path(config, path)
    part = "train" if train else "test"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys = set(arrays.files)
            if missing := [key for key in KEYS if key not in keys]:
                raise InputError(
                    f"{path}: expected arrays {', '.join(KEYS)}, got {sorted(keys)} without "
                    f"{', '.join(missing)}"
                )
            headers = {p: _header(arrays, f"x_{p}") for p in ("train", "test")}
            labels = {p: _labels(arrays[f"y_{p}"], f"{path}: y_{p}") for p in headers}
            names = [str(n) for n in np.atleast_1d(arrays["classes"])] if "classes" in keys else []
            _check_headers(path, headers, labels)
            pixels = arrays[f"x_{part}"]
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"data: expected a readable .npz at {path}, got {first_line(error) or type(error)}"
        ) from error
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    # Names beyond the last label are of no class: a stray file in a folder, say.
    count = 1 + max(int(y.max(initial=0)) for y in labels.values())
    names = names[:count] + [str(label) for label in range(len(names), count)]
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return Images(pixels, labels[part], tuple(names))


def _header(arrays: Any, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array without reading it."""
    with arrays.zip.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    return shape, dtype


def _check_headers(
    path: Path,
    headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
    labels: dict[str, NDArray[np.int64]],
) -> None:
    for part, (shape, dtype) in headers.items():
        what = f"{path}: expected x_{part} as uint8 (N, H, W) or (N, H, W, C), got {dtype} {shape}"
        if len(shape) not in (3, 4) or dtype != np.uint8:
            raise InputError(what)
        if len(shape) == 4 and shape[3] > 4 and (shape[1] <= 4 or shape[2] == shape[3] != shape[1]):
            raise InputError(
                f"{what}, which is (N, C, H, W) by its looks: x_{part}.transpose(0, 2, 3, 1) is "
                "what is read"
            )
        if shape[0] != len(labels[part]):
            raise InputError(
                f"{path}: expected one label an image of x_{part}, got {len(labels[part])} for "
                f"{shape[0]}"
            )
    if headers["train"][0][1:] != headers["test"][0][1:]:
        raise InputError(
            f"{path}: expected x_test with images of x_train's shape {headers['train'][0][1:]}, "
            f"got {headers['test'][0][1:]}"
        )


def _labels(array: NDArray[Any], what: str) -> NDArray[np.int64]:
    """Return integer labels ``(N,)``; Keras writes ``(N, 1)``."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what}: expected integer labels (N,), got {array.dtype} {array.shape}")
    if len(array) and array.max() >= MOST_LABELS:
        raise InputError(
            f"{what}: expected labels below {MOST_LABELS}, got {array.max()}: number the classes "
            "from 0"
        )
    return array.astype(np.int64)
