"""Formats of an export: each is the model, reads without psinas, and says so where it is not."""

from __future__ import annotations

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from bare_environment import ONNX, TORCH, bare_environment, run_bare
from safetensors.torch import load_file, save_file
from torch import nn

from nas.errors import InputError
from nas.export import formats
from nas.export.agreement import ask
from nas.export.formats import ALL, LeftOut, Original, known_formats, quiet, write_format
from nas.export.standalone import read_safetensors
from nas.export.writing import Unwritable
from search_spaces import SEARCH_SPACES, DepthChannels, NASNet, Task

TINY = {
    "depth-channels": DepthChannels(depth=(2,), channels=(4,), stem="small"),
    "nasnet": NASNet(blocks=2, cells=1, filters=4),
}
SMALL = {
    # settings of the slow test: of every space a net that takes seconds
    "depth-channels": {"depth": (8,), "channels": (32,)},
    "resnet": {"depth": (18,), "stem": "small"},
    "cifar-resnet": {"depth": (20,)},
    "nasnet": {"blocks": 4, "cells": 1, "filters": 8},
    "torchvision": {"model": ("squeezenet1_1",)},
}
SHAPES = {"depth-channels": (1, 28, 28), "lenet": (1, 28, 28), "feedforward": (1, 28, 28)}


def original(space, shape, n=74):
    """Return a model with statistics of images, so that its logits differ from image to image."""
    model = space.build(space.sample(np.random.default_rng(1)), Task.plain(shape, 10))
    draws = torch.Generator().manual_seed(0)
    images = torch.rand((n, *shape), generator=draws)
    with torch.no_grad():
        model.train()(images[:32])
    questions = ask(model.eval(), images, None, 8 / 255, "random images")
    return Original(model, questions, {"psinas.space": space.name}, "a title")


def written(found, directory, name):
    directory.mkdir(exist_ok=True)
    state = {k: v.contiguous() for k, v in found.model.state_dict().items()}
    save_file(state, directory / "model.safetensors")
    return write_format(name, found, directory)


