"""``folder:PATH``: which directories are classes, and which files are images."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from nas.data.arrays import prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images, load_test_images
from nas.data.folder import find_folder
from nas.errors import InputError


def picture(path, value=None, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8) if value is None else value
    Image.fromarray(pixels).save(path)


def make(root, *classes, count=8):
    for name in classes:
        for i in range(count):
            picture(root / name / f"{i}.png")
    return DataConfig(name=f"folder:{root}", image_size=8)


def refused(config, match):
    with pytest.raises(InputError, match=match) as error:
        prepare(load_images(config), config)
    assert len(str(error.value).splitlines()) == 1


PARTS = [("train", "test"), ("train", "val"), ("train", "validation"), ("train", "valid"),
         ("training", "testing"), ("Train", "Test")]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), PARTS)
def test_parts_are_no_classes(tmp_path, train, test):
    make(tmp_path, f"{train}/cat", f"{train}/dog")
    config = make(tmp_path, f"{test}/cat", f"{test}/dog", count=3)
    assert load_images(config).class_names == ("cat", "dog")
    assert [len(part(config).labels) for part in (load_images, load_test_images)] == [16, 6]


def test_train_alone_gives_every_fifth_image_to_the_test_part(tmp_path):
    config = make(tmp_path, "train/cat", "train/dog", count=10)
    assert [len(part(config).labels) for part in (load_images, load_test_images)] == [16, 4]


def test_a_part_without_train_is_refused(tmp_path):
    refused(make(tmp_path, "test/cat", "test/dog"), "expected a directory train beside")


def test_classes_may_be_called_like_parts(tmp_path):
    assert load_images(make(tmp_path, "train", "boat", "valid")).class_names == (
        "boat", "train", "valid",
    )  # fmt: skip


def test_parts_of_other_names_are_refused(tmp_path):
    config = make(tmp_path, "fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog")
    refused(config, "got directories: cat, dog in several of fold1, fold2")


def test_images_lie_in_the_order_in_which_torchvision_lists_them(tmp_path):
    """So that the split of earlier searches stays."""
    config = make(tmp_path, "b", "a/z", "a/y", "a.b", "a-b", "B2", "a/y/deep", count=2)
    found, theirs = find_folder(config, tmp_path, train=True), ImageFolder(str(tmp_path))
    assert [str(file) for file in found.files] == [file for file, _ in theirs.samples]
    assert found.labels.tolist() == theirs.targets
    assert list(found.class_names) == theirs.classes


def test_hidden_and_stray_things_are_passed_over(tmp_path):
    config = make(tmp_path, "cat", "dog")
    make(tmp_path, ".cache", ".ipynb_checkpoints", "__MACOSX/cat", "cat/.thumbnails", "dog/@eaDir")
    picture(tmp_path / "preview.png")
    (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "README.txt").write_text("of cats")
    images = load_images(config)
    assert images.class_names == ("cat", "dog")
    assert len(images.labels) + len(load_test_images(config).labels) == 16


@pytest.mark.parametrize("other", ["Cat", unicodedata.normalize("NFD", "Käse")])
def test_classes_that_differ_by_their_writing_are_refused(tmp_path, other):
    refused(make(tmp_path, "cat", "Käse", other), "expected different classes")


def test_a_name_is_one_name_however_it_is_composed(tmp_path):
    make(tmp_path, "train/Käse", "train/dog")
    config = make(tmp_path, unicodedata.normalize("NFD", "test/Käse"), "test/dog")
    assert load_test_images(config).labels.tolist() == [0] * 8 + [1] * 8


def test_one_directory_is_one_class(tmp_path):
    config = make(tmp_path, "cat", "dog")
    (tmp_path / "hound").symlink_to(tmp_path / "dog")
    refused(config, "expected different classes in .*, got 'dog' and 'hound'")


def test_links_are_followed_once_and_never_up(tmp_path):
    config = make(tmp_path / "d", "cat", "dog")
    make(tmp_path, "more")
    for name in ("a", "b"):
        (tmp_path / "d" / "cat" / name).symlink_to(tmp_path / "more")
    assert len(find_folder(config, tmp_path / "d", train=True).files) == 24
    (tmp_path / "d" / "cat" / "loop").symlink_to("../../d")
    refused(config, "got a link that leads back up: .*loop")
    (tmp_path / "d" / "cat" / "loop").unlink()
    (tmp_path / "d" / "cat" / "loop").symlink_to(".")
    refused(config, "got a link that leads back up: .*loop")


def test_what_is_called_an_image_and_is_no_file_is_refused(tmp_path):
    config = make(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "x.png").symlink_to("gone.png")
    refused(config, "x.png, which is no file")
    (tmp_path / "cat" / "x.png").unlink()
    os.mkfifo(tmp_path / "cat" / "x.png")
    refused(config, "x.png, which is no file")


def test_too_little_is_refused(tmp_path):
    refused(make(tmp_path / "one", "cat"), "two or more classes")
    refused(make(tmp_path / "single", "cat", count=1), "two or more classes")
    refused(make(tmp_path / "pair", "cat", "dog", count=1), "images for training and for valid")
    config = make(tmp_path / "empty", "cat", "dog")
    (tmp_path / "empty" / "bird").mkdir()
    refused(config, "got no image .* in bird")
    refused(DataConfig(name=f"folder:{tmp_path / 'none'}"), "got none; data.root names")


def test_names_that_are_no_utf8_are_refused(tmp_path):
    config = make(tmp_path, "cat", "dog")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    refused(config, r"expected class names in UTF-8, got '.udcff'")
