"""What several test files share: real data where it is, small trained nets, a tiny search."""

from __future__ import annotations

import os
import random
import signal
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# Before numpy and torch are there: two threads beside another busy process wait for each other.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy
import pytest
import torch
from helpers import TINY
from servers import postgres, redis_server  # noqa: F401  fixtures

import launch.cli
from launch.cluster.thrift import Thrift, take_over
from launch.config.identity import settle_data
from launch.show.console import console as terminal
from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluation
from nas.trial.files import save_trial
from nas.trial.recipe import Recipe
from nas.trial.repeats import repeated
from nas.trial.training import drain, train
from search_spaces import DepthChannels


@pytest.fixture
def tiny() -> dict:
    """Return the document of a search whose trials last a tenth of a second."""
    return {key: dict(v) if isinstance(v, dict) else v for key, v in TINY.items()}


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real datasets, or skip."""
    root = os.environ.get("PSINAS_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs real data: set PSINAS_DATA to the folder that holds it")
    return Path(root)


@pytest.fixture(scope="session")
def digits() -> Data:
    """Return 600 training and 200 validation digits."""
    config = DataConfig(name="digits", limit=Limit(train=600, validation=200))
    return prepare(load_images(config), config)


@pytest.fixture(scope="session")
def digits_net(digits: Data) -> torch.nn.Module:
    """Return a small net trained on clean digits, in eval()."""
    space = DepthChannels(depth=(2,), channels=(16,), stem="small")
    architecture = space.architecture({"depth": 2, "channels": 16})
    model = space.build(architecture, digits.task, seed=0)
    recipe = Recipe(epochs=4, batch_size=64, adversary="none", epsilon=0.1, selection_images=50)
    drain(train(model, digits, recipe, None, torch.Generator().manual_seed(0)))
    return model


@pytest.fixture(autouse=True)
def _same_each_time(request) -> None:
    """One thread, and global generators that a test finds in the same state whenever it runs."""
    torch.set_num_threads(1)
    seed = zlib.crc32(request.node.nodeid.encode())
    torch.manual_seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002  the global one is meant
    random.seed(seed)


@pytest.fixture(autouse=True, scope="session")
def _no_home(tmp_path_factory) -> Iterator[None]:
    """Whose code was trusted is remembered for these tests, and not in the developer's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("PSINAS_TRUST", raising=False)
        yield


@pytest.fixture
def psinas(monkeypatch, capsys):
    """Return a function that runs a command line and returns its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["psinas", *map(str, arguments)])
        terminal._width = 200
        heard = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            launch.cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for number, handler in heard.items():  # a process that ends hears no more signals
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def in_process(monkeypatch):
    """Let commands run their trials in this process, without Ray; return those that it trained."""
    trained = []

    def run_search(search, config, run, progress, *, address=None, reuse=dict):
        progress.begin(search, 1)
        images = load_images(config.data)
        settle_data(run / "config.yaml", {config.data.source: images})
        earlier = reuse()
        thrift = Thrift(config, run, progress.say, search.results())
        while thrift.halted is None and (proposal := search.propose()) is not None:
            if outcome := take_over(run, proposal, earlier, None):
                written = search.finish(proposal.number, outcome)
                thrift.finished({"number": proposal.number, **written})
                progress.finished(proposal.number, written, search)
                continue
            trained.append(proposal.trial)
            run_one = partial(evaluation, data=prepare(images, proposal.trial.data))
            result = drain(repeated(run_one, proposal.trial))
            save_trial(run, proposal.number, proposal.trial, result)
            written = search.finish(proposal.number, result.to_dict())
            thrift.finished({"number": proposal.number, **written})
            progress.finished(proposal.number, written, search)
        return thrift.halted is None

    monkeypatch.setattr("launch.runs.searching.run_search", run_search)
    return trained
