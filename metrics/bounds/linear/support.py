"""Which programs linear bounds take."""

from __future__ import annotations

from metrics.bounds.linear.lines import bend
from metrics.bounds.operations import (
    Activation,
    Concatenation,
    Constant,
    Convolution,
    Dense,
    Pool,
    Ranking,
    Rearrangement,
    Scaling,
    Sum,
)
from metrics.bounds.program import Program

UNITS = 100_000
FOLLOWED = 40_000
PARAMETERS = 2_000_000
TAKEN = (Convolution, Dense, Scaling, Sum, Concatenation, Rearrangement, Constant)


def supports(program: Program, most: int = FOLLOWED) -> str:
    """Return ``""``, or in one line why there are no linear bounds for ``program``.

    Operations have to be affine, or bend once at 0 (ReLU, leaky ReLU, the absolute value), or be
    max pools; a softmax at the end is left out. For time, ``PARAMETERS`` weights and ``UNITS``
    inputs of bends and maxima are the most that is taken, and ``most`` of those inputs that have
    others behind them, each counted as often as there are bends behind it: at 40,000 margins take
    about 3 s an image on one core.
    """
    units = followed = parameters = 0
    bent: set[int] = set()
    last = len(program.steps) - 1
    for i, step in enumerate(program.steps):
        operation = step.operation
        if operation is None or (isinstance(operation, Ranking) and i == last):
            continue
        bends = bend(operation) is not None
        maximum = isinstance(operation, Pool) and operation.kind == "max"
        if bends or maximum:
            (source,) = step.sources
            units += program.steps[source].size
            if source not in bent:
                followed += program.steps[source].size * len(bent & program.behind({source}))
            bent.add(i)
        elif not (isinstance(operation, TAKEN) or operation.affine):
            kind = (
                operation.kind + " pool"
                if isinstance(operation, Pool)
                else (operation.name if isinstance(operation, Activation | Ranking) else "?")
            )
            return f"expected what is affine, bends at 0 or is a max pool, got {kind} ({step.name})"
        if isinstance(operation, Convolution | Dense):
            parameters += operation.weight.numel()
    if len(program.steps[-1].shape) != 1:
        return f"expected logits (N, classes), got {len(program.steps[-1].shape) + 1} axes"
    if units > UNITS:
        return f"expected at most {UNITS} inputs of ReLUs and max pools, got {units}"
    if followed > most:
        return f"expected at most {most} inputs of ReLUs times ReLUs behind them, got {followed}"
    if parameters > PARAMETERS:
        return f"expected at most {PARAMETERS} weights, got {parameters}"
    return ""
