"""NASNet cells: what is built, what it costs, which cells are one, how they take an attack."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from nasnet_by_hand import blocks_of, by_hand, choices_of
from torch import fx, nn
from torch.nn import functional

from metrics.attacks import FGSM, PGD
from metrics.cost import macs, parameters
from metrics.engine.folding import fast_copy
from metrics.robustness.accuracy import robust_accuracy
from search_spaces import InvalidArchitecture, NASNet, Task
from search_spaces.graphs import Cell
from search_spaces.nasnet.operations import FactorizedReduction
from search_spaces.nasnet.space import COMBINE

RGB = Task.plain((3, 32, 32), 10)
SMALL = NASNet(cells=1, filters=4)


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_sampled_networks_learn_and_cost_what_they_do_by_hand(count):
    rng = np.random.default_rng(count)
    for _ in range(count):
        architecture = SMALL.sample(rng)
        model = SMALL.build(architecture, RGB)
        logits = model(some(2, *RGB.shape))
        functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        cost = parameters(model), macs(model, some(1, *RGB.shape))
        assert cost == by_hand(SMALL, dict(architecture.choices), RGB), architecture


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 28, 20), (2, 7, 5), (3, 1, 1)], ids=str)
def test_cost_by_hand_with_two_cells_a_stage_and_odd_sides(shape, stem_stride):
    space = NASNet(cells=2, filters=6, blocks=5, stem_stride=stem_stride)
    task = Task.plain(shape, 3)
    rng = np.random.default_rng(0)
    for _ in range(6):
        architecture = space.sample(rng)
        model = space.build(architecture, task).eval()
        logits = model(some(2, *shape))
        assert logits.shape == (2, 3)
        assert logits.isfinite().all()
        cost = parameters(model), macs(model, some(1, *shape))
        assert cost == by_hand(space, dict(architecture.choices), task)


def test_the_winner_is_enlarged_by_the_settings():
    architecture = SMALL.sample(np.random.default_rng(3))
    large = replace(SMALL, cells=3, filters=12)
    again = large.architecture(dict(architecture.choices))
    assert large.cell(again) == SMALL.cell(architecture)
    assert parameters(large.build(again, RGB)) == by_hand(large, dict(again.choices), RGB)[0]
    assert again.hash != architecture.hash


def relabelled(blocks, rng):
    """Return the same cell with its blocks in another order and their sides swapped."""
    states, order = {0: 0, 1: 1}, []
    while len(order) < len(blocks):
        ready = [
            b
            for b, (reads, _) in enumerate(blocks)
            if b not in order and all(state in states for _, state in reads)
        ]
        chosen = int(rng.choice(ready))
        states[chosen + 2] = len(order) + 2
        order.append(chosen)
    found = []
    for b in order:
        reads, combine = blocks[b]
        moved = [(operation, states[state]) for operation, state in reads]
        found.append((moved[:: rng.choice([-1, 1])], combine))
    return found


def trained_step(model, images, labels):
    """Take one step in training mode, and return the weights."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1, momentum=0.9)
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    return [*model.parameters(), *model.buffers()]


def test_isomorphic_cells_are_one_architecture_and_one_function():
    """Equal to the last bit, with the same seed: untrained in eval, and after a training step."""
    rng, moved = np.random.default_rng(0), 0
    x, y = some(4, 3, 12, 12), torch.tensor([0, 1, 2, 3])
    for _ in range(6):
        one = SMALL.sample(rng)
        blocks = blocks_of(SMALL, dict(one.choices))
        other = SMALL.architecture(choices_of(relabelled(blocks, rng)))
        moved += one.choices != other.choices
        assert one.hash == other.hash
        assert SMALL.features(dict(one.choices)) == SMALL.features(dict(other.choices))
        assert SMALL.cell(one) == SMALL.cell(other)
        a, b = (SMALL.build(v, RGB, seed=5) for v in (one, other))
        assert torch.equal(a.eval()(x), b.eval()(x))
        weights = zip(trained_step(a, x, y), trained_step(b, x, y), strict=True)
        assert all(torch.equal(v, w) for v, w in weights)
        assert torch.equal(a.eval()(x), b.eval()(x))
    assert moved == 6


