"""NAS-Bench-201: one hash is one function, and the published counts come out."""

from __future__ import annotations

import csv
import random
from collections import Counter, defaultdict
from itertools import permutations, product

import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.engine.folding import fast_copy
from search_spaces import InvalidArchitecture, NASBench201, Task

NAMES = ("edge_0_1", "edge_0_2", "edge_1_2", "edge_0_3", "edge_1_3", "edge_2_3")
ENDS = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
KINDS = ("nor_conv_1x1", "nor_conv_3x3")
LETTERS = {"-": "none", "s": "skip_connect", "1": KINDS[0], "3": KINDS[1], "p": "avg_pool_3x3"}
ALL = list(product(LETTERS.values(), repeat=6))
SPACE = NASBench201(cells=1, filters=2)
TASK = Task.plain((3, 8, 8), 10)


def named(operations):
    return dict(zip(NAMES, operations, strict=True))


def cell(letters, space=SPACE):
    """Return the architecture of six letters, in the order of the string form."""
    return space.architecture(named([LETTERS[letter] for letter in letters]))


@pytest.fixture(scope="module")
def hashes():
    """Return the hash of each of ALL."""
    return [SPACE.architecture(named(operations)).hash for operations in ALL]


# What follows reads a cell edge by edge, as its string says. Convolutions are random polynomials
# without a constant term over a finite field, and the pool is a random factor: two formulas that
# are not the same agree in their value with a chance of less than one in 10^15.

PRIME = 2**61 - 1
DRAWS = random.Random(0)
POLYNOMIALS = [[DRAWS.randrange(1, PRIME) for _ in range(3)] for _ in range(14)]
POOL, INPUT = DRAWS.randrange(1, PRIME), DRAWS.randrange(1, PRIME)


def output(operations, functions):
    """Return the cell's output; ``functions``: edge of a convolution -> its polynomial."""
    nodes = [INPUT, 0, 0, 0]
    for edge, ((source, target), operation) in enumerate(zip(ENDS, operations, strict=True)):
        x = nodes[source]
        if operation in KINDS:
            a, b, c = POLYNOMIALS[functions[edge]]
            x = x * (a + x * (b + x * c))
        elif operation != "skip_connect":
            x = x * POOL if operation == "avg_pool_3x3" else 0
        nodes[target] = (nodes[target] + x) % PRIME
    return nodes[3]


def live_convolutions(operations):
    """Return, for each kind, the edges with a convolution that makes a difference."""
    edges = {edge: edge for edge, operation in enumerate(operations) if operation in KINDS}
    before = output(operations, edges)
    live = [edge for edge in edges if output(operations, {**edges, edge: 13}) != before]
    return [[edge for edge in live if operations[edge] == kind] for kind in KINDS]


def bijections(operations):
    """Yield every way to number the live convolutions of each kind: edge -> number."""
    first, second = live_convolutions(operations)
    for one in permutations(range(len(first))):
        for three in permutations(range(len(second))):
            yield dict(zip((*first, *second), (*one, *(7 + i for i in three)), strict=True))


def function_of(operations):
    """Return what is equal for two cells that some bijection of their convolutions makes equal."""
    outputs = {output(operations, defaultdict(int, numbers)) for numbers in bijections(operations)}
    return tuple(len(edges) for edges in live_convolutions(operations)), min(outputs)


def flattened(operations, *, flatten):
    """Return the cell as a string of sums, zeros left out; a skip passes its node's terms on."""
    nodes = [["0"], [], [], []]
    for (source, target), operation in zip(ENDS, operations, strict=True):
        whole = "+".join(sorted(nodes[source]))
        if operation == "skip_connect":
            nodes[target] += nodes[source] if flatten else [whole] * bool(whole)
        elif operation != "none" and whole:
            nodes[target].append(f"({whole})@{operation}")
    return "+".join(sorted(nodes[3]))


def test_one_hash_is_one_function_and_another_hash_is_another(hashes):
    """Over all 15,625 cells; zero is the function of 341 of them."""
    functions = [function_of(operations) for operations in ALL]
    assert len(set(hashes)) == len(set(functions)) == len(set(zip(hashes, functions, strict=True)))
    assert len(set(hashes)) == 5044
    assert Counter(functions)[((0, 0), 0)] == 341


