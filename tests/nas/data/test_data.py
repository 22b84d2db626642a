"""Datasets: what is read, how it is split, and what is said when it is not there."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from nas.data.arrays import (
    Images,
    as_float,
    chosen_test_indices,
    prepare,
    prepare_test,
    stratified_order,
)
from nas.data.config import DataConfig, Limit
from nas.data.datasets import DATASETS, load_images, load_test_images
from nas.errors import InputError


def write_npz(path, n=40, labels=4, side=6, channels=3, **more):
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        shape = (n, side, side, channels) if channels else (n, side, side)
        arrays[f"x_{part}"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(n) % labels
    np.savez(path, **{**arrays, **more})
    return DataConfig(name=f"npz:{path}")


def test_digits():
    train, test = (load(DataConfig()) for load in (load_images, load_test_images))
    assert train.pixels.shape == (1438, 1, 8, 8)
    assert test.pixels.shape == (359, 1, 8, 8)
    assert (train.pixels.min(), train.pixels.max()) == (0, 1)
    both = np.concatenate([train.pixels, test.pixels]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    ours, theirs = np.sort(both.sum(1)), np.sort((load_digits().data / 16).sum(1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)  # every image once


def test_noise_is_normal_and_always_the_same():
    config = DataConfig(name="noise", image_size=16)
    first, again, test = load_images(config), load_images(config), load_test_images(config)
    assert first.pixels.shape[1:] == (3, 16, 16)
    assert len(first.class_names) == len(np.unique(first.labels)) == 101
    assert first.pixels.mean() == pytest.approx(0, abs=0.01)
    assert first.pixels.std() == pytest.approx(1, abs=0.01)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, test.pixels)
    task = prepare(first, config).task
    assert task.std == pytest.approx((1, 1, 1), abs=0.02)  # so that Ψ is that of the bare net


def test_stratified_prefixes_have_the_class_shares():
    labels = np.array([0] * 600 + [1] * 300 + [2] * 100)
    order = stratified_order(labels, seed=1)
    assert sorted(order) == list(range(1000))
    for size in (50, 100, 333):
        counts = np.bincount(labels[order[:size]], minlength=3)
        np.testing.assert_allclose(counts, np.array([0.6, 0.3, 0.1]) * size, atol=2)
    assert not np.array_equal(order, stratified_order(labels, seed=2))


def test_the_split_is_fixed_disjoint_and_stable_under_limits():
    images = Images(
        np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1), np.arange(200) % 5, tuple("abcde")
    )

    def parts(**settings):
        data = prepare(images, DataConfig(validation_share=0.25, **settings))
        return [p.pixels.flatten().tolist() for p in (data.train, data.validation)]

    train, validation = parts()
    assert (len(train), len(validation)) == (150, 50)
    assert not set(train) & set(validation)
    assert parts() == [train, validation]
    assert parts(limit=Limit(train=30, validation=10)) == [train[:30], validation[:10]]
    assert parts(seed=1) != [train, validation]


def test_classes_are_picked_and_renumbered():
    config = DataConfig(classes=(7, 3))
    data = prepare(load_images(config), config)
    everything = load_images(config)
    assert data.task.classes == 2
    total = len(data.train) + len(data.validation)
    assert total == np.isin(everything.labels, (7, 3)).sum()
    sevens = {image.tobytes() for image in everything.pixels[everything.labels == 7]}
    for image, label in zip(data.train.pixels.numpy(), data.train.labels, strict=True):
        assert (image.tobytes() in sevens) == (label == 0)


def test_the_task_normalises_with_the_training_images():
    config = DataConfig(limit=Limit(train=300))
    data = prepare(load_images(config), config)
    x = data.train.images().double()
    assert data.task.shape == (1, 8, 8)
    assert data.task.mean[0] == pytest.approx(x.mean().item())
    assert data.task.std[0] == pytest.approx(x.std(correction=0).item())


def test_moments_of_bytes_are_those_of_floats(tmp_path):
    config = write_npz(tmp_path / "tiny.npz")
    data = prepare(load_images(config), config)
    x = data.train.images().double()
    assert data.task.mean == pytest.approx(x.mean(dim=(0, 2, 3)).tolist())
    assert data.task.std == pytest.approx(x.std(dim=(0, 2, 3), correction=0).tolist())
    flat = write_npz(tmp_path / "flat.npz", x_train=np.full((40, 6, 6, 3), 7, dtype=np.uint8))
    assert prepare(load_images(flat), flat).task.std == (1e-3,) * 3


def test_strides_do_not_depend_on_where_the_array_came_from():
    """numpy gives a new axis stride 0, a pickled one another: torch would guess other layouts."""
    grey = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    strides = set()
    for pixels in (grey[:, None], grey[:, None].copy(), pickle.loads(pickle.dumps(grey[:, None]))):
        data = prepare(Images(pixels, labels, ("a", "b", "c")), DataConfig())
        for part in (data.train, data.validation):
            strides |= {
                part.pixels.stride(),
                part.images().stride(),
                part.images(slice(9)).stride(),
            }
    assert strides == {(64, 64, 8, 1)}


def test_one_class_is_refused(tmp_path):
    config = write_npz(tmp_path / "one.npz", labels=1)
    with pytest.raises(InputError, match="two or more classes with images, got 1"):
        prepare(load_images(config), config)
    config = write_npz(tmp_path / "three.npz", y_train=np.full(40, 3), y_test=np.full(40, 3))
    with pytest.raises(InputError, match="two or more classes with images, got 1"):
        prepare(load_images(config), config)


def test_where_the_files_lie_is_no_part_of_the_hash():
    a, b = DataConfig(root="/a"), DataConfig(root="/b", download=True)
    assert a.hash == b.hash != DataConfig(seed=1).hash


@pytest.mark.parametrize("channels", [3, 1, None])
def test_npz(tmp_path, channels):
    config = write_npz(tmp_path / "tiny.npz", channels=channels)
    images = load_images(config)
    assert images.pixels.shape == (40, channels or 1, 6, 6)
    with np.load(tmp_path / "tiny.npz") as arrays:
        assert images.pixels[3, 0, 2, 1] == arrays["x_train"][3, 2, 1].flat[0]
    data = prepare(images, config)
    assert data.train.images().max() <= 1
    assert data.train.images().dtype == torch.float32
    assert len(prepare_test(load_test_images(config), config)) == 40


def test_npz_mistakes_are_one_line(tmp_path):
    with pytest.raises(InputError, match="readable .npz"):
        load_images(DataConfig(name="npz:/nowhere.npz"))
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(InputError, match="readable .npz"):
        load_images(DataConfig(name=f"npz:{tmp_path / 'text.npz'}"))
    np.savez(tmp_path / "keys.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="x_train, y_train"):
        load_images(DataConfig(name=f"npz:{tmp_path / 'keys.npz'}"))
    config = write_npz(tmp_path / "floats.npz", x_train=np.zeros((40, 6, 6, 3)))
    with pytest.raises(InputError, match="uint8"):
        load_images(config)
    config = write_npz(tmp_path / "labels.npz", y_train=np.arange(40) - 1)
    with pytest.raises(InputError, match="expected 0 ... 38, got -1"):
        load_images(config)
    config = write_npz(tmp_path / "short.npz", y_train=np.arange(7) % 4)
    with pytest.raises(InputError, match="got 7 for 40"):
        load_images(config)


def test_npz_labels_and_names(tmp_path):
    keras = write_npz(tmp_path / "keras.npz", y_train=(np.arange(40) % 4)[:, None])
    assert load_images(keras).labels.tolist() == (np.arange(40) % 4).tolist()
    named = write_npz(tmp_path / "named.npz", classes=np.array(["a", "b", "c", "d", "e"]))
    assert load_images(named).class_names == ("a", "b", "c", "d")
    few = write_npz(tmp_path / "few.npz", y_names=np.array(["x"]), classes=np.array(["a", "b"]))
    assert load_images(few).class_names == ("a", "b", "2", "3")
    for name, labels in (("onehot", np.eye(40, dtype=int)), ("float", np.arange(40) / 2)):
        with pytest.raises(InputError, match="expected integer labels"):
            load_images(write_npz(tmp_path / f"{name}.npz", y_train=labels))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_broken_npz_is_one_line(content, tmp_path):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(InputError, match="readable .npz"):
        load_images(DataConfig(name=f"npz:{tmp_path / 'broken.npz'}"))


def test_folder_parts_have_the_labels_of_train(tmp_path):
    from PIL import Image

    for place in ("train/a", "train/b", "train/c", "test/b", "test/c"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / place / "0.png")
    config = DataConfig(name=f"folder:{tmp_path}", image_size=8)
    assert load_images(config).labels.tolist() == [0, 1, 2]
    assert load_test_images(config).labels.tolist() == [1, 2]
    (tmp_path / "test" / "z").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "z" / "0.png")
    with pytest.raises(InputError, match=r"got also \['z'\]"):
        load_test_images(config)
    (tmp_path / "train" / "a" / "1.png").write_text("no image")
    with pytest.raises(InputError, match="expected an image"):
        load_images(config)


def test_folder(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    config = DataConfig(name=f"folder:{tmp_path}", image_size=8)
    train, test = load_images(config), load_test_images(config)
    assert train.class_names == ("cat", "dog")
    assert (train.pixels.shape, test.pixels.shape) == ((16, 3, 8, 8), (4, 3, 8, 8))
    with pytest.raises(InputError, match="one directory of images a class"):
        load_images(DataConfig(name=f"folder:{tmp_path / 'cat'}"))


@pytest.mark.parametrize("name", [n for n in DATASETS if n not in ("digits", "noise")])
def test_missing_files_say_where_to_put_them(name, tmp_path):
    with pytest.raises(InputError, match=f"expected its files in {tmp_path}"):
        load_images(DataConfig(name=name, root=str(tmp_path)))


@pytest.mark.data
@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
def test_idx_datasets(name, mean, data_root):
    """The channel means are the ones everybody quotes."""
    config = DataConfig(name=name, root=str(data_root))
    images = load_images(config)
    assert images.pixels.shape == (60000, 1, 28, 28)
    assert images.pixels.mean() / 255 == pytest.approx(mean, abs=2e-4)
    assert len(load_test_images(config).labels) == 10000


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "shape", "classes"),
    [("cifar10-small", (10000, 3, 32, 32), 10), ("gtsrb-7", (3270, 3, 32, 32), 7),
     ("food101-10", (1500, 3, 64, 64), 10)],
)  # fmt: skip
def test_real_npz(file, shape, classes, data_root):
    config = DataConfig(name=f"npz:{file}.npz", root=str(data_root))
    images = load_images(config)
    assert images.pixels.shape == shape
    assert prepare(images, config).task.classes == classes


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"validation_share": 0}, "validation_share"),
        ({"classes": (1,)}, "two or more"),
        ({"classes": (1, 1)}, "distinct"),
        ({"image_size": 0}, "image_size"),
        ({"seed": -1}, "seed: expected >= 0, got -1"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        DataConfig(**settings)


def test_unknown_datasets_are_refused_with_the_known_ones():
    for name in ("imaginary", "npz:", "moon:path"):
        with pytest.raises(InputError, match=f"digits, mnist.*folder:PATH, got '{name}'"):
            load_images(DataConfig(name=name))


def test_classes_that_do_not_exist():
    config = DataConfig(classes=(3, 12))
    with pytest.raises(InputError, match=r"0 ... 9, got \[3, 12\]"):
        prepare(load_images(config), config)


@pytest.mark.parametrize("classes", [None, (7, 3, 1)])
@pytest.mark.parametrize("limit", [None, 25])
def test_chosen_test_images_are_found_again(classes, limit):
    config = DataConfig(name="digits", classes=classes, seed=4, limit=Limit(test=limit))
    images = load_test_images(config)
    found, split = chosen_test_indices(images, config), prepare_test(images, config)
    assert len(set(found.tolist())) == len(found) == len(split)
    assert torch.equal(as_float(torch.from_numpy(images.pixels[found])), split.images())
    names = classes or tuple(range(10))
    assert [names[label] for label in split.labels] == images.labels[found].tolist()
