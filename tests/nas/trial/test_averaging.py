"""The average of the weights: its formula, its batch norms' statistics, which weights are kept."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from metrics.attacks import Attack
from metrics.robustness.accuracy import robust_accuracy
from nas.data.arrays import Split
from nas.trial import training as training_module
from nas.trial.averaging import STATISTICS_IMAGES, WeightAverage, statistics_batches
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

RECIPE = Recipe(
    epochs=3, batch_size=32, epsilon=0.1, steps=2, selection_images=50, weight_average=0.9,
    flip=True, crop_padding=1,
)  # fmt: skip


def net(digits, seed=0, channels=8):
    space = DepthChannels(depth=(2,), channels=(channels,), stem="small")
    architecture = space.architecture({"depth": 2, "channels": channels})
    return space.build(architecture, digits.task, seed=seed)


def trained(digits, recipe, seed=0):
    model, generator = net(digits), torch.Generator().manual_seed(seed)
    training = drain(train(model, digits, recipe, recipe.attack(), generator))
    return model, training, generator.get_state()


class Walk(nn.Module):
    """One weight that a test sets by hand."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=dtype))


def walked(decay, path, dtype=torch.float64):
    model = Walk(dtype)
    average = WeightAverage(model, decay)
    for value in path:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    return average


@pytest.mark.parametrize("n", [1, 7, 100])
def test_before_the_decay_is_reached_a_constant_gradient_is_followed_by_nine_tenths(n):
    """Of weights 0, 1, ..., n with d_t = (1 + t) / (10 + t) the average is 9 n / 10.

    Weight i counts C(i + 8, 8) / C(n + 9, 9): by sum i C(i + 8, 8) = 9 C(n + 9, 10).
    """
    closed = sum(i * math.comb(i + 8, 8) for i in range(n + 1)) / math.comb(n + 9, 9)
    assert closed == pytest.approx(0.9 * n, rel=1e-12)
    found = walked(0.999, range(1, n + 1)).parameters[0]
    assert found.tolist() == pytest.approx([closed] * 3, rel=1e-9)


def test_after_the_decay_is_reached_the_average_lags_by_its_mean_age():
    """Of a constant step the average is d / (1 - d) steps behind, in the limit."""
    average = walked(0.9, range(1, 1001))
    assert average.parameters[0].tolist() == pytest.approx([1000 - 9] * 3, rel=1e-9)
    decays = [min(0.9, (1 + t) / (10 + t)) for t in range(200)]
    path = [math.sin(t) for t in range(200)]
    shares = [(1 - d) * math.prod(decays[t + 1 :]) for t, d in enumerate(decays)]
    expected = math.fsum(s * p for s, p in zip(shares, path, strict=True))
    assert walked(0.9, path).parameters[0].tolist() == pytest.approx([expected] * 3, rel=1e-9)


def test_half_precision_is_averaged_in_float32():
    """In bf16 a step of a thousandth of a difference is lost."""
    average = walked(0.999, [1.0] * 20_000, torch.bfloat16)
    assert average.parameters[0].dtype == torch.float32
    assert average.parameters[0].tolist() == pytest.approx([1.0] * 3, abs=1e-4)
    with average.in_model():
        assert average.model.weight.dtype == torch.bfloat16


