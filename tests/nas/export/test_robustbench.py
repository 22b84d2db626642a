"""The wrapper that RobustBench evaluates, held against what its evaluation asks of a model."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nas.export.agreement import ask
from nas.export.formats import Original, write_format
from nas.export.robustbench import claims, refusal, write_robustbench
from search_spaces import DepthChannels, Task

FIELDS = (
    "link name authors additional_data number_forward_passes dataset venue architecture eps "
    "clean_acc reported autoattack_acc unreliable footnote"
)


def description(data="cifar10", shape=(3, 32, 32), classes=10, **more):
    trial = {
        "data": {"name": data, "classes": None},
        "recipe": {"adversary": "pgd"},
        "scores": {"clean_accuracy": 0.8123, "pgd_accuracy": float("nan")},
    }
    return {
        "architecture": {"space": "depth-channels", "choices": {"depth": 1}, "hash": "ab12",
                         "settings": {}},
        "task": {"shape": list(shape), "classes": classes},
        "trial": {**trial, **more},
    }  # fmt: skip


def test_the_wrapper_is_the_model_in_eval_mode(tmp_path):
    space = DepthChannels(depth=(1,), channels=(4,), stem="small")
    model = space.build(space.sample(np.random.default_rng(0)), Task.plain((3, 32, 32), 10)).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    images = torch.rand(80, 3, 32, 32)
    write_format("python", Original(model, ask(model, images, None, 0.1, ""), {}, "t"), tmp_path)
    write_robustbench(description(), tmp_path)
    torch.save(images, tmp_path / "x.pt")
    # A stand-in for robustbench.eval: what its benchmark does first to a model, and its signature.
    (tmp_path / "robustbench").mkdir()
    (tmp_path / "robustbench" / "__init__.py").write_text("")
    (tmp_path / "robustbench" / "eval.py").write_text("""
import torch
def benchmark(model, n_examples=10_000, dataset="cifar10", threat_model="Linf", to_disk=False,
              model_name=None, data_dir="./data", corruptions_data_dir=None, device=None,
              batch_size=32, eps=None, log_path=None, preprocessing=None, aa_state_path=None):
    assert isinstance(model, torch.nn.Module) and not model.training
    assert (dataset, threat_model, eps, n_examples) == ("cifar10", "Linf", 8 / 255, 10_000)
    assert model_name == "psinas_ab12" and data_dir == "there" and to_disk
    x = torch.load("x.pt").to(device)
    with torch.no_grad():
        torch.save(model.to(device)(x).cpu(), "y.pt")
    return 0.5, 0.25
""")
    answer = subprocess.run([sys.executable, "robustbench_model.py", "there"], cwd=tmp_path,
                            capture_output=True, text=True)  # fmt: skip
    assert answer.stdout == "clean 0.5000, robust 0.2500\n", answer.stderr
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), model(images))


def test_claims_have_the_fields_of_the_leaderboard():
    found = claims(description())
    assert set(found) == set(FIELDS.split())
    assert (found["dataset"], found["eps"], found["unreliable"]) == ("cifar10", "8/255", False)
    assert "clean_accuracy 81.23" in found["footnote"]
    assert "pgd" not in found["footnote"]
    # Not measured on test images, by no paper that is known.
    assert {found[k] for k in ("clean_acc", "autoattack_acc", "reported", "name", "link")} == {""}
    json.dumps(found, allow_nan=False)
    flagged = description(scores={"suspicion_not_converged_raised": 1.0})
    assert claims(flagged)["unreliable"] is True
    l2 = claims(description(recipe={"adversary": "pgd-l2"}))
    assert l2["eps"] == "0.5"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data": "digits"}, "RobustBench knows cifar10, cifar100, imagenet, and this model is of"),
        ({"classes": 2}, "asks for all 10 classes, and this model knows 2"),
        ({"shape": (3, 16, 16)}, "shows images of 3 x 32 x 32, and this model takes 3 x 16 x 16"),
    ],
)
def test_what_robustbench_cannot_evaluate(changes, why):
    assert why in refusal(description(**changes))
    assert refusal(description()) == ""
