"""ResNets for small images: printed sizes, forwards by hand, what the depth says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.answers import gradient_of
from metrics.engine.folding import fast_copy
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import InvalidArchitecture, Task, space_class

CifarResNets = space_class("cifar-resnet")
BOTH = {"form": ("basic", "wide"), "depth": (8, 10), "width": (1, 2), "dropout": (0.0, 0.3)}


def build(depth=8, width=1, dropout=0.0, shape=(3, 32, 32), classes=10, seed=0):
    form = "basic" if depth % 6 == 2 else "wide"
    space = CifarResNets(form=(form,), depth=(depth,), width=(width,), dropout=(dropout,))
    return space.build(next(iter(space)), Task.plain(shape, classes), seed=seed)


def outline(*arguments, **keywords):
    """Return a network without values: shapes are enough for counting."""
    with torch.device("meta"):
        return build(*arguments, **keywords)


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_statistics(model):
    """Give batch norms weights and statistics that are not 0 and 1, and go to float64."""
    draws = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if "norm" in name and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=draws))
    return model.double().eval()


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [
        # He et al. 2016, Table 6; Zagoruyko and Komodakis 2016, Table 4.
        (20, 1, "0.27"), (32, 1, "0.46"), (44, 1, "0.66"), (56, 1, "0.85"), (110, 1, "1.7"),
        (40, 1, "0.6"), (40, 2, "2.2"), (40, 4, "8.9"), (40, 8, "35.7"), (28, 10, "36.5"),
        (28, 12, "52.5"), (22, 8, "17.2"), (22, 10, "26.8"), (16, 8, "11.0"), (16, 10, "17.1"),
    ],
)  # fmt: skip
def test_parameters_are_those_that_the_papers_print(depth, width, millions):
    count = sum(p.numel() for p in outline(depth, width).parameters())
    assert f"{count / 1e6:.{len(millions.partition('.')[2])}f}" == millions


def normed(h, weights, name):
    parts = ("running_mean", "running_var", "weight", "bias")
    mean, var, gain, shift = (weights[f"{name}.{p}"][:, None, None] for p in parts)
    return gain * (h - mean) / (var + 1e-5).sqrt() + shift


def convolved(h, weights, name, stride=1):
    weight = weights[f"{name}.weight"]
    return functional.conv2d(h, weight, stride=stride, padding=weight.shape[2] // 2)


def basic_by_hand(h, weights):
    """Return the logits of two blocks a stage, after He et al. 2016."""
    h = normed(convolved(h, weights, "conv1"), weights, "norm").relu()
    for stage in (1, 2, 3):
        for i in (0, 1):
            at, stride = f"stage{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            inside = normed(convolved(h, weights, f"{at}.conv1", stride), weights, f"{at}.norm1")
            inside = normed(
                convolved(inside.relu(), weights, f"{at}.conv2"), weights, f"{at}.norm2"
            )
            short = torch.zeros_like(inside)
            for row in range(inside.shape[2]):
                for column in range(inside.shape[3]):
                    short[:, : h.shape[1], row, column] = h[:, :, stride * row, stride * column]
            h = (inside + short).clamp(min=0)
    return h.mean(dim=(2, 3)) @ weights["head.weight"].T + weights["head.bias"]


def wide_by_hand(h, weights):
    """Return the logits of two blocks a stage, after Zagoruyko and Komodakis 2016."""
    h = convolved(h, weights, "conv1")
    for stage in (1, 2, 3):
        for i in (0, 1):
            at, stride = f"stage{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            active = normed(h, weights, f"{at}.norm1").relu()
            inside = convolved(active, weights, f"{at}.conv1", stride)
            inside = normed(inside, weights, f"{at}.norm2").relu()
            if inside.shape != h.shape:
                kernel = weights[f"{at}.shortcut.weight"][:, :, 0, 0]
                h = torch.einsum("oc,nchw->nohw", kernel, active[:, :, ::stride, ::stride])
            h = h + convolved(inside, weights, f"{at}.conv2")
    h = normed(h, weights, "norm").relu()
    return h.mean(dim=(2, 3)) @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize(("depth", "by_hand"), [(14, basic_by_hand), (16, wide_by_hand)])
def test_the_forward_by_hand(depth, by_hand, width):
    """Of images with odd sides, too, which stages round up; with every weight used."""
    model, x = with_statistics(build(depth, width, shape=(1, 9, 12))), some(3, 1, 9, 12).double()
    weights = {k.removeprefix("1."): v for k, v in model.state_dict().items()}
    used = set()

    class Noting(dict):
        def __getitem__(self, key):
            used.add(key)
            return super().__getitem__(key)

    with torch.no_grad():
        torch.testing.assert_close(model(x), by_hand(x, Noting(weights)))
    network = {k for k in weights if k[0] != "0" and not k.endswith("num_batches_tracked")}
    assert used == network
    assert sum("shortcut" in k for k in weights) == (0 if depth == 14 else 1 + width)


@pytest.mark.parametrize("depth", [8, 10])
def test_weights_begin_as_he_et_al_2015(depth):
    """Normal with variance 2 / inputs of a unit; no bias but the head's, which is 0."""
    model = build(depth, width=4)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1), name
            assert module.weight.abs().max() > 2.5 * expected  # a uniform one ends at 1.7
            assert (module.bias is None) == isinstance(module, nn.Conv2d)
    assert not model[1].head.bias.any()