def test_hashes_are_equal_for_isomorphic_cells_alone():
    """Against every relabelling of cells of three blocks, most of one kind so that some meet."""
    space, rng = NASNet(blocks=3), np.random.default_rng(1)
    smallest, written = {}, set()
    for _ in range(1000):
        blocks = []
        for b in range(1, 4):
            operations = rng.choice(["identity", "conv_1x1"], 2, p=[0.9, 0.1]).tolist()
            states = rng.integers(b + 1, size=2).tolist()
            reads = list(zip(operations, states, strict=True))
            blocks.append((reads, rng.choice(COMBINE, p=[0.8, 0.2]).item()))
        listings = []
        for order in itertools.permutations(range(3)):
            place = {0: 0, 1: 1, **{b + 2: i + 2 for i, b in enumerate(order)}}
            listings.append(
                tuple(
                    (blocks[b][1], tuple(sorted((op, place[s]) for op, s in blocks[b][0])))
                    for b in order
                )
            )
        written.add(listings[0])
        found = space.architecture(choices_of(blocks)).hash
        smallest.setdefault(min(listings), set()).add(found)
    assert 500 < len(smallest) < len(written) - 50  # that many are one with another
    assert all(len(hashes) == 1 for hashes in smallest.values())
    assert len(set.union(*smallest.values())) == len(smallest)


@pytest.mark.parametrize(
    "settings",
    [{"cells": 2}, {"filters": 8}, {"stem_multiplier": 1}, {"stem_stride": 2}, {"drop_path": 0.1}],
    ids=str,
)
def test_the_hash_knows_the_settings(settings):
    choices = dict(SMALL.sample(np.random.default_rng(0)).choices)
    other = replace(SMALL, **settings)
    assert other.architecture(choices).hash != SMALL.architecture(choices).hash


def test_no_drop_path_has_one_hash_however_it_is_written():
    choices = dict(SMALL.sample(np.random.default_rng(0)).choices)
    whole = replace(SMALL, drop_path=0).architecture(choices)
    assert whole == SMALL.architecture(choices)


EXAMPLE = choices_of(
    [
        ([("sep_conv_3x3", 1), ("identity", 0)], "concat"),
        ([("max_pool_3x3", 2), ("conv_1x7_7x1", 1)], "add"),
        ([("identity", 1), ("identity", 1)], "add"),
    ]
)


def test_features_of_a_cell_by_hand():
    features = NASNet(blocks=3).features(EXAMPLE)
    assert {name: count for name, count in features.items() if count} == {
        "op:sep_conv_3x3": 1,
        "op:identity": 3,
        "op:max_pool_3x3": 1,
        "op:conv_1x7_7x1": 1,
        "pair:h[i]>sep_conv_3x3": 1,
        "pair:h[i-1]>identity": 1,
        "pair:sep_conv_3x3>max_pool_3x3": 1,
        "pair:identity>max_pool_3x3": 1,
        "pair:h[i]>conv_1x7_7x1": 1,
        "pair:h[i]>identity": 2,
        "uses:h[i-1]": 1,
        "uses:h[i]": 4,
        "concat": 1,
        "loose_ends": 2,
        "longest_path": 2,
    }
    assert list(features) == list(
        SMALL.features(dict(SMALL.sample(np.random.default_rng(0)).choices))
    )


def test_the_cell_to_draw_by_hand():
    space = NASNet(blocks=1)
    choices = choices_of([([("sep_conv_3x3", 1), ("identity", 0)], "concat")])
    assert space.cell(space.architecture(choices)) == Cell(
        ("h[i-1]", "h[i]", "concat", "output"),
        ((0, 2, "identity"), (1, 2, "sep_conv_3x3"), (2, 3, "")),
    )


def test_hidden_states_of_a_cell_by_hand():
    """Stem 1; input 1; separable 4 (identity of a reduction 1), pool on two widths 1."""
    space = NASNet(blocks=3, cells=1, filters=4)
    layers = {"cell1": 7, "cell2": 13, "cell3": 19, "cell4": 25, "cell5": 31, "": 32}
    assert space.hidden_states(space.architecture(EXAMPLE)) == layers


