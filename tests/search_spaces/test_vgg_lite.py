"""The small VGG: sizes that the paper prints, a forward by hand, one output for two classes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from metrics.engine.folding import fast_copy
from nas.data.arrays import prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import InvalidArchitecture, Task, load, space_class

VGGLite = space_class("vgg-lite")


def build(shape=(3, 16, 16), classes=2, blocks=2, filters=4, units=8, dropout=0.4, seed=0):
    space = VGGLite(blocks=(blocks,), filters=(filters,), units=(units,), dropout=(dropout,))
    return space.build(next(iter(space)), Task.plain(shape, classes), seed=seed)


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("blocks", "classes", "expected"),
    [
        (3, 2, 1792 + 36928 + 73856 + 147584 + 295168 + 590080 + 131584 + 513),
        (2, 2, 326_721),
        (2, 10, 326_721 - 513 + 513 * 10),
    ],
)
def test_parameters_are_those_of_the_paper(blocks, classes, expected):
    with torch.device("meta"):
        model = build((3, 32, 32), classes, blocks, filters=64, units=512)
    assert sum(p.numel() for p in model.parameters()) == expected
    if (blocks, classes) == (3, 2):
        assert expected == 1_277_505


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_forward_by_hand(blocks, classes):
    model = build((1, 9, 11), classes, blocks).eval()
    weights, x = list(model.parameters()), some(4, 1, 9, 11)
    h = x
    for block in range(blocks):
        h = functional.max_pool2d(h, 2) if block else h
        for _ in range(2):
            weight, bias, *weights = weights
            h = functional.conv2d(h, weight, bias, padding=1).relu()
    h = h.amax(dim=(2, 3))
    w1, b1, w2, b2 = weights
    z = functional.linear(functional.linear(h, w1, b1).relu(), w2, b2)
    if classes == 2:
        assert z.shape == (4, 1)
        torch.testing.assert_close(model(x).softmax(dim=1)[:, 1:], z.sigmoid())
        torch.testing.assert_close(model(x).softmax(dim=1)[:, :1], 1 - z.sigmoid())
        assert not model(x)[:, 0].any()
    else:
        torch.testing.assert_close(model(x), z)


def test_each_block_drops_its_share_in_training():
    """Of a block's outputs that are not 0 a share is 0, the others 1 / (1 - share) as large."""
    model = build(dropout=0.25, filters=16)
    x, block = some(8, 3, 16, 16), model[1].block1
    with torch.no_grad():
        whole, dropped = block.eval()(x), block.train()(x)
    alive = whole > 0
    assert (dropped[alive] == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    kept = dropped > 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 2


def test_weights_begin_as_in_keras():
    """Uniform within sqrt(6 / (fan in + fan out)), whose deviation is a root of 3 less; no bias."""
    model = build(filters=16, units=64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            area = math.prod(getattr(module, "kernel_size", (1,)))
            bound = math.sqrt(6 / (area * sum(module.weight.shape[:2])))
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert not module.bias.any()


@pytest.mark.parametrize(("blocks", "side"), [(1, 1), (2, 2), (3, 4)])
def test_the_smallest_images(blocks, side):
    assert build((1, side, side), 2, blocks)(some(2, 1, side, side)).shape == (2, 2)
    if blocks > 1:
        expected = f"at least {side} x {side} for {blocks} blocks, got {side} x {side - 1}"
        with pytest.raises(InvalidArchitecture, match=expected):
            build((1, side, side - 1), 2, blocks)


def test_hidden_states_are_the_blocks_and_the_output():
    model = build(blocks=3)
    named = {"1.block1": 2, "1.block2": 4, "1.block3": 6, "": 8}
    assert model.hidden_states == named
    shapes = []
    for name in list(named)[:-1]:
        model.get_submodule(name).register_forward_hook(
            lambda module, given, out: shapes.append(tuple(out.shape[1:]))
        )
    model(some(1, 3, 16, 16))
    assert shapes == [(4, 16, 16), (8, 8, 8), (16, 4, 4)]


def test_whole_and_decimal_shares_are_one_architecture():
    whole, decimal = (next(iter(VGGLite(dropout=(share,)))) for share in (0, 0.0))
    assert whole == decimal
    assert whole.hash != next(iter(VGGLite(dropout=(0.4,)))).hash


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"blocks": ()}, "^blocks: expected distinct integers >= 1"),
        ({"blocks": (0,)}, "^blocks"),
        ({"filters": (4, 4)}, "^filters"),
        ({"units": (1.5,)}, "^units"),
        ({"dropout": (1.0,)}, r"^dropout: expected distinct shares in \[0, 1\)"),
        ({"dropout": (-0.1,)}, "^dropout"),
        ({"dropout": (float("nan"),)}, "^dropout"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        VGGLite(**settings)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_export_is_loaded(classes, tmp_path):
    space = VGGLite(blocks=(2,), filters=(4,), units=(8,))
    architecture, task = next(iter(space)), Task((1, 8, 8), classes, mean=(0.3,), std=(0.2,))
    model = space.build(architecture, task, seed=3).eval()
    description = {"architecture": architecture.to_dict(), "task": task.to_dict()}
    (tmp_path / "architecture.json").write_text(json.dumps(description))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    x = some(2, 1, 8, 8)
    assert torch.equal(load(tmp_path)(x), model(x))


@pytest.mark.parametrize("classes", [2, 3])
def test_it_has_a_fast_copy(classes):
    model, x = build(classes=classes).eval(), some(6, 3, 16, 16)
    copy = fast_copy(model, x)
    assert copy is not None
    torch.testing.assert_close(copy(x), model(x))


def test_it_learns_a_pair_of_digits_as_the_paper_has_it():
    config = DataConfig(classes=(3, 8), channels=3)
    data = prepare(load_images(config), config)
    space = VGGLite(blocks=(2,), filters=(8,), units=(16,))
    model = space.build(next(iter(space)), data.task)
    recipe = Recipe(
        epochs=20, batch_size=32, optimizer="sgd", learning_rate=0.1, schedule="halving",
        momentum=0.9, weight_decay=0.0, loss="mse", adversary="none", selection_images=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        training = drain(train(model, data, recipe, None, torch.Generator().manual_seed(0)))
    right = model(data.validation.images()).argmax(dim=1) == data.validation.labels
    assert right.double().mean() > 0.95
    assert training.last.train_loss < 0.05  # 0.25 is that of a coin