def test_dropout_is_between_the_convolutions_in_training_alone():
    """A share of what the second convolution is given is 0, the others 1 / (1 - share) as large."""
    model = build(10, width=2, dropout=0.25, shape=(3, 16, 16))
    block, x, seen = model[1].stage1[0], some(8, 16, 16, 16), []
    block.conv2.register_forward_hook(lambda _m, given, _y: seen.append(given[0]))
    with torch.no_grad():
        for dropout in (True, False):
            block.dropout.train(dropout)
            block(x)
    dropped, whole = seen
    alive = whole > 0
    assert (dropped[alive] == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(dropped[dropped > 0], whole[dropped > 0] / 0.75)
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 3
    assert not any(isinstance(m, nn.Dropout) for m in build(8).modules())


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(20, [1, 7, 13, 19, 20]), (56, [1, 19, 37, 55, 56]), (28, [1, 9, 17, 25, 26])],
)
def test_hidden_states_are_the_first_convolution_the_stages_and_the_output(depth, layers):
    """By hand from the papers, and by counting what runs on the main path."""
    model = outline(depth, 2)
    names = ["1.conv1", "1.stage1", "1.stage2", "1.stage3", ""]
    assert list(model.hidden_states.items()) == list(zip(names, layers, strict=True))
    weighted, seen, modules = [], [], dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda *_, name=name: weighted.append(name))
    for name in names:
        modules[name].register_forward_hook(
            lambda *_: seen.append(sum("shortcut" not in n for n in weighted))
        )
    model(torch.empty(2, 3, 32, 32, device="meta"))
    assert seen == layers
    extra = depth - len(weighted)  # a wide net counts its convolutions, and no linear layer
    assert extra == (0 if depth % 6 == 2 else -1)


@pytest.mark.parametrize("depth", [8, 10])
def test_stages_halve_the_sides_and_double_the_channels(depth):
    network, shapes = outline(depth, 3)[1], []
    for stage in (network.conv1, network.stage1, network.stage2, network.stage3):
        stage.register_forward_hook(lambda *answer: shapes.append(tuple(answer[2].shape[1:])))
    network(torch.empty(2, 3, 32, 30, device="meta"))
    first = 48 if depth == 8 else 16
    assert shapes == [(first, 32, 30), (48, 32, 30), (96, 16, 15), (192, 8, 8)]


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_will_do(depth, channels):
    model = build(depth, shape=(channels, 32, 32))
    for height, width in [(1, 1), (2, 2), (1, 9), (5, 7), (33, 32)]:
        trained = model.train()(some(2, channels, height, width))
        judged = model.eval()(some(1, channels, height, width))
        assert (trained.shape, judged.shape) == ((2, 10), (1, 10))
        assert judged.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0), (0, 4, 4)], ids=str)
