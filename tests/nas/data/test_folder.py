"""``folder:PATH``: which directories are classes, and which files are images."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from nas.data.arrays import prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images, load_test_images, told_of
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


THREE = [
    ("train", "val", "test"),
    ("training", "valid", "testing"),
    ("Train", "Validation", "TEST"),
]


@pytest.mark.parametrize(("train", "val", "test"), THREE)
def test_three_parts_are_what_their_names_say(tmp_path, train, val, test):
    make(tmp_path, f"{train}/cat", f"{train}/dog", count=9)
    make(tmp_path, f"{test}/cat", f"{test}/dog", count=3)
    config = make(tmp_path, f"{val}/cat", f"{val}/dog", count=2)
    found = find_folder(config, tmp_path, train=True)
    data = prepare(load_images(config), config)
    assert [len(data.train), len(data.validation), len(load_test_images(config).labels)] == [
        18, 4, 6,
    ]  # fmt: skip
    aside = {str(f) for f, v in zip(found.files, found.validation, strict=True) if v}
    assert aside == {str(tmp_path / val / c / f"{i}.png") for c in ("cat", "dog") for i in (0, 1)}
    line = told_of(config)
    for text in (f"18 training images ({train})", f"4 validation images ({val})",
                 f"6 test images ({test})", "shorter side is 8"):  # fmt: skip
        assert text in line


def test_validation_images_are_those_of_the_chosen_classes(tmp_path):
    make(tmp_path, "train/a", "train/b", "train/c", "test/a", "test/b", "test/c", count=5)
    config = make(tmp_path, "val/a", "val/c", count=2)  # no b: judged on the others
    picked = replace(config, classes=(2, 1))
    data = prepare(load_images(picked), picked)
    assert sorted(data.validation.labels.tolist()) == [0, 0]
    assert sorted(data.train.labels.tolist()) == [0] * 5 + [1] * 5
    assert len(prepare(load_images(config), config).validation) == 4


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_is_not_trained_is_refused(tmp_path, part):
    make(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog")
    config = make(tmp_path, f"{part}/emu")
    with pytest.raises(InputError, match=rf"{part}: expected classes of .*, got also \['emu'\]"):
        load_images(config), load_test_images(config)


def test_two_directories_of_one_part_are_refused(tmp_path):
    config = make(tmp_path, "train/cat", "train/dog", "val/cat", "validation/cat")
    refused(config, "expected one directory of validation images in .*, got val and validation")


def test_an_image_that_moves_between_parts_is_noticed(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog")
    config = make(tmp_path, "val/dog", count=1)
    before = find_folder(config, tmp_path, train=True)
    checksum = before.checksum()
    (tmp_path / "train/dog/7.png").rename(tmp_path / "val/dog/-.png")  # the same order of files
    after = find_folder(config, tmp_path, train=True)
    assert before.labels.tolist() == after.labels.tolist()
    assert checksum != after.checksum()


def test_a_folder_without_parts_keeps_its_checksum(tmp_path):
    """Of a run from before there were validation directories: sha256 over labels and files."""
    config = make(tmp_path, "cat", "dog", count=5)
    found = find_folder(config, tmp_path, train=True)
    digest = hashlib.sha256(found.labels[found.kept].astype("<i8").tobytes())
    for file, kept in zip(found.files, found.kept, strict=True):
        if kept:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    assert found.checksum() == digest.hexdigest()[:16]
    assert "every fifth of each class" in told_of(config)
    assert "8 images to train on, 0.167 of them to validate" in told_of(config)
