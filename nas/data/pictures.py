"""Image files: which there are, what they hold, and their pixels as 8-bit RGB of one size."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.arrays import Images
from nas.data.checksum import of_files
from nas.errors import InputError, first_line

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
SCALED = ("PNG", "PPM")  # formats whose mode I holds 0 ... 65535
DARK = 4096  # of 65,536 levels: what stays below is 8 or 12 bits in a 16-bit file


@dataclass(frozen=True)
class ImageFiles:
    """Image files that are not decoded yet.

    Attributes:
        files: one an image.
        labels: ``(N,)`` int64.
        class_names: the name of every label.
        side: pixels to which they are resized and cropped.
        kept: ``(N,)`` bool: which of them are of this part; None is all. The others are decoded
            too, so that a broken one is refused before the first trial.
        validation: ``(N,)`` bool: which of them are set aside to judge models on; None is none.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    side: int
    kept: NDArray[np.bool_] | None = None
    validation: NDArray[np.bool_] | None = None

    def read(self) -> Images:
        """Return their pixels.

        Raises:
            InputError: no file, or one that is no image of 8 or 16 bits.
        """
        pixels, kept = decode(self.files, self.side), self.kept_here
        aside = None if self.validation is None else self.validation[kept]
        return Images(pixels[kept], self.labels[kept], self.class_names, aside)

    def checksum(self) -> str:
        """Return 16 hex digits over what is in the files, and their labels.

        Images that are set aside count as classes of their own, so that one that moves is seen.
        """
        chosen, labels = np.flatnonzero(self.kept_here), self.labels
        if self.validation is not None:
            labels = labels + len(self.class_names) * self.validation
        return of_files([self.files[i] for i in chosen], labels[chosen])

    @property
    def kept_here(self) -> NDArray[np.bool_]:
        """``(N,)`` bool: which images are of this part."""
        return np.ones(len(self.labels), dtype=bool) if self.kept is None else self.kept


def decode(files: tuple[Path, ...], side: int) -> NDArray[np.uint8]:
    """Return ``(N, 3, side, side)`` uint8: shorter side resized to ``side``, centre cropped.

    16-bit grey is scaled linearly to 8 bits; 32-bit images have no range that is known.

    Raises:
        InputError: a file that cannot be decoded, or pixels of 32 bits; 16-bit images all of which
            use less than a sixteenth of their range, so that next to nothing would be left.
    """
    if not files:
        return np.empty((0, 3, side, side), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda path: _decoded(path, side), files))
    sixteen = [(brightest, path) for path, (_, brightest) in zip(files, decoded, strict=True)
               if brightest is not None]  # fmt: skip
    if sixteen and (brightest := max(sixteen))[0] < DARK:
        raise InputError(
            f"data: expected 16-bit images that use their range of 65535, got no pixel above "
            f"{brightest[0]} ({brightest[1]}): scale them, or save them with 8 bits"
        )
    pixels = np.stack([image for image, _ in decoded])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _decoded(path: Path, side: int) -> tuple[NDArray[np.uint8], int | None]:
    """Return ``(side, side, 3)`` uint8, and of a 16-bit image its largest value."""
    from PIL import Image, ImageOps

    unreadable = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error,
                  zlib.error, OverflowError, Image.DecompressionBombError)  # fmt: skip
    try:
        with Image.open(path) as image:
            image.load()
            picture: Any = image
            brightest = None
            if image.mode in SIXTEEN_BIT or (image.mode == "I" and image.format in SCALED):
                values = np.asarray(image).astype(np.int64)
                brightest = int(values.max())
                picture = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise InputError(
                    f"data: expected images of 8 or 16 bits, got {path} of 32 bits (mode "
                    f"{image.mode}), whose range is not known: save it with 8 or 16 bits"
                )
            fitted = ImageOps.fit(picture.convert("RGB"), (side, side))
            return np.asarray(fitted, dtype=np.uint8), brightest
    except InputError:
        raise
    except unreadable as error:
        raise InputError(f"data: expected an image, got {path}: {first_line(error)}") from error
