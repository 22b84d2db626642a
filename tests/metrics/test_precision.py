"""Everything is computed in full float32, and torch's settings are as the caller had them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from public import ATTACK, BATCHED, EVERY, images, net
from torch import nn

from metrics import FGSM, Transfer, robust_accuracy, susceptibility

X, Y = images(), torch.tensor([0, 1, 2, 3, 0, 1])
B = torch.backends
SETTINGS = {
    "cudnn.conv": B.cudnn.conv,
    "cudnn.rnn": B.cudnn.rnn,
    "cuda.matmul": B.cuda.matmul,
    "mkldnn.conv": B.mkldnn.conv,
    "mkldnn.rnn": B.mkldnn.rnn,
    "mkldnn.matmul": B.mkldnn.matmul,
}


@pytest.fixture
def coarse():
    """Let everything be rounded to TF32 for a test."""
    settings = [B, *SETTINGS.values()]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32"
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


class Spy(nn.Module):
    """Notes what precision it was run in."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__()
        self.net, self.meanwhile = net(), meanwhile
        self.precisions, self.autocast = set(), set()

    def forward(self, x):
        self.precisions.update(setting.fp32_precision for setting in SETTINGS.values())
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        self.meanwhile()
        return self.net(x)


def precisions():
    return {name: setting.fp32_precision for name, setting in SETTINGS.items()}


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY.keys())
def test_every_function_computes_in_full_float32(call, coarse):
    model = Spy()
    before = precisions()
    call(model, X, Y)
    assert model.precisions == {"ieee"}
    assert precisions() == before


@pytest.mark.parametrize("call", BATCHED.values(), ids=BATCHED.keys())
def test_no_evaluation_runs_under_the_callers_autocast(call):
    model = Spy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        call(model, X, Y)
        assert torch.is_autocast_enabled("cpu")
    assert model.autocast == {False}


@pytest.mark.parametrize("attack", [ATTACK, FGSM(), Transfer(source=net(), attack=ATTACK)])
def test_an_attack_in_training_keeps_the_callers_autocast(attack):
    """Training decides its precision itself; an evaluation with the attack does not keep it."""
    model = Spy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attack(model, X)
    assert model.autocast == {True}
    model.autocast.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        robust_accuracy(model, X, Y, attack)
    assert model.autocast == {False}


def test_autocast_of_the_caller_changes_no_number():
    model = net()
    plain = susceptibility(model, X, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = susceptibility(model, X, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.psi, found.psi)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY.keys())
def test_settings_come_back_after_an_exception(call, coarse):
    def fail():
        raise KeyError("midway")

    before = precisions()
    with pytest.raises(KeyError), torch.autocast("cpu", dtype=torch.bfloat16):
        call(Spy(fail), X, Y)
    assert precisions() == before
    assert not torch.is_autocast_enabled("cpu")


def test_one_call_within_another(coarse):
    """A model that is measured while it is measured: full float32 after the inner call, too."""
    inner = Spy()
    before, after = precisions(), set()

    def measure():
        robust_accuracy(inner, X, Y, ATTACK)
        after.update(precisions().values())

    robust_accuracy(Spy(measure), X, Y, FGSM())
    assert inner.precisions == after == {"ieee"}
    assert precisions() == before


def test_two_threads_at_once(coarse):
    """The first to come in leaves while the second is still inside."""
    before = precisions()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def wait_for_second():
        first_is_in.set()
        assert second_is_in.wait(10)

    def wait_for_first():
        second_is_in.set()
        assert first_is_out.wait(10)

    first, second, failures = Spy(wait_for_second), Spy(wait_for_first), []

    def run(model, until, done):
        try:
            assert until.wait(10)
            robust_accuracy(model, X, Y, ATTACK, fast=False)
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    started, ended = threading.Event(), threading.Event()
    started.set()
    threads = [
        threading.Thread(target=run, args=(first, started, first_is_out)),
        threading.Thread(target=run, args=(second, first_is_in, ended)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert first.precisions == second.precisions == {"ieee"}
    assert precisions() == before


WAYS = (
    "pass",
    "B.fp32_precision = 'ieee'",
    "B.fp32_precision = 'tf32'",
    "B.cudnn.fp32_precision = 'tf32'",
    "B.cudnn.conv.fp32_precision = 'ieee'",
    "B.cudnn.conv.fp32_precision = 'tf32'",
    "B.cudnn.rnn.fp32_precision = 'tf32'",
    "B.cuda.matmul.fp32_precision = 'tf32'",
    "B.mkldnn.fp32_precision = 'bf16'",
    "B.mkldnn.matmul.fp32_precision = 'bf16'",
    "B.cudnn.allow_tf32 = False",
    "B.cudnn.allow_tf32 = True",
    "B.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('high')",
)
LATER = ("pass", "B.fp32_precision = 'tf32'", "B.cudnn.fp32_precision = 'ieee'")
SCRIPT = """
import itertools, json, os, sys, warnings
import torch
from torch import nn
from metrics import correct
warnings.simplefilter("ignore")
B = torch.backends
operations = (B.cudnn.conv, B.cudnn.rnn, B.cuda.matmul, B.mkldnn.conv, B.mkldnn.rnn,
              B.mkldnn.matmul)
places = (B, B.cudnn, B.mkldnn, *operations)
old = (lambda: B.cudnn.allow_tf32, lambda: B.cuda.matmul.allow_tf32,
       torch.get_float32_matmul_precision)
inside = set()

class Spy(nn.Module):
    def forward(self, x):
        inside.update(place.fp32_precision for place in operations)
        return x.flatten(1)

def read(get):
    try:
        return get()
    except RuntimeError:  # what was set in the new way is not always to be read in the old one
        return "RuntimeError"

def state():
    return [place.fp32_precision for place in places], [read(get) for get in old]

def in_a_fork(work):
    ends = os.pipe()
    if os.fork() == 0:
        try:
            said = work()
        except Exception as error:
            said = repr(error)
        os.write(ends[1], json.dumps(said).encode())
        os._exit(0)
    os.wait()
    os.close(ends[1])
    with open(ends[0]) as pipe:
        return json.loads(pipe.read())

def found(way, later, call):
    exec(way)
    before = state()
    if call:
        x = torch.rand(2, 1, 2, 2)
        correct(Spy(), x, torch.tensor([0, 1]))
    after = state()
    exec(later)
    return [before == after, sorted(inside), state()]

ways, laters = json.loads(sys.argv[1])
print(json.dumps([
    [in_a_fork(lambda: found(way, later, call)) for call in (False, True)]
    for way, later in itertools.product(ways, laters)
]))
"""


@pytest.fixture(scope="module")
def in_a_fresh_process():
    """Return, of every way and later setting, what a process has without a call and with one."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps([WAYS, LATER])],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(itertools.product(WAYS, LATER), json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("way", WAYS)
def test_settings_are_as_found_and_inherit_as_before(way, later, in_a_fresh_process):
    """However it was asked for, a later general setting reaches what it would have reached."""
    without, called = in_a_fresh_process[way, later]
    same, inside, state = called
    assert same
    assert inside == ["ieee"]
    assert state == without[2]
