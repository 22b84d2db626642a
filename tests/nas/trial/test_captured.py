"""Replayed steps are eager steps, or training goes on eagerly and says why.

No GPU is needed: a record is a function that is kept, and a replay calls it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn

import nas.trial.captured
import nas.trial.training
from nas.data.arrays import Data, Split
from nas.data.config import DataConfig, Limit
from nas.trial.captured import WARM_UP, Captured, CudaGraph, captured
from nas.trial.evaluation import evaluate
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import DepthChannels, Task

RECIPE = Recipe(
    epochs=2, batch_size=4, epsilon=0.1, steps=2, selection_images=4, flip=True, crop_padding=1,
    gradient_clip=1.0, learning_rate=0.05,
)  # fmt: skip


class FakeGraph:
    """As a CUDA graph: what it writes to stays where it is, and it looks at no Python any more."""

    def __init__(self, model):
        self.model, self.captures, self.replays, self.warmed = model, 0, 0, 0

    def warm(self, work):
        self.warmed += 1
        return work()

    def capture(self, work):
        self.captures += 1
        self.work, self.loss = work, work()
        self.gradients = [p.grad for p in self.model.parameters()]
        return self.loss

    def replay(self):
        self.replays += 1
        before = [p.grad for p in self.model.parameters()]
        self.loss.copy_(self.work())
        for i, parameter in enumerate(self.model.parameters()):
            self.gradients[i].copy_(parameter.grad)
            parameter.grad = before[i]


class StaleImages(FakeGraph):
    def replay(self):
        images = self.work.__closure__
        held = [c.cell_contents for c in images if isinstance(c.cell_contents, torch.Tensor)]
        now = [v.clone() for v in held]
        for v in held:
            v.zero_()
        super().replay()
        for v, w in zip(held, now, strict=True):
            v.copy_(w)


class StaleWeights(FakeGraph):
    def capture(self, work):
        self.held = [p.detach().clone() for p in self.model.parameters()]
        return super().capture(work)

    def replay(self):
        now = [p.detach().clone() for p in self.model.parameters()]
        with torch.no_grad():
            for p, held in zip(self.model.parameters(), self.held, strict=True):
                p.copy_(held)
        super().replay()
        with torch.no_grad():
            for p, there in zip(self.model.parameters(), now, strict=True):
                p.copy_(there)


class OtherDraws(FakeGraph):
    def replay(self):
        super().replay()
        torch.rand(1)


class NoStatistics(FakeGraph):
    def replay(self):
        before = [b.clone() for b in self.model.buffers()]
        super().replay()
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)


class NotFinite(FakeGraph):
    def replay(self):
        super().replay()
        self.gradients[0].fill_(torch.nan)


class NoCapture(FakeGraph):
    def capture(self, work):
        self.captures += 1
        work()
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:  # as the end of a capture does
            raise ValueError("operation failed due to a previous error")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(64, 3),
    )  # fmt: skip


def data(count):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 1, 6, 6, generator=generator)
    split = Split(pixels, torch.arange(count) % 3)
    return Data(split, split, Task.plain((1, 6, 6), 3))


@pytest.fixture
def graphs(monkeypatch):
    """Return a function that trains with a kind of graph, or eagerly with None."""

    def trained(kind, count=34, recipe=RECIPE):
        model = net()
        graph = None if kind is None else kind(model)

        def captured(compute, model, generator, micro_batch, recipe):
            return Captured(compute, model, (generator, torch.default_generator), graph)

        monkeypatch.setattr(nas.trial.training, "captured", captured)
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(2)  # of dropout
        training = drain(
            train(model, data(count), recipe, recipe.attack(), generator, capture=kind is not None)
        )
        draws = (generator.get_state(), torch.get_rng_state())
        return training, draws, graph

    return trained


def same(a, b):
    for name, weight in a[0].last_weights.items():
        assert torch.equal(weight, b[0].last_weights[name]), name
    numbers = [[(e.train_loss, e.robust_accuracy) for e in found[0].epochs] for found in (a, b)]
    assert numbers[0] == numbers[1]
    assert all(map(torch.equal, a[1], b[1]))


@pytest.mark.parametrize("count", [32, 34])
def test_replayed_training_is_eager_training_to_the_bit(count, graphs):
    """34 images: 8 batches of 4 and one of 2, which runs eagerly, as do the first three."""
    found = graphs(FakeGraph, count)
    same(found, graphs(None, count))
    assert found[0].capture == "on"
    graph = found[2]
    assert (graph.warmed, graph.captures) == (WARM_UP, 1)
    assert graph.replays == 2 * 8 - WARM_UP + 1  # one of them for the check


def test_steps_of_another_kind_are_recorded_anew(graphs):
    """Adversarial weight perturbation from the second epoch on: two passes a step, not one."""
    recipe = replace(RECIPE, awp=0.01, awp_warmup=1)
    found = graphs(FakeGraph, 34, recipe)
    same(found, graphs(None, 34, recipe))
    assert found[0].capture == "on"
    assert (found[2].warmed, found[2].captures) == (2 * WARM_UP, 2)


def test_too_few_steps_record_nothing(graphs):
    found = graphs(FakeGraph, 12, replace(RECIPE, epochs=1))
    assert found[0].capture == "off"
    assert found[2].captures == 0


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (StaleImages, "a replay's loss is off by"),
        (StaleWeights, "a replay's .* is off by"),
        (OtherDraws, "a replay draws other random numbers"),
        (NoStatistics, "a replay's buffers is off by"),
        (NotFinite, "a replay's gradient is off by nan"),
        (NoCapture, "RuntimeError: operation not permitted when stream is capturing"),
    ],
)
def test_a_replay_that_is_no_eager_step_is_refused(kind, why, graphs):
    found = graphs(kind)
    same(found, graphs(None))
    assert found[0].capture.startswith("refused (")
    assert re.search(why, found[0].capture), found[0].capture
    assert found[2].captures == 1
    assert found[2].replays <= 1


def test_stale_weights_are_found_in_the_smallest_steps(graphs):
    found = graphs(StaleWeights, recipe=replace(RECIPE, learning_rate=1e-9))
    assert found[0].capture.startswith("refused (a replay's")


def test_weights_that_moved_are_recorded_again():
    model, x, y = net(), torch.rand(4, 1, 6, 6), torch.arange(4) % 3

    def compute(x, y):
        model.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    graph = FakeGraph(model)
    steps = Captured(compute, model, (torch.default_generator,), graph)
    for _ in range(WARM_UP + 2):
        steps(x, y)
    assert graph.captures == 1
    model[0].weight.data = model[0].weight.data.clone()
    steps(x, y)
    assert graph.captures == 2
    assert steps.status == "on"


def trial():
    space = DepthChannels(depth=(1,), channels=(4,), stem="small")
    recipe = Recipe(epochs=1, batch_size=8, epsilon=0.1, steps=1, selection_images=8)
    config = DataConfig(limit=Limit(train=48, validation=8))
    return Trial(space.architecture({"depth": 1, "channels": 4}), recipe, config, ())


@pytest.mark.parametrize(
    ("asked", "device", "micro_batch", "expected"),
    [
        (None, "cpu", None, "off"),
        ("0", "cpu", None, "off"),
        ("1", "cpu", None, "refused (no CUDA graphs on cpu)"),
        ("1", "cuda", 4, "refused (trains on micro-batches)"),
        (None, "cuda", None, "off"),
    ],
)
def test_the_environment_says_what_is_in_use(monkeypatch, asked, device, micro_batch, expected):
    monkeypatch.delenv("PSINAS_CAPTURE", raising=False)
    if asked is not None:
        monkeypatch.setenv("PSINAS_CAPTURE", asked)
    with fake_cuda():
        found = evaluate(trial(), device=device, micro_batch=micro_batch)
    assert found.status == "complete", found.reason
    assert found.environment["capture"] == expected


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"carry_perturbations": True}, "attacks begin where others ended"),
        ({"accumulate": 2}, "adds the gradients of several batches"),
    ],
)
def test_what_goes_from_batch_to_batch_is_not_recorded(settings, why):
    with fake_cuda():
        generator = torch.Generator("cuda")
        recipe = replace(RECIPE, flip=False, crop_padding=0, **settings)
        steps = captured(lambda x, y: x.sum(), net(), generator, None, recipe)
    assert steps.status == f"refused ({why})"
    assert steps(torch.ones(2), torch.ones(2)) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch without a GPU")
def test_a_torch_without_graphs_trains_eagerly(monkeypatch):
    monkeypatch.setenv("PSINAS_CAPTURE", "1")
    with fake_cuda():
        found = evaluate(trial(), device="cuda")
    assert found.status == "complete", found.reason
    assert found.environment["capture"].startswith("refused (")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card():
    found = []
    for capture in (False, True):
        torch.manual_seed(0)
        whole = data(64)
        split = Split(whole.train.pixels.cuda(), whole.train.labels.cuda())
        model = net().cuda()
        generator = torch.Generator("cuda").manual_seed(1)
        recipe = replace(RECIPE, precision="float32")
        steps = train(model, Data(split, split, whole.task), recipe, recipe.attack(), generator,
                      capture=capture)  # fmt: skip
        found.append(drain(steps))
    assert found[1].capture == "on"
    for name, weight in found[0].last_weights.items():
        torch.testing.assert_close(found[1].last_weights[name], weight, rtol=1e-3, atol=1e-4)


class Recorder:
    """Stands in for ``torch.cuda``: says what was asked of it, in order."""

    def __init__(self, patch):
        self.said = said = []
        self.now = "main"

        class Stream:
            def __init__(self, device):
                assert device.type == "cuda"

            def wait_stream(self, other):
                said.append(("side waits for", other))

        class Main:
            def wait_stream(self, other):
                said.append(("main waits for", other))

        class Graph:
            def register_generator_state(self, generator):
                said.append(("registers", generator))

            def replay(self):
                said.append(("replays", self))

        @contextmanager
        def stream(which):
            before, self.now = self.now, which
            try:
                yield
            finally:
                self.now = before

        @contextmanager
        def graph(of, *, stream, capture_error_mode):
            said.append(("begins", of))
            assert capture_error_mode == "thread_local"
            yield
            said.append(("ends", of))

        self.main = Main()
        for name, value in {
            "CUDAGraph": Graph, "Stream": Stream, "current_stream": lambda: self.main,
            "stream": stream, "graph": graph,
        }.items():  # fmt: skip
            patch.setattr(torch.cuda, name, value)


def test_what_is_asked_of_torch(monkeypatch):
    asked = Recorder(monkeypatch)
    with fake_cuda():
        generator = torch.Generator("cuda")
    graph = CudaGraph(generator)
    side = graph._stream
    streams = []
    assert graph.warm(lambda: streams.append(asked.now) or 5) == 5
    assert asked.said == [("side waits for", asked.main), ("main waits for", side)]
    asked.said.clear()
    for _ in range(2):  # the second time a graph of its own
        assert graph.capture(lambda: streams.append(asked.now) or 7) == 7
        graph.replay()
    one, other = (asked.said[i : i + 4] for i in (0, 4))
    for (what, first), *rest in (one, other):
        assert (what, first) == ("registers", generator)
        assert [name for name, _ in rest] == ["begins", "ends", "replays"]
        assert len({of for _, of in rest}) == 1
    assert one[1][1] is not other[1][1]
    assert streams == [side] * 3
    with pytest.raises(RuntimeError, match="no memory"):
        graph.capture(failing)
    assert asked.now == "main"
    with pytest.raises(AssertionError):  # nothing is recorded now
        graph.replay()


def failing():
    raise RuntimeError("no memory")