def test_images_of_nothing_are_invalid(shape):
    with pytest.raises(InvalidArchitecture, match=f"expected .* got {shape[0]} and {shape[1]} x"):
        outline(shape=shape)


def test_the_depth_says_the_form_and_every_combination_is_built():
    space = CifarResNets(**BOTH)
    assert space.size() == 8
    kinds = set()
    for architecture in space:
        with torch.device("meta"):
            model = space.build(architecture, Task.plain((3, 8, 8), 2))
        kinds.add((architecture["depth"], type(model[1].stage1[0]).__name__))
    assert kinds == {(8, "BasicBlock"), (10, "WideBlock")}
    assert [a["depth"] for a in CifarResNets()] == [20, 32, 44, 56]
    assert set(CifarResNets().decisions()) == {"depth", "width"}


def test_the_hash_knows_the_net_and_not_the_lists():
    space = CifarResNets(**BOTH)
    hashes = {tuple(dict(a.choices).values()): a.hash for a in space}
    assert hashes[8, 1, 0.0] == hashes[8, 1, 0.3]  # no dropout in a basic net
    assert hashes[10, 1, 0.0] != hashes[10, 1, 0.3]
    assert len(set(hashes.values())) == 6
    assert next(iter(CifarResNets(depth=(8,)))).hash == hashes[8, 1, 0.0]
    alone = CifarResNets(form=("wide",), depth=(10,), width=(2,), dropout=(0,))
    assert next(iter(alone)).hash == hashes[10, 2, 0.0]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"form": ("narrow",)}, "^form: expected distinct ones of .*'basic', 'wide'"),
        ({"form": ()}, "^form"),
        ({"form": ("basic", "wide")}, "^form: expected depths of each, got none for 'wide'"),
        ({"depth": ()}, "^depth"),
        ({"depth": (20, 20)}, "^depth"),
        ({"depth": (28,)}, r"^depth: expected distinct integers 6n \+ 2 \(basic\), got \[28\]"),
        ({"form": ("wide",)}, r"^depth: expected distinct integers 6n \+ 4 \(wide\), got \[20"),
        ({"depth": (2,)}, "^depth"),
        ({"depth": (20.0,)}, "^depth"),
        ({"form": ("basic", "wide"), "depth": (20, 28, 30)}, r"6n \+ 2 \(basic\) or 6n \+ 4"),
        ({"width": (0,)}, "^width: expected distinct integers >= 1"),
        ({"width": (1.5,)}, "^width"),
        ({"dropout": (0.3,)}, r"^dropout: expected 0 without wide nets, got \[0.3\]"),
        ({"form": ("wide",), "depth": (10,), "dropout": (1.0,)}, "^dropout: expected distinct"),
        ({"form": ("wide",), "depth": (10,), "dropout": (float("nan"),)}, "^dropout"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        CifarResNets(**settings)


@pytest.mark.parametrize("depth", [8, 10])
def test_a_fast_copy_agrees(depth):
    """In float64, as in float32 a ReLU at its kink may round to the other side."""
    model, x = with_statistics(build(depth, shape=(3, 12, 12))), some(6, 3, 12, 12).double()
    quick = fast_copy(model, x[:2])
    assert quick is not None
    answers = []
    for m in (model, quick):
        leaf = x.clone().requires_grad_()
        logits = m(leaf.clone())
        answers.append((logits.detach(), gradient_of(logits.logsumexp(1).sum(), leaf)))
    for expected, got in zip(*answers, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("depth", [8, 10])
def test_it_learns_digits(depth, digits):
    dropout = 0.1 if depth == 10 else 0.0
    model = build(depth, dropout=dropout, shape=digits.task.shape)
    recipe = Recipe(epochs=6, batch_size=32, adversary="none", selection_images=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        drain(train(model, digits, recipe, None, torch.Generator().manual_seed(0)))
    right = model(digits.validation.images()).argmax(dim=1) == digits.validation.labels
    assert right.double().mean() > 0.9
