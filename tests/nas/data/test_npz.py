"""``npz:PATH``: arrays that are not what they are taken for are refused in one line."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from nas.data.arrays import prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images, load_test_images
from nas.errors import InputError


def write(path, x=None, y=None, **more):
    """Write 60 images of three classes, 30 of them again as the test part."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8) if x is None else x
    y = np.arange(60) % 3 if y is None else np.asarray(y)
    arrays = {"x_train": x, "y_train": y, "x_test": x[:30], "y_test": y[:30], **more}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return DataConfig(name=f"npz:{path}")


def refused(config, match):
    with pytest.raises(InputError, match=match) as error:
        prepare(load_images(config), config)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((60, 3, 32, 32), False), ((60, 1, 28, 28), False), ((60, 10, 24, 24), False),
        ((60, 3, 32, 48), False), ((60, 32, 32, 3), True), ((60, 3, 3, 3), True),
        ((60, 4, 48, 3), True), ((60, 16, 12, 10), True), ((60, 6, 4, 4), True),
    ],
)  # fmt: skip
def test_channels_first_is_not_read_as_channels_last(tmp_path, shape, taken):
    config = write(tmp_path / "d.npz", np.zeros(shape, dtype=np.uint8))
    if taken:
        n, height, width, channels = shape
        assert load_images(config).pixels.shape == (n, channels, height, width)
    else:
        refused(config, r"\(N, C, H, W\) by its looks: x_train.transpose\(0, 2, 3, 1\)")


@pytest.mark.parametrize(
    "x",
    [
        np.full((60, 8, 8), np.nan, dtype=np.float32), np.full((60, 8, 8), 200.0),
        np.ones((60, 8, 8), dtype=bool), np.full((60, 8, 8), 60000, dtype=np.uint16),
        np.zeros((60, 64), dtype=np.uint8), np.zeros((60, 2, 2, 2, 3), dtype=np.uint8),
    ],
    ids=["nan", "floats", "bool", "uint16", "flat", "video"],
)  # fmt: skip
def test_pixels_of_other_kinds_are_refused(tmp_path, x):
    refused(write(tmp_path / "d.npz", x), "expected x_train as uint8")


def test_images_without_pixels_are_refused(tmp_path):
    refused(write(tmp_path / "d.npz", np.zeros((60, 0, 8, 3), dtype=np.uint8)), "got uint8")


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(60) % 3 / 1.0, np.array(list("abc") * 20), np.eye(60, dtype=int),
        np.arange(60) % 3 == 0,
    ],
    ids=["floats", "strings", "one-hot", "bool"],
)  # fmt: skip
def test_labels_of_other_kinds_are_refused(tmp_path, labels):
    refused(write(tmp_path / "d.npz", y=labels), "expected integer labels")


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_what_is_missing_is_named(tmp_path, key):
    refused(write(tmp_path / "d.npz", **{key: None}), f"without {key}")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([1, 2, 3], r"got none of 0 \(1 of 4\)"),
        ([0, 1, 255], r"got none of 2, 3, 4, 5, 6, ... \(253 of 256\)"),
        ([0, 1, 10**7], "expected labels below 65536, got 10000000"),
    ],
)
def test_labels_without_images_are_refused(tmp_path, labels, match):
    config = write(tmp_path / "d.npz", y=np.tile(labels, 20))
    refused(config, match)


def test_classes_that_are_picked_need_no_neighbours(tmp_path):
    config = write(tmp_path / "d.npz", y=np.tile([0, 1, 255], 20))
    picked = DataConfig(name=config.name, classes=(0, 255))
    data = prepare(load_images(picked), picked)
    assert (data.task.classes, len(data.train) + len(data.validation)) == (2, 40)
    picked = DataConfig(name=config.name, classes=(0, 7, 255))
    refused(picked, r"got none of 7 \(1 of 3\)")


def test_a_class_of_test_images_alone_is_refused(tmp_path):
    refused(write(tmp_path / "d.npz", y_test=np.arange(30) % 4), "got none of 3")


def test_both_parts_have_one_shape_and_as_many_labels(tmp_path):
    grey = np.zeros((30, 9, 9), dtype=np.uint8)
    refused(write(tmp_path / "d.npz", x_test=grey), r"x_train's shape \(8, 8\), got \(9, 9\)")
    refused(write(tmp_path / "d.npz", x_test=grey[:20, :8, :8]), "of x_test, got 30 for 20")
    refused(write(tmp_path / "d.npz", x_test=grey / 255), "expected x_test as uint8")


class Trap:
    """Tells when it is unpickled."""

    sprung = False

    def __setstate__(self, state):
        Trap.sprung = True


@pytest.mark.parametrize("key", ["x_train", "y_train", "classes"])
def test_nothing_is_unpickled(tmp_path, key):
    trap = Trap()
    trap.state = 1
    config = write(tmp_path / "d.npz", **{key: np.array([trap] * 60, dtype=object)})
    refused(config, "allow_pickle|got object")
    assert not Trap.sprung


def test_damaged_content_is_one_line(tmp_path):
    config = write(tmp_path / "d.npz", classes=np.array(["a", "b", "c"]))
    whole = (tmp_path / "d.npz").read_bytes()
    packed = tmp_path / "packed.npz"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        with zipfile.ZipFile(tmp_path / "d.npz") as plain:
            for name in plain.namelist():
                archive.writestr(name, plain.read(name))
    assert load_images(DataConfig(name=f"npz:{packed}")).pixels.shape == (60, 1, 8, 8)
    squeezed = packed.read_bytes()
    for content, path in ((whole, tmp_path / "d.npz"), (squeezed, packed)):
        middle = len(content) // 4
        path.write_bytes(content[:middle] + b"\xff" * 40 + content[middle + 40 :])
        refused(DataConfig(name=f"npz:{path}"), "readable .npz")
        path.write_bytes(content[: len(content) // 2])
        refused(DataConfig(name=f"npz:{path}"), "readable .npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused(DataConfig(name=f"npz:{tmp_path / 'one.npy'}"), "readable .npz")
    refused(DataConfig(name=f"npz:{tmp_path}"), "readable .npz")
    refused(DataConfig(name="npz:\0"), "readable .npz")
    assert config.name.startswith("npz:")


def test_names_may_be_of_any_script(tmp_path):
    (tmp_path / "größe ☃").mkdir()
    config = write(tmp_path / "größe ☃" / "d.npz", classes=np.array(["Äpfel", "梨", "x"]))
    assert load_images(config).class_names == ("Äpfel", "梨", "x")
    assert len(load_test_images(config).labels) == 30
