"""Layers that are one linear map together: what they stretch is less than the product of theirs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metrics.bounds.operations import Convolution, Scaling
from metrics.bounds.program import Program


@dataclass(frozen=True, eq=False)
class Run:
    """Steps one behind the other, each read by the next alone, that make one convolution.

    Attributes:
        steps: their numbers.
        source: the step that the first reads.
        merged: the convolution, without what it adds: only its gain is asked for.
    """

    steps: tuple[int, ...]
    source: int
    merged: Convolution


def runs_of(program: Program, until: int) -> dict[int, Run]:
    """Return last step -> run, of convolutions with scalings around and 1 x 1 ones behind them.

    Only steps up to ``until`` are merged, which may be a run's last.
    """
    steps, users = program.steps, program.users()
    runs: dict[int, Run] = {}
    taken: set[int] = set()
    for i, step in enumerate(steps[: until + 1]):
        conv = step.operation
        if i in taken or not isinstance(conv, Convolution):
            continue
        members, source = [i], step.sources[0]
        scale = _channel_scale(program, source)
        if scale is not None and users[source] == [i] and source not in taken:
            conv, members = _scaled_inputs(conv, scale), [source, i]
            source = steps[source].sources[0]
        while len(users[members[-1]]) == 1 and members[-1] < until:
            (following,) = users[members[-1]]
            merged = _followed(program, conv, following)
            if merged is None or following > until:
                break
            conv = merged
            members.append(following)
        if len(members) > 1:
            runs[members[-1]] = Run(tuple(members), source, replace(conv, bias=None))
            taken |= set(members)
    return runs


def _followed(program: Program, conv: Convolution, following: int) -> Convolution | None:
    """Return ``conv`` and the step ``following`` as one, where they are."""
    behind = program.steps[following].operation
    scale = _channel_scale(program, following)
    if scale is not None:
        return replace(conv, weight=conv.weight * scale.expand(len(conv.weight)).view(-1, 1, 1, 1))
    plain = (
        isinstance(behind, Convolution)
        and behind.weight.shape[2:] == (1, 1)
        and behind.stride == (1, 1)
        and behind.padding == (0, 0)
    )
    if not plain:
        return None
    assert isinstance(behind, Convolution)
    mixed = torch.einsum("om,mihw->oihw", _whole(behind)[:, :, 0, 0], _whole(conv))
    return replace(conv, weight=mixed, groups=1)


def _channel_scale(program: Program, number: int) -> Tensor | None:
    """Return ``(channels,)`` or ``(1,)``: what a step scales each channel by, where it does."""
    step = program.steps[number]
    if not isinstance(step.operation, Scaling) or len(step.shape) != 3:
        return None
    scale = step.operation.scale
    if scale.numel() == 1:
        return scale.reshape(1)
    shape = (1,) * (4 - scale.ndim) + tuple(scale.shape)
    return scale.reshape(-1) if shape == (1, step.shape[0], 1, 1) else None


def _scaled_inputs(conv: Convolution, scale: Tensor) -> Convolution:
    """Return ``conv`` of images whose channels are scaled."""
    each = conv.weight.shape[1]
    own = scale.expand(conv.groups * each).view(conv.groups, 1, each, 1, 1)
    weight = conv.weight.view(conv.groups, -1, *conv.weight.shape[1:]) * own
    return replace(conv, weight=weight.flatten(0, 1))


def _whole(conv: Convolution) -> Tensor:
    """Return the weights ``(outputs, inputs, height, width)``, zero between groups."""
    if conv.groups == 1:
        return conv.weight
    outputs, each = conv.weight.shape[:2]
    whole = conv.weight.new_zeros(outputs, conv.groups, each, *conv.weight.shape[2:])
    group = torch.arange(outputs) // (outputs // conv.groups)
    whole[torch.arange(outputs), group] = conv.weight
    return whole.flatten(1, 2)
