"""What NASNet networks cost, counted from the choices alone: no model, no canonical order."""

from __future__ import annotations

from collections import Counter

CONVOLUTIONS = {  # inputs i, outputs o -> weights of the first and of the second kernel
    "conv_1x3_3x1": (lambda i, o: 3 * i * o, lambda o: 3 * o * o),
    "conv_1x7_7x1": (lambda i, o: 7 * i * o, lambda o: 7 * o * o),
    "dilated_conv_3x3": (lambda i, o: 9 * i * o, None),
    "conv_1x1": (lambda i, o: i * o, None),
    "conv_3x3": (lambda i, o: 9 * i * o, None),
    "sep_conv_3x3": (lambda i, o: i * (9 + o), lambda o: o * (9 + o)),
    "sep_conv_5x5": (lambda i, o: i * (25 + o), lambda o: o * (25 + o)),
    "sep_conv_7x7": (lambda i, o: i * (49 + o), lambda o: o * (49 + o)),
}


def blocks_of(space, choices):
    """Return, of every block, its two (operation, input) and how they are combined."""
    return [
        (
            [
                (choices[f"block{b}_{s}_op"], choices[f"block{b}_{s}_input"])
                for s in ("left", "right")
            ],
            choices[f"block{b}_combine"],
        )
        for b in range(1, space.blocks + 1)
    ]


def choices_of(blocks):
    """Return the choices that :func:`blocks_of` read."""
    found = {}
    for b, (reads, combine) in enumerate(blocks, start=1):
        for side, (operation, state) in zip(("left", "right"), reads, strict=True):
            found[f"block{b}_{side}_input"], found[f"block{b}_{side}_op"] = state, operation
        found[f"block{b}_combine"] = combine
    return found


def cost_of(operation, i, o, stride, height, width):
    """Return parameters and multiply-accumulates of one operation."""
    down, across = -(-height // stride), -(-width // stride)
    if operation == "identity" or "pool" in operation:
        if i == o and (stride == 1 or operation != "identity"):
            return 0, 0
        return i * o + 2 * o, i * o * down * across
    first, second = CONVOLUTIONS[operation]
    rows = height if operation in ("conv_1x3_3x1", "conv_1x7_7x1") else down
    norms, work = 2 * o, first(i, o) * rows * across
    if second is None:
        return first(i, o) + norms, work
    return first(i, o) + second(o) + 2 * norms, work + second(o) * down * across


def by_hand(space, choices, task):
    """Return parameters and multiply-accumulates of the network, from the choices alone."""
    blocks, stage = blocks_of(space, choices), space.cells + 1
    read = {state for reads, _ in blocks for _, state in reads}
    widths, total = {}, Counter()

    def sides(level):
        return tuple(-(-side // (space.stem_stride * 2**level)) for side in task.shape[1:])

    def spend(cost):
        total.update(parameters=cost[0], macs=cost[1])

    def visit(number):
        """Count a cell and those before it, once each, and return its output's channels."""
        if number not in widths:
            level, filters = number // stage, space.filters * 2 ** (number // stage)
            before = sides((number - 1) // stage)
            for state in read & {0, 1}:
                source = visit(max(number - 2 + state, 0))
                spend(cost_of("conv_1x1", source, filters, 1, *before))
            for reads, _ in blocks:
                for operation, state in reads:
                    wide = state >= 2 and blocks[state - 2][1] == "concat"
                    stride = 2 if state < 2 and number % stage == 0 else 1
                    at = before if state < 2 else sides(level)
                    spend(cost_of(operation, filters * (1 + wide), filters, stride, *at))
            widths[number] = filters * sum(
                1 + (combine == "concat")
                for state, (_, combine) in enumerate(blocks, start=2)
                if state not in read
            )
        return widths[number]

    widths[0] = 3 * space.filters
    spend(cost_of("conv_3x3", task.shape[0], widths[0], space.stem_stride, *task.shape[1:]))
    ends = visit(3 * space.cells + 2)
    return (
        total["parameters"] + (ends + 1) * task.classes,
        total["macs"] + ends * task.classes,
    )