def test_strings_alone_miscount_the_functions(hashes):
    """5,390 keep sums apart that are equal; 4,930 take one convolution read twice for two."""
    assert len({flattened(operations, flatten=False) for operations in ALL}) == 5390
    strings = [flattened(operations, flatten=True) for operations in ALL]
    pairs = set(zip(strings, hashes, strict=True))
    assert len(set(strings)) == 4930
    assert len(pairs) - len(set(strings)) == 330  # strings of two functions or more
    assert len(pairs) - len(set(hashes)) == 216  # functions of two strings or more, by their pools


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("3--s--", "---s--", True),  # a dead convolution
        ("3--ss-", "---s--", False),
        ("3---s-", "3s--s-", True),  # the second node is not read
        ("3---1-", "-3---1", True),  # by the first node or by the second
        ("3---s-", "---3--", True),
        ("33--ss", "3-s-ss", False),  # two convolutions, or one read twice
        ("pp--ss", "p-s-ss", True),  # two pools of one image are one counted twice
        ("ss--pp", "pp--ss", True),  # pools of a sum, and the sum of the pools
        ("-1s-33", "-1---3", True),  # the first node is zero, and so is what reads it
        ("3-1--p", "p-3--1", False),  # the order of operations
        ("ss-s--", "---s--", True),
        ("s--ss-", "---s--", False),  # a factor counts
    ],
)
def test_cells_that_are_the_same_function(left, right, same):
    assert (cell(left).hash == cell(right).hash) == same


def test_the_benchmark_tells_6466_cells_apart():
    keys = {SPACE.table_key(named(operations)) for operations in ALL}
    assert len(keys) == 6466


@pytest.mark.data
def test_the_published_table_has_one_row_for_each_key(data_root):
    with open(data_root / "nasbench201-robust-cifar10.csv") as file:
        strings = [row["nb201_string"] for row in csv.DictReader(file)]
    architectures = [SPACE.from_string(string) for string in strings]
    assert [SPACE.to_string(architecture) for architecture in architectures] == strings
    assert len(strings) == 6466
    assert len({SPACE.table_key(dict(a.choices)) for a in architectures}) == 6466


def test_strings_have_the_published_form():
    text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|"
    assert SPACE.to_string(cell("31-sp-")) == text
    assert SPACE.from_string(text) == cell("31-sp-")
    assert list(cell("31-sp-").choices)[:2] == [("edge_0_1", KINDS[1]), ("edge_0_2", KINDS[0])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("~0|+", "~0|"), r"expected \|op~0\|\+\|op~0\|op~1\|\+\|op~0\|op~1\|op~2\|, got '\|none"),
        (("none~2", "none~1"), r"expected \|op~0\|"),
        (("|none~2|", ""), r"expected \|op~0\|"),
        (("none~2|", "none~2|\n"), r"expected \|op~0\|"),
        (("none~2", "conv~2"), "edge_2_3: expected one of .*'none', 'skip_connect'.*, got 'conv'"),
        (("none~0|+", "conv~0|+"), "edge_0_1: expected one of .*, got 'conv'"),
        (("none~2|", "conv~2||"), r"expected \|op~0\|"),  # the form comes first
    ],
)
def test_other_strings_are_refused_in_one_line(change, message):
    text = SPACE.to_string(cell("------")).replace(*change)
    with pytest.raises(ValueError, match=message) as error:
        SPACE.from_string(text)
    assert "\n" not in str(error.value)


def naive_cell(operations, convolutions, x):
    """Return the cell's output with ``convolutions``: edge -> built layer; None is zero."""
    nodes = [x, None, None, None]
    for edge, ((source, target), operation) in enumerate(zip(ENDS, operations, strict=True)):
        value = nodes[source]
        if value is None or operation == "none":
            continue
        if operation in KINDS:
            if edge not in convolutions:  # dead
                continue
            value = relu_conv_bn(value, *list(convolutions[edge])[1:])
        elif operation == "avg_pool_3x3":
            value = average_inside(value)
        nodes[target] = value if nodes[target] is None else nodes[target] + value
    return nodes[3]