def longest_path(model):
    """Return the convolutions and linear layers on the longest path through the traced graph."""
    traced = fx.symbolic_trace(model.eval())
    longest = {}
    for node in traced.graph.nodes:
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        before = max((longest[n] for n in node.all_input_nodes), default=0)
        longest[node] = before + isinstance(module, nn.Conv2d | nn.Linear)
    return max(longest.values())


def test_hidden_states_count_the_layers_of_the_longest_path():
    rng = np.random.default_rng(4)
    for _ in range(10):
        architecture = SMALL.sample(rng)
        model = SMALL.build(architecture, RGB)
        assert model.hidden_states[""] == longest_path(model)


def test_cells_that_lead_nowhere_are_not_built():
    """Where cells read the one before the last alone, every second one plays no part."""
    space = NASNet(blocks=1, cells=1, filters=4)
    skipping = choices_of([([("conv_1x1", 0), ("conv_3x3", 0)], "add")])
    model = space.build(space.architecture(skipping), RGB)
    assert list(model.hidden_states) == ["1.cell1", "1.cell3", "1.cell5", ""]
    halves = [name for name, m in model.named_modules() if isinstance(m, FactorizedReduction)]
    assert halves == ["1.cell3.input0", "1.cell5.input0"]
    following = choices_of([([("conv_1x1", 1), ("conv_3x3", 1)], "add")])
    model = space.build(space.architecture(following), RGB)
    assert len(model.hidden_states) == 6
    assert not any("input0" in name for name, _ in model.named_modules())


def test_the_forward_pass_by_hand():
    """Each cell reads the two outputs before it, the first the stem twice."""
    space = NASNet(blocks=2, cells=1, filters=4)
    choices = choices_of(
        [
            ([("max_pool_3x3", 1), ("conv_1x1", 0)], "concat"),
            ([("sep_conv_3x3", 2), ("identity", 1)], "add"),
        ]
    )
    net = space.build(space.architecture(choices), RGB).eval()[1]
    x = some(2, *RGB.shape)
    before = last = net.stem(x)
    cells = (net.cell1, net.cell2, net.cell3, net.cell4, net.cell5)
    for cell, stride in zip(cells, (1, 2, 1, 2, 1), strict=True):
        a, b = cell.input0(before), cell.input1(last)
        first = torch.cat([cell.block1_1(a), functional.max_pool2d(b, 3, stride, padding=1)], 1)
        before, last = last, cell.block2_1(b) + cell.block2_2(first)
    assert torch.allclose(net(x), net.head[3](last.relu().mean((2, 3))), rtol=0, atol=1e-6)


DROPPING = NASNet(blocks=1, cells=1, filters=4, drop_path=0.5)
SIDES = choices_of([([("identity", 1), ("conv_1x1", 0)], "concat")])  # built conv_1x1 first


@pytest.mark.parametrize("number", [1, 3, 5])
def test_drop_path_zeroes_the_output_of_an_operation_and_keeps_its_mean(number):
    """Identity is left alone; the probability grows with the cell's number, to 0.5 in the fifth."""
    without = replace(DROPPING, drop_path=0.0)
    cell, plain = (
        space.build(space.architecture(SIDES), RGB)[1].get_submodule(f"cell{number}")
        for space in (DROPPING, without)
    )
    filters = {1: 4, 3: 8, 5: 16}[number]
    before = {1: (12, 6, 6), 3: (8, 12, 12), 5: (16, 12, 12)}[number]  # the stem; twice as large
    last = {1: (12, 6, 6), 3: (16, 6, 6), 5: (32, 6, 6)}[number]
    inputs = some(50, *before), some(50, *last)
    with torch.no_grad():
        expected = plain(*inputs)
        torch.manual_seed(0)
        draws = torch.stack([cell(*inputs) for _ in range(200)])
        torch.manual_seed(0)
        assert torch.equal(cell(*inputs), draws[0])
    assert not torch.equal(draws[0], draws[1])
    probability = 0.5 * number / 5
    dropped = (draws[:, :, :filters] == 0).all(dim=(2, 3, 4))
    assert dropped.double().mean().item() == pytest.approx(probability, abs=0.02)
    assert dropped.any(1).all()  # image by image, not whole batches
    assert not dropped.all(1).any()
    kept = draws[:, :, :filters][~dropped]
    whole = expected[:, :filters].expand(200, -1, -1, -1, -1)[~dropped]
    assert torch.allclose(kept, whole / (1 - probability), atol=1e-5)
    mean = draws[:, :, :filters].mean((0, 1))
    assert torch.allclose(mean, expected[:, :filters].mean(0), atol=0.1)
    assert torch.equal(draws[:, :, filters:], expected[:, filters:].expand(200, -1, -1, -1, -1))


