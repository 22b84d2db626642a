"""How many images go through a model together, and that nothing but time depends on it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics import (
    APGD,
    FGSM,
    PGD,
    Noise,
    Square,
    StepLL,
    accuracy_curve,
    cascade,
    correct,
    gradient_line,
    minimal_fgsm,
    robust_accuracy,
    stability,
    susceptibility,
)
from metrics.engine import memory
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import in_batches, out_of_memory, saved_bytes, suitable_batch
from metrics.susceptibility import sphere_attack

EPSILON = 0.08
ATTACKS = [
    FGSM(epsilon=EPSILON),
    StepLL(epsilon=EPSILON),
    PGD(epsilon=EPSILON, steps=3, restarts=2),
    PGD(epsilon=0.5, steps=3, norm="l2"),
    PGD(epsilon=EPSILON, steps=3, target="runner-up"),
    APGD(epsilon=EPSILON, steps=5, restarts=2),
    APGD(epsilon=0.5, steps=5, norm="l2", loss="dlr"),
    Square(epsilon=EPSILON, queries=10),
    Noise(epsilon=0.2, draws=3),
    Noise(epsilon=2.0, region="ball", draws=2),
]


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """Count how often memory was given back, which takes a fifth of a second."""
    times = []
    monkeypatch.setattr(memory, "_release", lambda: times.append(1))
    return times


@pytest.fixture
def batch():
    x = images(23)
    return x, top(net(), x)


class Small(nn.Module):
    """Has room for so many images at a time."""

    def __init__(self, room, error=None):
        super().__init__()
        self.net, self.room = net(), room
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        self.sizes = []  # a list stays as long as it was made

    def forward(self, x):
        if len(x) > self.room:
            raise self.error
        self.sizes.append(len(x))
        return self.net(x)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_little_memory_changes_no_mask(attack, batch, released):
    x, y = batch
    expected = robust_accuracy(net(), x, y, attack, generator=seeded())
    found = robust_accuracy(Small(5), x, y, attack, generator=seeded(), batch_size=20)
    assert torch.equal(found.robust, expected.robust)
    assert torch.equal(found.clean, expected.clean)
    assert 0 < expected.accuracy < 1 or not isinstance(attack, PGD)
    assert found.batch_size == 5
    assert released


LINE = {"scalings": 20, "length": 2.0, "deltas": [3, 30]}


def test_little_memory_changes_nothing_else(batch):
    x, y = batch
    calls = [
        lambda m: correct(m, x, y, batch_size=20),
        lambda m: cascade(m, x, y, ATTACKS[:4], generator=seeded(), batch_size=20).broken_by,
        lambda m: (
            accuracy_curve(
                m, x, y, ATTACKS[2], [0.01, 0.02, EPSILON], generator=seeded(), batch_size=20
            ).robust
        ),
        lambda m: stability.measure(m, x, y, draws=6, count=True, batch_size=20, **LINE).hits,
        lambda m: stability.measure(m, x[:2], y[:2], draws=9, batch_size=20, **LINE).hit,
    ]
    for call in calls:
        assert torch.equal(call(Small(3)), call(net()))
    near = [
        lambda m: minimal_fgsm(m, x, y, batch_size=20).size,
        lambda m: gradient_line(m, x, y, scalings=20, batch_size=20).size,
        lambda m: susceptibility(m, x, steps=2, restarts=2, generator=seeded(), batch_size=20).psi,
        lambda m: sphere_attack(m, x, 0.01, generator=seeded(), batch_size=20),
    ]
    for call in near:
        expected, found = call(net()), call(Small(3))
        assert torch.allclose(found.double(), expected.double(), rtol=1e-3, atol=1e-6)


def test_one_image_that_does_not_fit_is_an_error(batch):
    x, y = batch
    for call in (correct, minimal_fgsm, lambda m, x, y: susceptibility(m, x)):
        with pytest.raises(torch.OutOfMemoryError):
            call(Small(0), x, y)


MESSAGES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "CPU, Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cuDNN": RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("error", MESSAGES.values(), ids=MESSAGES.keys())
def test_however_it_is_said_that_memory_has_run_out(error, batch):
    x, y = batch
    model = Small(4, error)
    assert torch.equal(correct(model, x, y, batch_size=16), correct(net(), x, y))
    assert max(model.sizes) == 4


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("out of memory")],
    ids=repr,
)
def test_other_errors_are_not_tried_again(error, batch):
    assert not out_of_memory(error)
    with pytest.raises(type(error)):
        correct(Small(4, error), *batch, batch_size=16)


def test_batches_are_halved_and_stay_so():
    def work(part):
        if part.stop - part.start > 3:
            raise MemoryError
        return list(range(part.start, part.stop))

    found = list(in_batches(11, 8, work))
    assert [n for _, numbers, _ in found for n in numbers] == list(range(11))
    assert {size for _, _, size in found} == {2}
    assert list(in_batches(0, 8, work)) == []
    assert [len(n) for _, n, _ in in_batches(7, 3, work)] == [3, 3, 1]


@pytest.mark.parametrize("n", [1, 3])
def test_what_a_convolution_saves_by_hand(n):
    """Its input, 4 bytes a pixel, and what the ReLU behind it gives; weights are not counted."""
    conv = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    x = torch.rand(n, 3, 10, 10)
    assert saved_bytes(conv, x) == 4 * n * (3 + 16) * 10 * 10
    assert saved_bytes(conv.half(), x.half()) == 2 * n * (3 + 16) * 10 * 10


def test_what_nothing_saves_is_the_images():
    x = torch.rand(2, 3, 4, 4)
    assert saved_bytes(nn.Flatten(), x) == 4 * 2 * 48


class Wide(nn.Module):
    """Saves so many bytes an image."""

    def __init__(self, size):
        super().__init__()
        self.numbers = size // 4

    def forward(self, x):
        return x.flatten(1)[:, :1].expand(-1, self.numbers).contiguous().sigmoid()[:, :4]


@pytest.mark.parametrize(
    ("size", "batch"),
    [(2**10, 100), (2**20, 64), (2**21, 32), (2**23, 8), (2**26, 8)],
)
def test_a_suitable_batch_on_a_cpu_stays_in_its_caches(size, batch):
    """64 MiB over what an image saves, between 8 and 100."""
    assert suitable_batch(Wide(size), torch.rand(2, 1, 2, 2)) == batch


@pytest.mark.parametrize(("free", "batch"), [(2**30, 256), (2**40, 1000), (2**20, 8)])
def test_a_suitable_batch_on_a_gpu_takes_half_of_what_is_free(free, batch, monkeypatch):
    """A quarter for what forward saves, as much for backward."""

    class OnGPU:
        device = torch.device("cuda")

        def __getitem__(self, part):
            return torch.rand(2, 1, 2, 2)[part]

    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert suitable_batch(Wide(2**20), OnGPU()) == batch


def test_a_model_that_cannot_be_asked_is_given_few():
    assert suitable_batch(Small(0), torch.rand(2, 3, 4, 4)) == 8


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_images_are_kept_where_they_are_asked_for(attack, batch):
    x, y = batch
    rows = torch.arange(3, 23)
    with evaluator(net(), x, y, batch_size=7) as ready:
        found = ready.search(attack, rows, seeded())
        kept = ready.search(attack, rows, seeded(), keep_images=True)
    assert found.images.numel() == 0
    assert kept.images.shape == (20, *x.shape[1:])
    assert torch.equal(found.broken, kept.broken)
    assert torch.equal(~correct(net(), kept.images, y[rows])[kept.broken], kept.broken[kept.broken])


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_what_keeps_no_images_holds_none_either(attack, batch, monkeypatch):
    parts = []
    searched = Evaluator._search

    def noted(*given):
        parts.append(searched(*given))
        return parts[-1]

    monkeypatch.setattr(Evaluator, "_search", noted)
    x, y = batch
    with evaluator(net(), x, y, batch_size=7) as ready:
        ready.search(attack, torch.arange(3, 23), seeded())
    assert parts
    assert all(part.images.untyped_storage().nbytes() == 0 for part in parts)


def test_asking_what_a_pass_saves_keeps_nothing():
    """A graph that holds its own output is never freed, nor the weights that it knows."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2), nn.Softmax(1))
    weight = weakref.ref(model[1].weight)
    assert saved_bytes(model, torch.rand(1, 1, 4, 4)) > 0
    del model
    gc.collect()
    assert weight() is None