def relu_conv_bn(x, conv, norm):
    x = functional.conv2d(x.clamp(min=0), conv.weight, padding=conv.kernel_size[0] // 2)
    mean, variance = norm.running_mean.view(-1, 1, 1), norm.running_var.view(-1, 1, 1)
    scale, shift = norm.weight.view(-1, 1, 1), norm.bias.view(-1, 1, 1)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def average_inside(x):
    ones = torch.ones(1, 1, 3, 3, dtype=x.dtype)
    total = functional.conv2d(x.flatten(0, 1)[:, None], ones, padding=1)
    return (total / functional.conv2d(torch.ones_like(total), ones, padding=1)).view(x.shape)


def with_statistics(model):
    """Give batch norms weights and statistics like those of a trained net; return it in eval()."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for v in (module.weight, module.bias, module.running_mean, module.running_var):
                v.data = torch.rand(v.shape, generator=generator, dtype=v.dtype) + 0.5
    return model.eval()


def members_of_classes(hashes, count):
    """Return ``count`` classes of at least three cells, three cells each, as operations."""
    classes = defaultdict(list)
    for operations, found in zip(ALL, hashes, strict=True):
        if function_of(operations) != ((0, 0), 0):
            classes[found].append(operations)
    rng = random.Random(0)
    large = [members for members in classes.values() if len(members) >= 3]
    return [rng.sample(members, 3) for members in rng.sample(large, count)]


def test_cells_of_one_hash_are_built_as_one_function_which_is_what_each_string_says(hashes):
    """Some bijection of a string's live convolutions to the built ones gives the built output."""
    images = torch.rand(2, *TASK.shape, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(2)).double()
    sizes = set()
    for members in members_of_classes(hashes, 40):
        models = [SPACE.build(SPACE.architecture(named(m)), TASK, seed=3) for m in members]
        assert len({str(model) for model in models}) == 1
        logits = [with_statistics(model)(images) for model in models]
        assert all(torch.equal(logits[0], other) for other in logits[1:])
        built = models[0][1].cell1.double()
        layers = {kind: [c for c in built.convolutions if kind_of(c) == kind] for kind in KINDS}
        for operations in members:
            expected = [
                naive_cell(
                    operations,
                    {e: layers[operations[e]][n % 7] for e, n in numbers.items()},
                    x,
                )
                for numbers in bijections(operations)
            ]
            assert any(torch.allclose(built(x), y, rtol=1e-10) for y in expected), operations
            sizes.add(len(built.convolutions))
            assert len(built.convolutions) == sum(map(len, live_convolutions(operations)))
    assert sizes >= {1, 2, 3, 4}


def kind_of(layer):
    relu, conv, norm = layer
    assert isinstance(relu, nn.ReLU)
    assert isinstance(norm, nn.BatchNorm2d)
    return f"nor_conv_{conv.kernel_size[0]}x{conv.kernel_size[1]}"


def test_every_parameter_has_a_gradient_and_the_fast_copy_is_exact():
    rng = random.Random(4)
    cells = [operations for operations in rng.sample(ALL, 30) if function_of(operations)[1]]
    assert len(cells) > 20
    images = torch.rand(4, *TASK.shape, generator=torch.Generator().manual_seed(5))
    for operations in cells:
        model = SPACE.build(SPACE.architecture(named(operations)), TASK, seed=6)
        (model(images) * torch.arange(10)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().sum() > 0, (operations, name)
        assert fast_copy(with_statistics(model), images[:2]) is not None, operations


def test_a_cell_that_is_zero_is_invalid():
    for letters in ("------", "333---", "-1--s-", "--s-3p"):
        with pytest.raises(InvalidArchitecture, match="depends on its input, got .[a-z]") as error:
            SPACE.build(cell(letters), TASK)
        assert "\n" not in str(error.value)


def by_hand(cells, f, ones, threes):
    """Return the parameters for RGB images, 10 classes and so many convolutions a cell."""
    stem = 3 * 9 * f + 2 * f
    stages = [
        cells * (ones * (c * c + 2 * c) + threes * (9 * c * c + 2 * c)) for c in (f, 2 * f, 4 * f)
    ]
    residual = [
        (9 * c * 2 * c + 4 * c) + (9 * 2 * c * 2 * c + 4 * c) + c * 2 * c for c in (f, 2 * f)
    ]
    head = 2 * 4 * f + (4 * f * 10 + 10)
    return stem + sum(stages) + sum(residual) + head


@pytest.mark.parametrize(
    ("letters", "cells", "filters", "ones", "threes"),
    [
        ("333333", 5, 16, 0, 6),
        ("ssssss", 5, 16, 0, 0),
        ("1313ps", 2, 8, 2, 2),
        ("ppp111", 1, 3, 3, 0),
        ("3s1-ps", 3, 4, 1, 1),
    ],
)
def test_parameters_are_those_counted_by_hand(letters, cells, filters, ones, threes):
    """No layer of these is dead, so that the published count is ours."""
    space = NASBench201(cells=cells, filters=filters)
    model = space.build(cell(letters, space), Task.plain((3, 32, 32), 10))
    found = sum(p.numel() for p in model.parameters())
    assert found == by_hand(cells, filters, ones, threes)
    published = {"333333": 1_531_546, "ssssss": 73_306}  # the benchmark: 1.531546 M, 0.073306 M
    assert found == published.get(letters, found)


def test_the_residual_block_is_two_convolutions_beside_a_pooled_shortcut():
    model = with_statistics(NASBench201(cells=1, filters=4).build(cell("---s--"), TASK)).double()
    block, x = model[1].residual1, torch.randn(2, 4, 6, 8).double()
    assert torch.equal(model[1].cell1(x), x)
    (_, conv, norm), second = block.convolutions
    halved = functional.conv2d(x.clamp(min=0), conv.weight, padding=1)[:, :, ::2, ::2]
    mixed = block.shortcut[1].weight.view(8, 4)
    corners = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    expected = relu_conv_bn(norm(halved), *second[1:])
    expected = expected + torch.einsum("oc,nchw->nohw", mixed, corners)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("side", [1, 2, 7, 13])
def test_sides_that_are_odd_or_small_are_rounded_up(side):
    model = SPACE.build(cell("3p1s-3"), Task.plain((1, side, side + 1), 3))
    shapes = []
    for name in ("cell1", "residual1", "residual2"):
        getattr(model[1], name).register_forward_hook(lambda *call: shapes.append(call[2].shape))
    assert model(torch.rand(2, 1, side, side + 1)).shape == (2, 3)
    half = (-(-side // 2), -(-(side + 1) // 2))
    assert [tuple(shape[2:]) for shape in shapes[:2]] == [(side, side + 1), half]


def test_features_count_the_paths_of_the_string(hashes):
    """There are four ways from input to output; skips are dropped, and none cuts a way."""
    ways = (("edge_0_3",), ("edge_0_1", "edge_1_3"), ("edge_0_2", "edge_2_3"),
            ("edge_0_1", "edge_1_2", "edge_2_3"))  # fmt: skip
    of_hash = {}
    for operations, found in zip(ALL, hashes, strict=True):
        choices, expected = named(operations), Counter()
        for way in ways:
            passed = [choices[edge] for edge in way]
            if "none" not in passed:
                real = [operation for operation in passed if operation != "skip_connect"]
                expected["path:" + (">".join(real) or "skip_connect")] += 1
        expected += Counter(
            {
                f"op:{kind}": len(edges)
                for kind, edges in zip(KINDS, live_convolutions(operations), strict=True)
            }
        )
        features = SPACE.features(choices)
        pools = features["op:avg_pool_3x3"]
        assert {k: v for k, v in features.items() if v and k != "op:avg_pool_3x3"} == expected
        assert (pools > 0) == any("avg_pool" in path for path in expected)
        assert len(features) == 43
        assert of_hash.setdefault(found, features) == features


@pytest.mark.parametrize("letters", ["pppppp", "3ps1p3", "pp-p11", "---3--"])
def test_the_pools_that_features_count_are_those_applied(letters):
    model, applied = SPACE.build(cell(letters), TASK).eval(), []
    model[1].cell1.pool.register_forward_hook(lambda *call: applied.append(call))
    model(torch.rand(1, *TASK.shape))
    assert len(applied) == SPACE.features(dict(cell(letters).choices))["op:avg_pool_3x3"]


def test_the_settings_belong_to_the_hash():
    spaces = [NASBench201(), NASBench201(cells=4), NASBench201(filters=8)]
    assert len({cell("333333", space).hash for space in spaces}) == 3


@pytest.mark.parametrize("settings", [{"cells": 0}, {"filters": 1.5}, {"cells": True}], ids=str)
def test_bad_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}: expected an integer >= 1, got"):
        NASBench201(**settings)


def test_images_without_pixels_are_refused():
    with pytest.raises(InvalidArchitecture, match="at least 1 channel and 1 x 1 pixels"):
        SPACE.build(cell("333333"), Task.plain((3, 0, 8), 10))


@pytest.mark.parametrize(
    ("letters", "longest"), [("333333", 3), ("3-1--p", 2), ("33--ss", 1), ("ssspss", 0)]
)
def test_layers_are_the_convolutions_of_the_longest_path(letters, longest):
    states = SPACE.hidden_states(cell(letters))
    ends = {"stem": 1, "cell1": longest, "residual1": 2, "cell2": longest, "residual2": 2,
            "cell3": longest, "": 1}  # fmt: skip
    total, expected = 0, {}
    for name, layers in ends.items():
        total += layers
        expected |= {name: total} if layers else {}
    assert states == expected
    model, called = SPACE.build(cell(letters), TASK).eval(), []
    for name in model.hidden_states:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.rand(1, *TASK.shape))
    assert called == list(model.hidden_states)


def test_the_cell_to_draw_has_what_the_output_depends_on():
    drawn = SPACE.cell(cell("31ps-s"))
    assert drawn.nodes == ("input", "node 1", "node 2", "output")
    assert drawn.edges == ((0, 1, "conv 3x3"), (0, 2, "conv 1x1"), (1, 2, "avg pool 3x3"),
                           (0, 3, "skip"), (2, 3, "skip"))  # fmt: skip
    assert SPACE.cell(cell("333p--")).nodes == ("input", "output")  # nothing reads the others
    assert SPACE.cell(cell("-1ps-3")).edges == ((0, 1, "conv 1x1"), (0, 2, "skip"),
                                                (1, 2, "conv 3x3"))  # fmt: skip
    assert SPACE.cell(cell("33----")).edges == ()
