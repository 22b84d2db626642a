"""torchvision's classifiers are torchvision's own, published weights and normalisation included."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize

from metrics.engine.folding import fast_copy
from search_spaces import Architecture, InvalidArchitecture, Task, load, space_class

TorchvisionNets = space_class("torchvision")
TRIED = ["resnet18", "mobilenet_v3_small", "squeezenet1_0"]
SLOW = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "mnasnet0_5", "mobilenet_v2",
    "regnet_y_400mf", "resnext50_32x4d", "shufflenet_v2_x0_5", "swin_t", "swin_v2_t", "vgg11_bn",
]  # fmt: skip
SMALL = "squeezenet1_1"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ODD = Task((3, 64, 64), 1000, mean=(0.1, 0.5, 0.9), std=(0.3, 0.001, 0.7))


def build(name=SMALL, task=None, weights=None, seed=0):
    space = TorchvisionNets(model=(name,), weights=weights)
    return space.build(next(iter(space)), task or Task.plain((3, 64, 64), 10), seed=seed)


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def published(name, seed=5):
    """Return torchvision's own net, with the weights and statistics of a training of sorts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = models.get_model(name, weights=None)
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """Return a directory of weights, and the net that they are of."""
    directory, net = tmp_path_factory.mktemp("published"), published(SMALL)
    torch.save(net.state_dict(), directory / f"{SMALL}.pth")
    return directory, net


@pytest.mark.parametrize(
    "name", [*TRIED, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_logits_are_those_of_torchvision(name, tmp_path):
    net, x = published(name), some(2, 3, 64, 64)
    torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    model = build(name, ODD, tmp_path).eval()
    with torch.no_grad():
        expected = net(normalize(x, MEAN, STD))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3
    (tmp_path / f"{name}.pth").unlink()  # up to half a gigabyte


def test_weights_may_be_safetensors(tmp_path):
    net, x = published(SMALL), some(1, 3, 64, 64)
    save_file(net.state_dict(), tmp_path / f"{SMALL}.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(build(SMALL, ODD, str(tmp_path)).eval()(x),
                                   net(normalize(x, MEAN, STD)))  # fmt: skip


def test_batch_norms_need_not_have_counted_their_batches(tmp_path):
    """As in files of 2017."""
    net = published("resnet18")
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "resnet18.pth")
    model, x = build("resnet18", ODD, tmp_path).eval(), some(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(normalize(x, MEAN, STD)), rtol=1e-4, atol=1e-5)


def check_names(name, renamed, directory, side):
    """Save a net's weights under ``renamed`` names, without torch's versions, and compare."""
    net, x, file = published(name), some(1, 3, side, side), directory / f"{name}.pth"
    state = {renamed(key): weight for key, weight in net.state_dict().items()}
    assert set(state) != set(net.state_dict())
    torch.save(state, file)
    task = Task((3, side, side), 1000, ODD.mean, ODD.std)
    model = build(name, task, directory).eval()
    file.unlink()
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(normalize(x, MEAN, STD)), rtol=1e-4, atol=1e-5)


def test_names_of_densenets_as_they_are_published(tmp_path):
    check_names("densenet121", lambda key: re.sub(r"(norm|conv)([12])\.(?=\w+$)", r"\1.\2.", key)
                if "denselayer" in key else key, tmp_path, 64)  # fmt: skip


@pytest.mark.slow
def test_names_of_vision_transformers_as_they_are_published(tmp_path):
    old = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    check_names("vit_b_32", lambda key: re.sub(r"mlp\.[03]\.", lambda m: old[m[0]], key),
                tmp_path, 224)  # fmt: skip