class Normed(nn.Module):
    """A batch norm after a layer, with dropout before it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x):
        return self.norm(self.layer(self.dropout(x))).mean((2, 3))


def test_statistics_are_those_of_the_averaged_layers_in_float64():
    torch.manual_seed(0)
    model = Normed()
    model.norm.num_batches_tracked.fill_(11)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.layer.weight += 1.0
    average.update()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    batches = [torch.rand(8, 1, 5, 5) for _ in range(4)]
    model.train()
    state = torch.get_rng_state()
    average.renew(lambda: batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.norm.training
    assert model.norm.momentum == 0.1
    for name, w in model.state_dict().items():
        assert torch.equal(w, before[name])
    weights = average.weights()
    moved = before["layer.weight"].double() - 0.1  # d_0 = 1 / 10 of the first weights is left
    assert torch.allclose(weights["layer.weight"].double(), moved, atol=1e-6)
    bias = before["layer.bias"].double()
    outputs = [nn.functional.conv2d(x.double(), moved, bias) for x in batches]
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0)
    variances = torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0)
    assert torch.allclose(weights["norm.running_mean"].double(), means, rtol=1e-5)
    assert torch.allclose(weights["norm.running_var"].double(), variances, rtol=1e-4)
    assert (weights["count"].item(), weights["norm.num_batches_tracked"].item()) == (7, 11)


def test_a_model_without_batch_norms_looks_at_no_images():
    def none():
        raise AssertionError("no pass is needed")
        yield

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    WeightAverage(model, 0.9).renew(none)


@pytest.mark.parametrize(("images", "size"), [(5, 128), (100, 32), (3000, 128), (33, 16)])
def test_statistics_are_of_equal_batches_of_different_training_images(images, size):
    pixels = torch.arange(images)[:, None, None, None] / 10_000 * torch.ones(1, 1, 2, 2)
    split = Split(pixels, torch.zeros(images, dtype=torch.long))
    model, recipe = nn.Identity(), Recipe(batch_size=size)
    batches = list(statistics_batches(model, split, recipe, None, 3))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    seen = torch.cat(batches)[:, 0, 0, 0].tolist()
    assert len(set(seen)) == len(seen) == min(images, STATISTICS_IMAGES)
    again = torch.cat(list(statistics_batches(model, split, recipe, None, 3)))
    assert again[:, 0, 0, 0].tolist() == seen
    small = statistics_batches(model, split, recipe, None, 3, micro_batch=4)
    assert max(len(batch) for batch in small) <= 4


@pytest.mark.parametrize(
    ("loss", "share", "attacked"),
    [("cross-entropy", 0.5, [5]), ("cross-entropy", 1.0, [10]), ("trades", 1.0, [0, 10])],
)
@pytest.mark.parametrize("leaks", [False, True])
def test_statistics_are_of_images_such_as_the_recipe_trains_on(loss, share, attacked, leaks):
    """The attack sees the averaged model, and labels where it does not leak them."""
    asked = []

    class Blacken(Attack):
        leaks_labels = leaks

        def perturb(self, model, x, labels, generator):
            asked.append((model[1].weight.detach().clone(), labels is None, model.training))
            return torch.zeros_like(x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    average = WeightAverage(model, 0.9)
    first = average.parameters[0].clone()
    with torch.no_grad():
        model[1].weight += 1
    split = Split(torch.full((20, 1, 2, 2), 0.5), torch.zeros(20, dtype=torch.long))
    recipe = Recipe(batch_size=10, adversarial_share=share, loss=loss)
    found = []

    def make():
        found.extend(statistics_batches(model, split, recipe, Blacken(), 3))
        return found

    average.renew(make)
    black = [int((batch == 0).flatten(1).all(1).sum()) for batch in found]
    assert black == attacked * 2
    assert all(torch.equal(w, first) for w, *_ in asked)
    assert [rest for _, *rest in asked] == [[leaks, False]] * 2


def test_the_plain_weights_are_those_of_training_without_an_average(digits):
    model, without, state = trained(digits, replace(RECIPE, weight_average=None))
    _, with_average, state_with = trained(digits, RECIPE)
    assert torch.equal(state, state_with)
    for name, w in model.state_dict().items():
        assert torch.equal(w, with_average.plain.best_weights[name])
        assert torch.equal(without.last_weights[name], with_average.plain.last_weights[name])
    assert (without.plain, without.average, without.best_is_average) == (None, None, False)
    reports = [(e.train_loss, e.clean_accuracy, e.robust_accuracy) for e in without.epochs]
    assert reports == [
        (e.train_loss, e.clean_accuracy, e.robust_accuracy) for e in with_average.epochs
    ]
    assert all(math.isnan(e.average_robust_accuracy) for e in without.epochs)


def judged(digits, weights, seed, recipe=RECIPE):
    """Return robust and clean accuracy of a state dict, in a model of its own."""
    model = net(digits, seed=5)
    model.load_state_dict(weights)
    x, y = digits.validation.images(slice(50)), digits.validation.labels[:50]
    generator = torch.Generator().manual_seed(seed)
    found = robust_accuracy(model, x, y, recipe.judge(), generator=generator)
    return found.accuracy, found.clean.double().mean().item()


def test_both_are_judged_by_the_same_attack_and_the_better_is_kept(digits):
    generator = torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (), generator=generator))
    kinds = set()
    for schedule, epochs in (("one-cycle", 3), ("constant", 6)):
        recipe = replace(RECIPE, schedule=schedule, epochs=epochs, learning_rate=0.2)
        model, training, _ = trained(digits, recipe)
        plain, average, last = training.plain, training.average, training.last
        assert judged(digits, plain.best_weights, seed) == plain.best.rank
        assert judged(digits, plain.last_weights, seed) == last.rank
        assert judged(digits, average.best_weights, seed) == average.best.average_rank
        assert judged(digits, average.last_weights, seed) == last.average_rank
        best = max(rank for e in training.epochs for rank in (e.rank, e.average_rank))
        assert judged(digits, model.state_dict(), seed) == best
        kept = average if training.best_is_average else plain
        assert training.best is kept.best
        assert judged(digits, training.last_weights, seed) == last.better_rank
        kinds.add(training.best_is_average)
    assert kinds == {False, True}


def answers(monkeypatch, plain, average):
    """Let epochs be judged by these (robust, clean) accuracies, plain before averaged."""
    told = iter([v for pair in zip(plain, average, strict=True) for v in pair])

    def judge(model, data, recipe, seed):
        robust, clean = next(told)
        return clean, robust

    monkeypatch.setattr(training_module, "_judge", judge)


@pytest.mark.parametrize(
    ("plain", "average", "epoch", "is_average"),
    [
        ([(0.5, 0.9), (0.4, 0.9), (0.1, 0.9)], [(0.1, 0.9), (0.2, 0.9), (0.6, 0.1)], 3, True),
        ([(0.5, 0.9), (0.7, 0.9), (0.1, 0.9)], [(0.1, 0.9), (0.2, 0.9), (0.6, 0.1)], 2, False),
        ([(0.5, 0.9), (0.6, 0.1), (0.1, 0.9)], [(0.1, 0.9), (0.6, 0.2), (0.6, 0.1)], 2, True),
        ([(0.5, 0.9)] * 3, [(0.5, 0.9)] * 3, 1, False),  # plain before averaged
        ([(0.1, 0.9), (0.5, 0.9), (0.5, 0.9)], [(0.5, 0.9)] * 3, 1, True),  # the earlier first
    ],
)
def test_best_is_over_epochs_and_over_plain_and_averaged_weights(
    digits, monkeypatch, plain, average, epoch, is_average
):
    answers(monkeypatch, plain, average)
    model, training, _ = trained(digits, RECIPE)
    assert (training.best.epoch, training.best_is_average) == (epoch, is_average)
    kept = training.average if is_average else training.plain
    for name, w in model.state_dict().items():
        assert torch.equal(w, kept.best_weights[name])


def test_without_images_to_judge_by_the_last_average_is_kept(digits):
    model, training, _ = trained(digits, replace(RECIPE, selection_images=0))
    assert (training.best.epoch, training.best_is_average, training.last_is_average) == (
        3, True, True,
    )  # fmt: skip
    for name, w in model.state_dict().items():
        assert torch.equal(w, training.average.last_weights[name])
        assert torch.equal(w, training.last_weights[name])
    assert any(
        not torch.equal(w, training.plain.last_weights[name])
        for name, w in model.state_dict().items()
    )


def test_no_epochs_leave_no_average(digits):
    _, training, _ = trained(digits, replace(RECIPE, epochs=0))
    assert (training.plain, training.average, training.best_is_average) == (None, None, False)


def test_an_average_goes_on_from_its_saved_state(digits):
    model = net(digits)
    average = WeightAverage(model, 0.9)

    def step(seed):
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p += torch.rand(p.shape, generator=torch.Generator().manual_seed(seed + i))
        average.update()

    step(0)
    average.renew(lambda: [digits.train.images(slice(32))])
    average.best_epoch, average.best_weights = 1, average.weights()
    saved = {k: v.clone() if torch.is_tensor(v) else v for k, v in average.state_dict().items()}
    step(100)
    expected = average.weights()
    other = WeightAverage(net(digits, seed=3), 0.9)
    other.model.load_state_dict(model.state_dict())
    other.load_state_dict(saved)
    other.update()
    for name, w in other.weights().items():
        assert torch.equal(w, expected[name])
    assert (other.steps, other.best_epoch) == (2, 1)
    for name, w in average.best_weights.items():
        assert torch.equal(w, other.best_weights[name])


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, math.nan])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"^weight_average: expected a decay in \(0, 1\)"):
        Recipe(weight_average=decay)
