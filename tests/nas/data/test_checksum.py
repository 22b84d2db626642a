"""A checksum is of every pixel and label, whatever holds them, and of nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from nas.data.arrays import Images
from nas.data.checksum import of_files, refuse_changed
from nas.data.config import DataConfig
from nas.data.datasets import checksums, load_images, load_test_images
from nas.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 3, 4, 5), dtype=np.uint8)
LABELS = np.arange(30) % 3


def of(pixels, labels=LABELS):
    return Images(pixels, labels, ("a", "b", "c")).checksum()


def test_it_is_a_sha256_that_anybody_can_repeat():
    content = b"|u1 (30, 3, 4, 5)" + LABELS.astype("<i8").tobytes() + PIXELS.tobytes()
    assert of(PIXELS) == hashlib.sha256(content).hexdigest()[:16]


def test_every_pixel_and_label_counts_and_layout_does_not():
    found = {of(PIXELS)}
    for place in (0, 777, PIXELS.size - 1):
        other = PIXELS.copy()
        other.flat[place] ^= 1
        found.add(of(other))
    swapped = LABELS.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    found |= {of(PIXELS, swapped), of(PIXELS.reshape(30, 3, 5, 4)), of(PIXELS[::-1])}
    found.add(of(PIXELS.view(np.uint8).astype(np.float32) / 255))
    assert len(found) == 8
    strided = np.asfortranarray(PIXELS)
    assert of(strided) == of(PIXELS)
    assert Images(PIXELS, LABELS, ("x", "y", "z")).checksum() == of(PIXELS)


def test_files_are_known_by_content_and_label_not_by_name(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(file.name.encode() * 10)
    labels = np.array([0, 0, 1])
    first = of_files(files, labels)
    moved = [file.rename(tmp_path / f"{file.name}2") for file in files]
    assert of_files(moved, labels) == first
    assert of_files(moved, labels[::-1]) != first
    assert of_files(moved[::-1], labels) != first
    moved[1].write_bytes(b"b" * 9)
    assert of_files(moved, labels) != first


def test_both_parts_of_a_dataset_are_known_and_what_is_made_is_not():
    found = checksums(DataConfig())
    digits = {p: load(DataConfig()) for p, load in
              (("train", load_images), ("test", load_test_images))}  # fmt: skip
    assert found == {part: images.checksum() for part, images in digits.items()}
    assert checksums(DataConfig(), digits["train"]) == found
    assert checksums(DataConfig(name="noise")) == {}


def test_a_search_needs_no_test_images(tmp_path):
    arrays = {"x_train": PIXELS[:, 0], "y_train": LABELS}
    empty = {"x_test": PIXELS[:0, 0], "y_test": LABELS[:0]}
    np.savez(tmp_path / "d.npz", **arrays, **empty)
    config = DataConfig(name=f"npz:{tmp_path / 'd.npz'}")
    assert checksums(config) == {"train": load_images(config).checksum()}
    with pytest.raises(InputError, match="expected one or more, got none"):
        load_test_images(config)


def test_only_what_is_known_on_both_sides_is_compared():
    refuse_changed("d", {}, {"train": "1", "test": "2"})
    refuse_changed("d", {"train": "1", "test": "2"}, {"train": "1"})
    refuse_changed("d", {"train": "1", "test": "2"}, {"test": "2"})
    with pytest.raises(InputError, match=r"expected d as .* checksum 2 of its test .* got 3: the"):
        refuse_changed("d", {"train": "1", "test": "2"}, {"train": "1", "test": "3"})
