"""Which images a search saw: a checksum of pixels and labels, so that changed data are refused.

Arrays are hashed as they were read. Image files are hashed as they lie, without their names: what a
decoder makes of them differs in last bits from one of its versions to the next, and they need not
be decoded for it. So the test part of every dataset costs little and has its checksum from the
start, though nothing of a search looks at its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import InputError, first_line

DATA_CHECKSUM = "data_checksum"
"""The key under which run directories and exports keep them: dataset -> part -> checksum."""

PARTS = ("train", "test")
Checksums = dict[str, str]
"""Part (``train``, which the validation images are of, and ``test``) -> 16 hex digits."""


def of_arrays(pixels: NDArray[Any], labels: NDArray[np.int64]) -> str:
    """Return 16 hex digits over pixels and labels, their kind and shape included."""
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()[:16]


def of_files(files: Iterable[Path], labels: NDArray[np.int64]) -> str:
    """Return 16 hex digits over the contents and the labels of files, in their order.

    Raises:
        InputError: a file that cannot be read.
    """

    def read(path: Path) -> bytes:
        try:
            return hashlib.sha256(path.read_bytes()).digest()
        except OSError as error:
            raise InputError(f"data: expected an image, got {path}: {first_line(error)}") from error

    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").data)
    with ThreadPoolExecutor() as pool:
        for content in pool.map(read, files):
            digest.update(content)
    return digest.hexdigest()[:16]


def refuse_changed(name: str, expected: Mapping[str, str], got: Mapping[str, str]) -> None:
    """Refuse a dataset that is no longer what it was, where that is known.

    Args:
        name: of the dataset, and where it lies.
        expected: part -> checksum, as it was; empty of runs from before there were checksums.
        got: the same, as it is now.

    Raises:
        InputError: a part differs.
    """
    for part in PARTS:
        if part in expected and part in got and expected[part] != got[part]:
            raise InputError(
                f"data: expected {name} as the search saw it, with checksum {expected[part]} of "
                f"its {part} images and labels, got {got[part]}: the data have changed"
            )
