"""Scores of anybody's model: how it is built, filled and wrapped, and what is written down."""

from __future__ import annotations

import json
import math
import pickle

import pytest
import torch
from helpers import one_line
from safetensors.torch import save_file
from torch import nn

from launch.runs.outside import Prepared, Wrapping, fill, own_model
from launch.runs.over_epsilon import read_epsilons
from metrics import PGD, accuracy_curve
from metrics.robustness.accuracy import wilson
from nas.data.arrays import prepare_test
from nas.data.config import DataConfig
from nas.data.datasets import load_test_images
from nas.errors import InputError

CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def function(images):
    return images.flatten(1)[:, 20:30] * 9

model = build()
wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 1000))

class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10] + torch.rand(len(x), 10)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Stand in a directory with a module ``owned`` of models."""
    (tmp_path / "owned.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "owned", raising=False)
    return tmp_path


def first_images():
    config = DataConfig(name="digits")
    split = prepare_test(load_test_images(config), config)
    return split.images(slice(60)), split.labels[:60]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", ["owned:build", "owned:model", "owned:function"])
def test_a_builder_a_module_and_a_function_are_models(target, mine, psinas):
    out = mine / "scores.json"
    code, _, err = psinas(
        "score", target, "--data", "digits", "--metrics", "clean", "--limit", 60, "--out", out
    )
    assert code == 0, err
    import owned

    x, y = first_images()
    model = owned.function if target.endswith("function") else owned.build()
    scores = read(out)
    share = (model(x).argmax(dim=1) == y).double().mean().item()
    assert scores["clean_accuracy"] == pytest.approx(share)
    assert scores["clean_accuracy_low"] == pytest.approx(wilson(share, 60)[0])
    of = scores["of"]
    assert (of["model"], of["dataset"], of["images"], of["device"]) == (target, "digits", 60, "cpu")
    assert len(of["checksum"]) == 16
    assert of["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert of["seconds"] > 0


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_a_checkpoint_fills_what_was_built_whatever_stands_before_its_names(suffix, prefix, mine):
    tensors = {"1.weight": torch.rand(10, 64), "1.bias": torch.rand(10)}
    saved = {prefix + name: value for name, value in tensors.items()}
    path = mine / f"w.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": saved, "epoch": 3}, path)
    else:
        save_file(saved, path)
    model, made = own_model("owned:build", Wrapping(path))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in tensors.items())
    assert made["weights"]["prefix"] == prefix
    assert len(made["weights"]["sha256"]) == 64


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(mine, psinas):
    def refused(saved, *parts):
        torch.save(saved, mine / "w.pt")
        one_line(psinas("score", "owned:build", "--data", "digits", "--weights", "w.pt"), *parts)

    bias = torch.rand(10)
    refused({"1.weight": torch.rand(10, 64)}, "missing 1.bias", "unknown none")
    refused({"a.1": bias, "b.2": bias}, "missing 1.weight, 1.bias", "unknown a.1, b.2")
    refused({"1.weight": torch.rand(9, 64), "1.bias": bias}, "(10, 64), got (9, 64)")
    refused({"epoch": 3}, "expected tensors in w.pt", "epoch")
    (mine / "w.pt").write_bytes(b"no checkpoint")
    one_line(psinas("score", "owned:build", "--data", "digits", "--weights", "w.pt"), "--weights")


def test_a_checkpoint_runs_no_code(mine, psinas):
    class Trap:
        def __reduce__(self):
            return (open, (str(mine / "sprung"), "w"))

    (mine / "w.pt").write_bytes(pickle.dumps({"1.bias": Trap()}))
    one_line(psinas("score", "owned:build", "--data", "digits", "--weights", "w.pt"), "w.pt")
    assert not (mine / "sprung").exists()


def test_old_batch_norms_have_no_counters():
    model = nn.BatchNorm2d(3)
    tensors = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    assert fill(model, tensors, "w.pt") == ""


def test_normalisation_and_size_stand_between_images_and_the_model():
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean(dim=(2, 3))

    images = torch.rand(2, 3, 8, 8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    Prepared(Seeing(), Wrapping(None, mean, std))(images)
    expected = torch.stack([(images[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)
    assert torch.allclose(seen[0], expected)
    Prepared(Seeing(), Wrapping(None, size=16))(images)
    assert seen[1].shape == (2, 3, 16, 16)
    assert seen[1].mean().item() == pytest.approx(images.mean().item(), abs=0.02)


def test_what_makes_no_model_is_refused_in_one_line(mine, psinas):
    score = ("score", "owned:wide", "--data", "digits")
    one_line(psinas(*score), "expected 10 logits an image", "got (2, 1000)")
    one_line(psinas(*score, "--mean", "0.5"), "--mean, --std: expected both")
    one_line(psinas(*score, "--mean", "a", "--std", "1"), "--mean: expected numbers")
    one_line(psinas(*score, "--mean", "0", "--std", "0"), "--std: expected numbers above 0")
    one_line(psinas(*score, "--normalise", "imagenet", "--std", "1"), "--normalise")
    one_line(psinas(*score, "--size", "0"), "--size")
    one_line(psinas(*score, "--suite", "plus"), "--suite: expected one of standard", "'plus'")
    one_line(psinas(*score, "--suite", "standard", "--metrics", "clean"), "--suite")
    one_line(psinas(*score, "--curve", "1/0"), "--curve: expected epsilons")
    one_line(psinas(*score, "--figure", "c.png"), "expected --curve")
    one_line(psinas(*score, "--curve", "0.1", "--figure", "c.gif"), ".png, .svg, .pdf")
    one_line(psinas("score", "torchvision:resnet", "--data", "digits"), "resnet18", "'resnet'")
    one_line(
        psinas("score", "torchvision:resnet18@BEST", "--data", "digits"), "IMAGENET1K_V1", "'BEST'"
    )
    if not torch.cuda.is_available():
        one_line(psinas(*score, "--device", "cuda"), "--device: expected cpu or auto")


def test_a_net_of_torchvision_takes_its_classes_from_its_checkpoint(mine, psinas):
    from torchvision import models

    torch.manual_seed(0)
    net = models.squeezenet1_1(num_classes=10)
    torch.save(net.state_dict(), mine / "w.pt")
    model, made = own_model("torchvision:squeezenet1_1", Wrapping(mine / "w.pt", size=64))
    x = torch.rand(2, 3, 32, 32)
    larger = nn.functional.interpolate(x, (64, 64), mode="bilinear")
    assert torch.allclose(model(x), net.eval()(larger), atol=1e-5)
    assert made["size"] == 64
    assert own_model("torchvision:squeezenet1_1", Wrapping())[1] == {"weights": None}


def test_epsilons_are_read_as_papers_write_them():
    assert read_epsilons("8/255, 0.1,2/255") == [2 / 255, 8 / 255, 0.1]
    for text in ("", "a", "1/0", "0.1,0.1", "0.1;0.2"):
        with pytest.raises(InputError, match="--curve"):
            read_epsilons(text)


def test_a_curve_has_intervals_and_a_picture(mine, psinas):
    out, figure = mine / "s.json", mine / "c.svg"
    attack = "{name: pgd, steps: 5, random_start: false}"
    code, said, err = psinas(
        "score", "owned:build", "--data", "digits", "--limit", 60, "--curve", "0.01,1/255,0.1",
        "--attack", attack, "--out", out, "--figure", figure,
    )  # fmt: skip
    assert code == 0, err
    curve = read(out)["curve"]
    import owned

    expected = accuracy_curve(
        owned.build(), *first_images(), PGD(steps=5, random_start=False), [1 / 255, 0.01, 0.1]
    )
    assert curve["accuracies"] == pytest.approx(list(expected.accuracies))
    assert curve["epsilons"] == [1 / 255, 0.01, 0.1]
    ends = [wilson(share, 60) for share in expected.accuracies]
    assert (curve["low"], curve["high"]) == ([a for a, _ in ends], [b for _, b in ends])
    assert curve["attack"]["steps"] == 5
    assert "1/255" in said
    assert figure.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    one_line(
        psinas("score", "owned:build", "--data", "digits", "--curve", "2"), "--curve", "in [0, 1]"
    )


def test_the_standard_suite_warns_of_what_misleads_it(mine, psinas, monkeypatch):
    from launch.runs import score

    quick = {"name": "autoattack", "steps": 3, "targets": 2, "queries": 5, "epsilon": 0.01}
    monkeypatch.setitem(score.SUITES, "standard", ["clean", quick])
    out = mine / "s.json"
    arguments = ("--data", "digits", "--limit", 20, "--suite", "standard", "--out", out)
    code, said, err = psinas("score", "owned:Noisy", *arguments)
    assert code == 0, err
    assert "randomized models" in said
    assert read(out)["autoattack_randomized"] == 1
    code, said, _ = psinas("score", "owned:function", *arguments)
    assert "randomized models" not in said
    scores = read(out)
    assert all(math.isfinite(v) for k, v in scores.items() if k.startswith("autoattack"))
    assert scores["autoattack_accuracy"] <= scores["clean_accuracy"]
