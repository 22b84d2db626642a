"""The reference networks are torchvision's own, with another first convolution where it must be."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torchvision import models

from metrics.answers import gradient_of
from metrics.engine.folding import fast_copy
from search_spaces import InvalidArchitecture, ResNets, Task

PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
STEMS = ("imagenet", "small")


def build(depth=18, shape=(3, 32, 32), classes=10, stem="imagenet", seed=0):
    space = ResNets(depth=(depth,), stem=stem)
    return space.build(next(iter(space)), Task.plain(shape, classes), seed=seed)


def outline(*arguments, **keywords):
    """Return a network without values: shapes are enough for counting, and quick at any depth."""
    with torch.device("meta"):
        return build(*arguments, **keywords)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def with_statistics(model):
    """Give batch norms the statistics of a batch, as training does, instead of 0 and 1."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(some(16, 3, 32, 32).to(next(model.parameters()).dtype))
    assert not any((norm.running_mean == 0).all() for norm in norms)
    return model.eval()


def test_the_space_is_the_five_resnets():
    assert [a["depth"] for a in ResNets()] == list(PARAMETERS)


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameters_are_those_of_torchvision(depth):
    assert parameters(outline(depth, classes=1000)) == PARAMETERS[depth]


def test_classes_and_channels_change_the_ends_alone():
    assert parameters(outline(classes=7)) == PARAMETERS[18] - 993 * (512 + 1)
    assert parameters(outline(shape=(1, 28, 28), classes=1000)) == PARAMETERS[18] - 2 * 64 * 49
    # The usual CIFAR ResNet-18, as github.com/kuangliu/pytorch-cifar counts it.
    assert parameters(outline(stem="small")) == 11_173_962


def test_the_seed_gives_torchvisions_initial_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = models.resnet18(weights=None, num_classes=10).state_dict()
    ours = build(seed=5)[1].state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("stem", "channels", "kernel"),
    [("imagenet", 1, 7), ("imagenet", 4, 7), ("small", 1, 3), ("small", 3, 3)],
)
def test_another_first_convolution_is_initialised_as_torchvision_does(stem, channels, kernel):
    """Normal with variance 2 / fan_out, He et al. 2015."""
    conv = build(shape=(channels, 8, 8), stem=stem)[1].conv1
    assert conv.weight.shape == (64, channels, kernel, kernel)
    assert conv.bias is None
    expected = (2 / (64 * kernel**2)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.08)
    assert abs(conv.weight.mean().item()) < 0.1 * expected
    assert conv.weight.abs().max() > 2.5 * expected  # a uniform one ends at 1.7


def test_the_forward_is_torchvisions_on_normalised_images():
    space = ResNets(depth=(50,))
    task = Task((3, 32, 32), 10, mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))
    ours = with_statistics(space.build(next(iter(space)), task, seed=1).double())
    theirs = models.resnet50(weights=None, num_classes=10).double().eval()
    theirs.load_state_dict(
        {k.removeprefix("1."): v for k, v in ours.state_dict().items() if k.startswith("1.")}
    )
    x = some(2, 3, 32, 32).double()
    mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (task.mean, task.std))
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs((x - mean) / std), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 16), ("small", 64)])
def test_the_stem_decides_the_sides(stem, side):
    """A quarter of 64 pixels, or all; each later stage halves."""
    network, x = outline(stem=stem)[1], torch.empty(2, 3, 64, 64, device="meta")
    sides = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda *answer: sides.append(tuple(answer[2].shape[2:])))
    network(x)
    assert sides == [(side // n, side // n) for n in (1, 2, 4, 8)]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_will_do(stem, channels):
    model = build(shape=(channels, 32, 32), stem=stem)
    for height, width in [(1, 1), (2, 2), (1, 9), (5, 7), (33, 32)]:
        trained = model.train()(some(2, channels, height, width))
        judged = model.eval()(some(1, channels, height, width))
        assert (trained.shape, judged.shape) == ((2, 10), (1, 10))
        assert trained.isfinite().all()
        assert judged.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0), (0, 4, 4)], ids=str)
def test_images_of_nothing_are_invalid(shape):
    with pytest.raises(InvalidArchitecture, match=f"expected .* got {shape[0]} and {shape[1]} x"):
        outline(shape=shape)


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(18, [1, 5, 9, 13, 17, 18]), (34, [1, 7, 15, 27, 33, 34]), (50, [1, 10, 22, 40, 49, 50]),
     (101, [1, 10, 22, 91, 100, 101]), (152, [1, 10, 34, 142, 151, 152])],
)  # fmt: skip
def test_hidden_states_are_the_first_convolution_the_stages_and_the_output(depth, layers):
    """By hand from Table 1 of He et al. 2016, and by counting what runs on the main path."""
    model = outline(depth)
    names = ["1.conv1", "1.layer1", "1.layer2", "1.layer3", "1.layer4", ""]
    assert list(model.hidden_states.items()) == list(zip(names, layers, strict=True))
    assert counted(model, names, torch.empty(2, 3, 32, 32, device="meta")) == layers


def counted(model, states, x):
    """Return how many convolutions and linear layers ran, without shortcuts, at each state."""
    weighted, seen, modules = [], [], dict(model.named_modules())
    for name, module in modules.items():
        on_main_path = name.endswith(("conv1", "conv2", "conv3"))
        assert on_main_path or not isinstance(module, nn.Conv2d) or "downsample" in name
        if on_main_path or isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: weighted.append(name))
    for name in states:
        modules[name].register_forward_hook(lambda *_: seen.append(len(weighted)))
    model(x)
    return seen


@pytest.mark.parametrize("stem", STEMS)
def test_a_fast_copy_agrees(stem):
    """In float64: in float32 a ReLU at its kink may round to the other side, and moves a gradient.

    Also that in-place sums and ReLUs, one of which a block calls twice, come out as they are.
    """
    model = with_statistics(build(stem=stem).double())
    x = some(2, 3, 32, 32).double()
    quick = fast_copy(model, x)
    assert quick is not None
    used = [quick.get_submodule(n.target) for n in quick.graph.nodes if n.op == "call_module"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in used)
    fresh = 1 - x
    answers = []
    for m in (model, quick):
        leaf = fresh.clone().requires_grad_()
        logits = m(leaf.clone())
        answers.append((logits.detach(), gradient_of(logits.logsumexp(1).sum(), leaf)))
    for expected, got in zip(*answers, strict=True):
        assert expected.abs().max() > 0
        assert torch.allclose(got, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


def test_without_torchvision_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # import raises
    with pytest.raises(ImportError, match="resnet needs torchvision"):
        outline()


@pytest.mark.parametrize(
    "settings",
    [{"depth": ()}, {"depth": (20,)}, {"depth": (18, 18)}, {"depth": (18.0,)}, {"stem": "big"}],
    ids=str,
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        ResNets(**settings)


def test_the_hash_knows_depth_and_stem_alone():
    wide, narrow, small = ResNets(), ResNets(depth=(34,)), ResNets(depth=(34,), stem="small")
    assert len({a.hash for a in wide}) == 5
    assert wide.architecture({"depth": 34}).hash == next(iter(narrow)).hash
    assert next(iter(small)).hash != next(iter(narrow)).hash
