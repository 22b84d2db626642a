"""The end of a model: how far its last hidden layer is from another answer.

Source: Peck et al. 2017, section 4: min over c' of |(w_c' - w_c) h + b_c' - b_c| / ||w_c' - w_c||.
It is exact: h moved by so much along w_c' - w_c ties the two classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metrics.bounds.gains.form import Form
from metrics.bounds.operations import Constant, Dense, Ranking
from metrics.bounds.program import Program

MOST = 4096  # values of a hidden layer whose map to the logits is written out
INWARD = 1e-9  # relative; rounding of distances in float64
FORMULA = "min |Δw·h + Δb| / ‖Δw‖₂"


@dataclass(frozen=True, eq=False)
class Head:
    """The affine map that a model ends in.

    Attributes:
        step: of the program, where it begins: its input is h.
        last: the step that gives the logits, before a softmax.
        name: of the layer.
        weight: ``(classes, values of h)`` float64.
        bias: ``(classes,)`` float64.
    """

    step: int
    last: int
    name: str
    weight: Tensor
    bias: Tensor

    @property
    def form(self) -> Form:
        """What is computed, and that it is exact."""
        return Form(FORMULA, 1.0, "exact")

    def distance(self, hidden: Tensor, labels: Tensor, less: Tensor) -> Tensor:
        """Return ``(N,)``: the least change of h that gives another class the label's logit.

        Args:
            hidden: ``(N, ...)`` float64.
            labels: ``(N,)``.
            less: ``(N,)``, taken off every lead.
        """
        weight, bias = self.weight.to(hidden.device), self.bias.to(hidden.device)
        logits = hidden.flatten(1) @ weight.mT + bias
        leads = logits.gather(1, labels[:, None]) - logits - less[:, None]
        present, row = labels.unique(return_inverse=True)
        apart = torch.stack([(weight - weight[c]).norm(dim=1) for c in present])[row]
        # A class that moves as the label's does never catches up.
        far = torch.where(apart > 0, leads / apart, torch.inf)
        far = torch.where(leads > 0, far, 0.0)  # also NaN
        others = far.scatter(1, labels[:, None], torch.inf)
        return others.amin(dim=1) * (1 - INWARD)


def head_of(program: Program, *, longest: bool) -> Head:
    """Return the head of a program.

    Args:
        program: of a model.
        longest: take in all affine operations that the model ends in; else its last layer alone.
    """
    steps = program.steps
    last = len(steps) - 1
    while isinstance(steps[last].operation, Ranking):
        last = steps[last].sources[0]
    begin = last
    for cut in reversed([i for i in program.cuts() if i < last]):
        between = program.behind([last], cut) - {cut}
        affine = all(steps[i].operation.affine for i in between)  # type: ignore[union-attr]
        if not affine or steps[cut].size > MOST:
            break
        begin = cut
        dense = any(isinstance(steps[i].operation, Dense) for i in between)
        if dense and not longest:
            break
    weight, bias = _written_out(program, begin, last)
    layers = [
        i
        for i in sorted(program.behind([last], begin) - {begin})
        if not isinstance(steps[i].operation, Constant)
    ]
    name = steps[layers[-1] if layers else last].name
    return Head(begin, last, name, weight, bias)


def _written_out(program: Program, begin: int, last: int) -> tuple[Tensor, Tensor]:
    """Return weights ``(classes, values)`` and bias of what leads from one step to another."""
    shape, size = program.steps[begin].shape, program.steps[begin].size
    if begin == last:
        return torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)

    def at(values: Tensor) -> Tensor:
        return program.evaluate(values.view(-1, *shape), [last], begin)[last]

    bias = at(torch.zeros(1, size, dtype=torch.float64))[0]
    columns = [
        at(torch.eye(size, dtype=torch.float64)[part]) - bias
        for part in torch.arange(size).split(256)
    ]
    return torch.cat(columns).mT.contiguous(), bias