def test_drop_path_is_for_training_alone():
    without = replace(DROPPING, drop_path=0.0)
    a, b = (s.build(s.architecture(SIDES), RGB, seed=2) for s in (DROPPING, without))
    x = some(4, *RGB.shape)
    assert list(a.state_dict()) == list(b.state_dict())
    assert torch.equal(a.eval()(x), b.eval()(x))
    assert not torch.equal(a.train()(x), b.train()(x))


def with_statistics(model, task):
    """Give batch norms the statistics of a batch and weights of their own, as training does."""
    draws = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
        for weight in (norm.weight, norm.bias):
            weight.data += 0.3 * torch.randn(weight.shape, generator=draws)
    with torch.no_grad():
        model.train()(torch.rand(32, *task.shape, generator=draws))
    return model.eval()


def test_a_fast_copy_computes_the_same_function():
    """In float64, where no ReLU and no max-pool rounds to its other side, and its logits in both.

    Every batch norm is folded but that of a factorised reduction, which is behind a concatenation.
    """
    rng, x = np.random.default_rng(6), some(4, *RGB.shape)
    for _ in range(4):
        model = with_statistics(SMALL.build(SMALL.sample(rng), RGB), RGB)
        exact = copy.deepcopy(model).double()
        quick = fast_copy(exact, x[:2].double())
        assert quick is not None
        used = [quick.get_submodule(n.target) for n in quick.graph.nodes if n.op == "call_module"]
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in used)
        assert norms == sum(isinstance(m, FactorizedReduction) for m in model.modules())
        with torch.no_grad():
            expected = exact(x.double())
            size = expected.abs().max().item()
            assert torch.allclose(quick(x.double()), expected, rtol=0, atol=1e-9 * size)
            assert torch.allclose(quick.float()(x), model(x), rtol=0, atol=1e-4 * size)


@pytest.mark.parametrize("attack", [FGSM(epsilon=4 / 255), PGD(epsilon=4 / 255, steps=3)], ids=str)
def test_robust_accuracy_is_that_of_the_plain_model(attack):
    """Every image labelled as the model answers: what is left then is the attack's doing."""
    space, task = replace(SMALL, drop_path=0.4), Task.plain((3, 12, 12), 4)
    model = with_statistics(space.build(space.sample(np.random.default_rng(8)), task), task)
    x = some(60, *task.shape)
    y = model(x).argmax(1)
    quick, plain = (
        robust_accuracy(model, x, y, attack, generator=torch.Generator().manual_seed(2), fast=fast)
        for fast in (True, False)
    )
    assert quick.clean.all()
    assert 0 < quick.accuracy < 1
    assert quick.zero_gradients == 0
    assert abs(quick.accuracy - plain.accuracy) <= 2 / 60  # images at the boundary may round


def test_activations_are_in_channels_last():
    model = SMALL.build(SMALL.sample(np.random.default_rng(0)), Task.plain((1, 28, 28), 10))
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _x, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    model(torch.rand(2, 1, 28, 28))
    assert len(seen) > 20
    assert all(seen)


@pytest.mark.parametrize(
    "settings",
    [{"blocks": 0}, {"cells": 0}, {"filters": 2.0}, {"stem_multiplier": True}, {"drop_path": 1},
     {"drop_path": -0.1}, {"drop_path": float("nan")}],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected .*, got"):
        NASNet(**settings)


def test_images_of_nothing_are_invalid():
    with pytest.raises(InvalidArchitecture, match="expected images"):
        SMALL.build(SMALL.sample(np.random.default_rng(0)), Task.plain((3, 0, 4), 2))