@pytest.mark.parametrize("name", TINY)
def test_model_py_is_the_model_to_the_last_bit(name, tmp_path):
    found = original(TINY[name], (1, 16, 16))
    agreed = written(found, tmp_path, "python")
    assert (agreed.problem, agreed.difference) == ("", 0.0)
    text = (tmp_path / "model.py").read_text()
    assert "can be trained on" in text
    assert "psinas" not in text.replace("psinas_", "")
    assert not {"search_spaces", "nas", "numpy", "safetensors"} & {
        line.split()[1].partition(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    }


def test_model_py_has_the_layers_and_trains(tmp_path):
    found = original(TINY["depth-channels"], (1, 16, 16))
    written(found, tmp_path, "python")
    space: dict = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec((tmp_path / "model.py").read_text(), space)
    model = space["load"]()
    assert not model.training
    ours, theirs = found.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    x = found.questions.images
    for net in (model, found.model):
        net.train()
        nn.functional.cross_entropy(net(x), found.questions.labels).backward()
    grads = dict(found.model.named_parameters())
    assert all(torch.equal(p.grad, grads[k].grad) for k, p in model.named_parameters())
    assert all(
        torch.equal(b, dict(found.model.named_buffers())[k]) for k, b in model.named_buffers()
    )


class Branching(nn.Module):
    """Nothing that tracing can write: a branch on the batch, a function of ours."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 10)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        flat = torch.cat([part.flatten(1) for part in x.split(8, dim=2)], 1)
        if flat.shape[1] != 256:
            raise ValueError("other images")
        return self.linear(flat) * self.scale + torch.tensor([1.0])


@pytest.mark.slow  # torch.export takes seconds to be imported
def test_what_cannot_be_traced_is_written_operation_by_operation(tmp_path):
    found = original(TINY["depth-channels"], (1, 16, 16))
    model = Branching().eval()
    images = found.questions.images
    asked = Original(model, ask(model, images, None, 0.1, ""), {}, "a title")
    assert written(asked, tmp_path, "python").difference == 0
    assert "not made to be trained on" in (tmp_path / "model.py").read_text()


def test_a_missing_library_is_said(tmp_path, monkeypatch):
    found = original(TINY["depth-channels"], (1, 16, 16))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LeftOut, match=r"^model\.onnx left out: it needs onnx, onnxscript and"):
        written(found, tmp_path, "onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda model: lambda x: model(x) + 1, "a logit differs by 1 "),
        (lambda model: lambda x: model(x[:1]), r"expected logits \(74, 10\)"),
        (lambda model: lambda x: 1 / 0, "division by zero"),
    ],
)
def test_a_format_that_is_not_the_model_leaves_nothing(tmp_path, monkeypatch, answer, said):
    def write(found, directory):
        (directory / "model.pt2").write_text("wrong")
        return answer(found.model)

    monkeypatch.setitem(formats.WRITERS, "program", (write, ("model.pt2",)))
    found = original(TINY["depth-channels"], (1, 16, 16))
    with pytest.raises(LeftOut, match=rf"^model\.pt2 left out: {said}"):
        written(found, tmp_path, "program")
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors"}


def test_unwritable_says_why(tmp_path, monkeypatch):
    def refuse(*_):
        raise Unwritable("the layer own.Layer, not of torch.nn")

    monkeypatch.setattr(formats, "write_source", refuse)
    found = original(TINY["depth-channels"], (1, 16, 16))
    with pytest.raises(LeftOut, match=r"^model\.py left out: it uses the layer own\.Layer"):
        written(found, tmp_path, "python")


def test_nothing_is_said_while_a_format_is_written(capsys):
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with quiet():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("warned", stacklevel=1)
        assert not logger.isEnabledFor(logging.ERROR)
    assert capsys.readouterr() == ("", "")
    assert logger.level == level


def test_names_of_formats():
    assert known_formats(["python", "onnx"]) == ("onnx", "python")
    assert known_formats(["weights"]) == ()
    with pytest.raises(InputError, match=r"weights, onnx, program, python, got moon"):
        known_formats(["moon", "onnx"])


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16", "int64", "uint8",
                                  "bool", "int8"])  # fmt: skip
def test_safetensors_are_read_as_the_library_reads_them(tmp_path, kind):
    dtype = getattr(torch, kind)
    tensors = {
        "a": (torch.rand(3, 5) * 9).to(dtype),
        "b.c": torch.zeros((), dtype=torch.bool),  # what follows is not aligned
        "d": (torch.rand(2, 1, 3) * 9).to(dtype),
        "empty": torch.zeros(0, 4, dtype=dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"a": "b"})
    ours, theirs = (read(tmp_path / "x.safetensors") for read in (read_safetensors, load_file))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value)


ALONE = """
import sys, torch
from model import load
x = torch.load(sys.argv[1])
model = load()
program = torch.export.load(sys.argv[2]).module()
with torch.no_grad():
    torch.save([torch.cat([net(b) for b in x.split(100)]) for net in (model, program)], sys.argv[3])
assert not {"psinas", "nas", "search_spaces", "safetensors", "numpy"} & set(sys.modules)
"""
RUNTIME = """
import sys, numpy, onnxruntime
x = numpy.load(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[2])
logits = [session.run(None, {"images": b})[0] for b in numpy.array_split(x, 7)]
numpy.save(sys.argv[3], numpy.concatenate(logits))
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SEARCH_SPACES))
def test_every_space_without_psinas(name, tmp_path):
    shape = SHAPES.get(name, (3, 64, 64) if name == "torchvision" else (3, 32, 32))
    found = original(SEARCH_SPACES[name](**SMALL.get(name, {})), shape, n=1000)
    there = tmp_path / "there"
    for kind in ALL:
        assert written(found, there, kind).problem == ""
    x = torch.rand((1000, *shape), generator=torch.Generator().manual_seed(2))
    torch.save(x, tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", x.numpy())
    python = bare_environment(tmp_path / "torch", TORCH)
    code = f"import sys; sys.path.insert(0, {str(there)!r})\n{ALONE}"
    run_bare(python, code, tmp_path / "x.pt", there / "model.pt2", tmp_path / "y.pt")
    itself = f"import runpy; runpy.run_path({str(there / 'model.py')!r}, run_name='__main__')"
    assert "(right)" in run_bare(python, itself)
    python = bare_environment(tmp_path / "onnx", ONNX)
    run_bare(python, RUNTIME, tmp_path / "x.npy", there / "model.onnx", tmp_path / "y.npy")
    with torch.no_grad():
        logits = torch.cat([found.model(b) for b in x.split(100)])
    most = max(1e-4, 1e-5 * logits.abs().max().item())
    close = logits.topk(2, dim=1).values.diff(dim=1).abs().flatten() <= 2 * most
    for other in (*torch.load(tmp_path / "y.pt"), torch.from_numpy(np.load(tmp_path / "y.npy"))):
        assert (other - logits).abs().max().item() <= most
        assert torch.equal(other.argmax(1)[~close], logits.argmax(1)[~close])
