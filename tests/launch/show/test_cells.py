"""The picture of a cell shows its graph, and nothing lies upon anything else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from helpers import one_line
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

from launch.show.cells import draw_cell, figure_of, figure_of_cells
from nas.errors import InputError
from search_spaces import SEARCH_SPACES, DepthChannels, NASBench201
from search_spaces.graphs import Cell

SPACE = NASBench201()
STRING = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
OPERATIONS = ("identity", "conv_1x7_7x1", "dilated_conv_3x3", "avg_pool_3x3", "max_pool_7x7",
              "conv_3x3", "sep_conv_5x5")  # fmt: skip


def nasnet_cell(seed):
    """Return a cell as of NASNet: two inputs, seven blocks of two operations, an output."""
    rng = random.Random(seed)
    edges = [
        (rng.randrange(block), block, rng.choice(OPERATIONS))
        for block in range(2, 9)
        for _ in range(2)
    ]
    read = {source for source, _, _ in edges}
    edges += [(block, 9, "") for block in range(2, 9) if block not in read]
    blocks = [rng.choice(["add", "concat"]) for _ in range(7)]
    return Cell(("h[i-1]", "h[i]", *blocks, "output"), tuple(edges))


def blocks_in_a_row():
    """Return the deepest cell: each block reads the two states before it."""
    pairs = [(source, block) for block in range(2, 9) for source in (block - 2, block - 1)]
    edges = tuple((*pair, "sep_conv_7x7") for pair in pairs)
    return Cell(("h[i-1]", "h[i]", *["concat"] * 7, "output"), (*edges, (8, 9, "")))


def blocks_on_the_same_input():
    edges = tuple((0, block, "max_pool_3x3") for block in range(1, 8) for _ in range(2))
    return Cell(("h[i]", *["add"] * 7, "output"), (*edges, *((b, 8, "") for b in range(1, 8))))


CELLS = {
    "nasbench201": SPACE.cell(SPACE.from_string(STRING)),
    "every edge": SPACE.cell(SPACE.architecture(dict.fromkeys(SPACE.decisions(), "skip_connect"))),
    "no edge": SPACE.cell(SPACE.architecture(dict.fromkeys(SPACE.decisions(), "none"))),
    "in a row": blocks_in_a_row(),
    "side by side": blocks_on_the_same_input(),
    **{f"nasnet {seed}": nasnet_cell(seed) for seed in range(6)},
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def drawn(figure):
    """Return boxes as (left, low, right, high), their texts, lines and arrowheads, in points."""
    (axes,) = figure.axes
    boxes = [
        (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height())
        for p in axes.patches
        if isinstance(p, FancyBboxPatch)
    ]
    lines = [p.get_path().vertices for p in axes.patches if isinstance(p, PathPatch)]
    heads = [p.get_xy() for p in axes.patches if isinstance(p, Polygon)]
    return boxes, [text.get_text() for text in axes.texts], lines, heads


def within(point, box, slack):
    left, low, right, high = box
    x, y = point
    return left - slack < x < right + slack and low - slack < y < high + slack


@every_cell
def test_the_picture_is_the_graph(cell):
    """Following the lines from box to box gives the edges with their labels back."""
    boxes, texts, lines, heads = drawn(figure_of(cell))
    labels = [label for _, _, label in cell.edges if label]
    nodes = range(len(labels), len(boxes))  # boxes of labels are drawn first
    assert texts[len(labels) :] == list(cell.nodes)
    assert len(heads) == len(cell.edges)

    def at(point):
        (box,) = [i for i, box in enumerate(boxes) if within(point, box, 0.01)]
        return box

    leads = [(at(line[0]), at(line[-1])) for line in lines]
    found = [(one, other, "") for one, other in leads if one in nodes and other in nodes]
    for label in range(len(labels)):
        ((source, _),) = [lead for lead in leads if lead[1] == label]
        ((_, target),) = [lead for lead in leads if lead[0] == label]
        found.append((source, target, texts[label]))
    expected = [
        (source + len(labels), target + len(labels), shown(label))
        for source, target, label in cell.edges
    ]
    assert sorted(found) == sorted(expected)
    assert sorted(at(head[0]) for head in heads) == sorted(target for _, target, _ in expected)


def shown(label):
    for digit in "1357":
        label = label.replace(f"{digit}x", f"{digit}×")
    return label.replace("_", " ")


@every_cell
def test_nothing_lies_upon_a_box(cell):
    """Boxes keep a distance, their texts stay inside, and lines touch only those they join."""
    figure = figure_of(cell)
    boxes, _, lines, _ = drawn(figure)
    for i, (left, low, right, high) in enumerate(boxes):
        for other in boxes[:i]:
            apart = max(left - other[2], other[0] - right, low - other[3], other[1] - high)
            assert apart > 5
    axes = figure.axes[0]
    width, height = figure.get_size_inches() * 72
    (x, _), (y, _) = axes.get_xlim(), axes.get_ylim()
    for text, box in zip(axes.texts, boxes, strict=True):
        extent = text.get_window_extent().transformed(axes.transData.inverted())
        assert within((extent.x0, extent.y0), box, 0)
        assert within((extent.x1, extent.y1), box, 0)
        assert within(box[:2], (x, y, x + width, y + height), -5)
        assert within(box[2:], (x, y, x + width, y + height), -5)
    patches = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    for patch, line in zip(patches, lines, strict=True):
        (polygon,) = patch.get_path().to_polygons(closed_only=False)
        others = [
            box for box in boxes if not any(within(end, box, 0.01) for end in (line[0], line[-1]))
        ]
        for one, next_one in zip(polygon, polygon[1:], strict=False):
            for share in (0, 0.25, 0.5, 0.75, 1):
                point = one + share * (next_one - one)
                assert not any(within(point, box, 2) for box in others)


@every_cell
def test_black_text_is_readable_on_every_box(cell):
    """The contrast of WCAG 2: at least 7 to 1."""

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]

    (axes,) = figure_of(cell).axes
    assert {text.get_color() for text in axes.texts} == {"black"}
    for patch in axes.patches:
        if isinstance(patch, FancyBboxPatch):
            assert (luminance(to_rgb(patch.get_facecolor())) + 0.05) / 0.05 > 7


def test_kinds_of_operations_have_colours_of_their_own():
    kinds = ("skip", "avg_pool_3x3", "max_pool_3x3", "sep_conv_3x3", "dilated_conv_3x3", "conv_3x3")
    edges = [(0, 1, kind) for kind in (*kinds, "conv 1x1", "identity", "sep_conv_7x7")]
    (axes,) = figure_of(Cell(("input", "output"), tuple(edges))).axes
    colours = [p.get_facecolor() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(set(colours[:6])) == 6
    assert [colours[:6].index(colour) for colour in colours[6:9]] == [5, 0, 3]
    assert len(set(colours[9:])) == 1


def test_the_suffix_says_the_format(tmp_path):
    architecture = SPACE.from_string(STRING)
    draw_cell(architecture, tmp_path / "cell.png")
    draw_cell(architecture, str(tmp_path / "cell.SVG"))
    assert (tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "cell.SVG").read_text()
    assert len(list(tmp_path.iterdir())) == 2
    assert len(draw_cell(architecture).axes[0].texts) == 4 + 5


@pytest.mark.parametrize("name", ["cell.pdf", "cell", ".png"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"expected a picture \*.svg or \*.png, got '.*'$"):
        draw_cell(SPACE.from_string(STRING), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_space_without_cells_is_refused():
    with pytest.raises(
        InputError, match="expected a space with a cell to draw, got depth-channels"
    ):
        draw_cell(next(iter(DepthChannels())))


def test_the_command_draws_what_a_space_writes(psinas, tmp_path):
    """A nasnet cell is longer than a file name may be."""
    space = SEARCH_SPACES["nasnet"]()
    text = space.to_string(space.sample(np.random.default_rng(0)))
    assert len(text) > 255
    for target in (f"nasnet:{text}", f"nasbench201:{STRING}"):
        out = tmp_path / "cell.svg"
        assert psinas("draw", target, "--out", out)[0] == 0
        assert "<svg" in (first := out.read_text())
        out.unlink()
        assert psinas("draw", target, "--out", out)[0] == 0
        assert out.read_text() == first
        out.unlink()


def test_what_cannot_be_drawn_is_one_line(psinas, tmp_path):
    out = tmp_path / "cell.svg"
    one_line(psinas("draw", "nasnet:[]", "--out", out), "nasnet")
    one_line(psinas("draw", "nowhere", "--out", out), "RUN:TRIAL", "nasbench201", "'nowhere'")
    one_line(psinas("draw", "nasnett:" + "x" * 600, "--out", out), "RUN:TRIAL", "nasnet")
    for content in ("{", "[]", "{}", '{"architecture": 3}'):
        (tmp_path / "architecture.json").write_text(content)
        one_line(psinas("draw", tmp_path, "--out", out), "architecture.json", "export")
    one_line(psinas("draw", f"nasbench201:{STRING}", "--out", tmp_path / "cell.gif"), ".svg")
    assert not out.exists()


def test_several_cells_stand_below_each_other_at_one_scale():
    figure = figure_of_cells(CELLS)
    width, height = figure.get_size_inches() * 72
    low = height
    for axes, (name, cell) in zip(figure.axes, CELLS.items(), strict=True):
        assert axes.texts[-1].get_text() == name
        assert len(axes.texts) == len(figure_of(cell).axes[0].texts) + 1
        place = axes.get_position()
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert place.width * width == pytest.approx(right - left)  # a unit is a point
        assert place.height * height == pytest.approx(top - bottom)
        assert place.y1 * height == pytest.approx(low)
        low = place.y0 * height
        boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        title = axes.texts[-1].get_window_extent().transformed(axes.transData.inverted())
        assert max(box.y1 for box in boxes) < title.y0
        assert title.y1 < top
        assert title.x1 < right
    assert low == pytest.approx(0)
