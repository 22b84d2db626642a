"""A network may set what it likes in its process: the next trial finds it as it was."""

from __future__ import annotations

import os
import random
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluate
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import SearchSpace


def change_flush():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor keeps small numbers")


CHANGES = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "gradients": lambda: torch._C._set_grad_enabled(False),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "precision": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "cudnn": lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "hook": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "threads": lambda: torch.set_num_threads(2),
    "flush": change_flush,
    "directory": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(PSINAS_OF_A_NETWORK="1"),
    "numpy": lambda: np.seterr(all="raise"),
    "warnings": lambda: warnings.simplefilter("error"),
    "output": lambda: setattr(sys, "stdout", None),
    "recursion": lambda: sys.setrecursionlimit(5000),
    "random": lambda: (random.seed(5), np.random.seed(5)),  # noqa: NPY002
}


@dataclass(frozen=True, kw_only=True)
class Sets(SearchSpace):
    """A linear net, the building of which changes something of the process."""

    what: str = "dtype"

    def decisions(self):
        return {"kind": ("changes", "drawn")}

    def network(self, architecture, task):
        if architecture["kind"] == "changes":
            CHANGES[self.what]()
            raise RuntimeError("and leaves it so")
        layer = nn.Linear(task.shape[0] * task.shape[1] * task.shape[2], task.classes)
        with torch.no_grad():
            layer.bias[0] = random.random() + np.random.random()  # noqa: NPY002
        return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig())


def trial(kind, what="dtype"):
    recipe = Recipe(epochs=0, adversary="none")
    limit = Limit(train=20, validation=20)
    space = Sets(what=what)
    return Trial(space.architecture({"kind": kind}), recipe, DataConfig(limit=limit), ())


def state():
    """Return what a next trial would find, asked of torch and Python in other ways than ours."""
    warned = [str(f) for f in warnings.filters]
    small = (torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1).item()
    x = torch.ones(2, 2, requires_grad=True)
    return {
        "dtype": torch.ones(1).dtype,
        "device": x.device,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": (x + 1).requires_grad,
        "anomaly": torch.is_anomaly_enabled(),
        "autocast": torch.mm(x, x).dtype,
        "precision": torch.backends.fp32_precision,
        "cudnn": torch.backends.cudnn.benchmark,
        "hooks": len(nn.modules.module._global_forward_hooks),
        "threads": torch.get_num_threads(),
        "small": small,
        "directory": os.getcwd(),
        "environment": os.environ.get("PSINAS_OF_A_NETWORK"),
        "numpy": np.geterr(),
        "warnings": warned,
        "output": sys.stdout,
        "recursion": sys.getrecursionlimit(),
        "random": (random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
    }


@pytest.mark.parametrize("what", CHANGES)
def test_the_process_is_given_back_as_it_was_found(what, images):
    before = state()
    assert evaluate(trial("changes", what), images).reason == "RuntimeError: and leaves it so"
    assert state() == before


def test_what_a_network_draws_from_python_and_numpy_is_the_trials(images):
    first = evaluate(trial("drawn"), images).weights["1.1.bias"]
    random.random()
    np.random.random()  # noqa: NPY002
    assert torch.equal(evaluate(trial("drawn"), images).weights["1.1.bias"], first)