def test_untrained_nets_have_torchvisions_initial_weights_and_the_tasks_normalisation():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = models.resnet18(weights=None, num_classes=7)
    task = Task((3, 40, 40), 7, ODD.mean, (0.3, 0.1, 0.7))
    model = build("resnet18", task, seed=5)
    ours = model[1].state_dict()
    assert list(ours) == list(theirs.state_dict())
    assert all(torch.equal(ours[k], v) for k, v in theirs.state_dict().items())
    assert all(module.training for module in model.modules())
    x = some(2, 3, 40, 40)
    with torch.no_grad():
        expected = theirs.eval()(normalize(x, task.mean, task.std))
        torch.testing.assert_close(model.eval()(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-2


@pytest.mark.parametrize("model", ["nothing", "googlenet", "inception_v3", "raft_large", "Weights"])
def test_other_names_are_refused_with_the_known_ones(model):
    with pytest.raises(ValueError, match=r"^model: expected one of .*resnet50.*vgg19.*got ") as e:
        build(model)
    assert repr(model) in str(e.value)
    assert "googlenet," not in str(e.value)


@pytest.mark.parametrize("model", [(), ("vgg19", "vgg19"), (18,), ("vgg19", None)])
def test_bad_lists_are_refused(model):
    with pytest.raises(ValueError, match=r"^model: expected distinct names of models, got \["):
        TorchvisionNets(model=model)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_have_three_channels(channels):
    with pytest.raises(InvalidArchitecture, match=f"3 channels .*, got {channels}$"):
        build(task=Task.plain((channels, 64, 64), 10))


@pytest.mark.parametrize(
    ("name", "shape"), [("vit_b_32", (3, 64, 64)), ("alexnet", (3, 32, 32)), (SMALL, (3, 4, 4))]
)
def test_images_of_another_size_than_the_net_takes_are_refused_before_training(name, shape):
    expected = f"images that {name} takes, got {shape[1]} x {shape[2]}: "
    with pytest.raises(InvalidArchitecture, match=expected) as error:
        build(name, Task.plain(shape, 10))
    assert "\n" not in str(error.value)


def test_published_weights_want_their_classes(squeezenet):
    with pytest.raises(InvalidArchitecture, match="a task of 1000 classes .*, got 10$"):
        build(weights=squeezenet[0])


def test_missing_weights_are_named_with_what_is_there(tmp_path, squeezenet):
    there = f"{squeezenet[0]}/resnet18.pth or {squeezenet[0]}/resnet18.safetensors"
    with pytest.raises(ValueError, match=f"^weights: expected {there}, got {SMALL}.pth$"):
        build("resnet18", ODD, squeezenet[0])
    with pytest.raises(ValueError, match="got an empty directory$"):
        build(SMALL, ODD, tmp_path)
    with pytest.raises(ValueError, match="got no such directory$"):
        build(SMALL, ODD, tmp_path / "moon")


def test_weights_that_do_not_fit_are_refused(tmp_path, squeezenet):
    good = squeezenet[1].state_dict()
    first, last = "features.0.weight", "classifier.1.bias"
    wrong = {
        f"'{last}' missing": {k: v for k, v in good.items() if k != last},
        "'moon' unknown": {**good, "moon": torch.zeros(1)},
        r"size mismatch for classifier.1.bias: .*\(\[7\]\) .*\(\[1000\]\).*": {
            **good,
            last: torch.zeros(7),
        },
        f"'{first}' missing, 'net.{first}' unknown": {f"net.{k}": v for k, v in good.items()},
    }
    file = tmp_path / f"{SMALL}.pth"
    for got, state in wrong.items():
        torch.save(state, file)
        with pytest.raises(
            ValueError, match=f"^{file}: expected the weights of {SMALL}, got {got}$"
        ):
            build(SMALL, ODD, tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path, suffix):
    file = tmp_path / f"{SMALL}.{suffix}"
    for content in (b"", b"what is this", b"PK\x03\x04 almost a zip"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{file}: expected a state dict, got") as error:
            build(SMALL, ODD, tmp_path)
        assert "\n" not in str(error.value)
    if suffix == "pth":
        for thing in ([1, 2], {"epoch": 3}, nn.Linear(1, 1)):
            torch.save(thing, file)
            expected = f"^{file}: expected a state dict( of tensors)?, got"
            with pytest.raises(ValueError, match=expected):
                build(SMALL, ODD, tmp_path)


def test_the_hash_knows_whether_weights_are_published_and_not_where(tmp_path):
    untrained, here, there = (
        next(iter(TorchvisionNets(weights=w))) for w in (None, tmp_path, "elsewhere")
    )
    assert untrained.hash != here.hash == there.hash
    assert Architecture.from_dict(json.loads(json.dumps(here.to_dict()))) == here


def test_an_export_is_loaded_where_the_published_weights_are_not(tmp_path, squeezenet):
    space = TorchvisionNets(model=(SMALL,), weights=squeezenet[0])
    moved = TorchvisionNets(model=(SMALL,), weights=tmp_path / "gone")
    model = space.build(next(iter(space)), ODD).eval()
    description = {"architecture": next(iter(moved)).to_dict(), "task": ODD.to_dict()}
    (tmp_path / "architecture.json").write_text(json.dumps(description))
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    x = some(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(x), model(x))
    assert len(load_file(tmp_path / "model.safetensors")) == len(squeezenet[1].state_dict()) + 2


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0"])
def test_it_has_a_fast_copy(name):
    model, x = build(name).eval(), some(4, 3, 64, 64)
    copy = fast_copy(model, x)
    assert copy is not None
    torch.testing.assert_close(copy(x), model(x), rtol=1e-3, atol=1e-4)


def test_torchvision_is_missed_when_a_net_is_built(monkeypatch):
    space = TorchvisionNets()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="the space torchvision needs torchvision"):
        space.build(next(iter(space)), Task.plain((3, 64, 64), 10))
