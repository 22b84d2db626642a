"""Lower bounds in L2, layer by layer backwards from the logits.

Source: Peck, Roels, Goossens, Saeys 2017 (NIPS), theorems 4.1 to 4.4. Where no perturbation of a
layer's output shorter than kappa changes the answer, and the layer stretches none by more than L,
none of its input shorter than kappa / L does. The bound is one on the function of real numbers that
the stored weights define, for all inputs, in the box or out of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metrics.bounds.gains import dense
from metrics.bounds.gains.form import Form, check_mode
from metrics.bounds.gains.layer import form_of, is_pooled, joined
from metrics.bounds.head import head_of
from metrics.bounds.merging import Run, runs_of
from metrics.bounds.operations import Activation, Concatenation, Constant, Convolution, Dense, Sum
from metrics.bounds.program import Program
from metrics.bounds.spectral import outward
from metrics.deadline import check

AT_ONCE = 2**25  # values of the largest output that are held in float64 at a time
ROUNDINGS = 4  # times the rounding of the logits at the image is what their leads are lowered by

_Taken = tuple[list[Form], Tensor]
"""Forms tried, and ``(N,)`` which one each image took."""


@dataclass(frozen=True)
class LayerBound:
    """What one layer, or a block of layers with several ways through it, does to the bound.

    Attributes:
        name: of the layer; of merged ones, with ``+`` between.
        kind: of operation, or ``block``.
        form: the formula, its gain and whether it holds; the gain is NaN where it depends on the
            image.
        share: of the images that took this form.
        inside: the layers of a block.
    """

    name: str
    kind: str
    form: Form
    share: float = 1.0
    inside: tuple[LayerBound, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the formula, and those inside, hold."""
        return self.form.valid and all(layer.valid for layer in self.inside)


@dataclass(frozen=True)
class Stage:
    """A part of the chain that every way from the images to the logits goes through.

    Attributes:
        begin, end: steps of the program.
        layer: what it does; where ``smooth``, of the dense layer and its activation together.
        smooth: whether the bound is taken at the image itself.
    """

    begin: int
    end: int
    layer: LayerBound
    smooth: bool = False


@dataclass(frozen=True)
class ChainBound:
    """What the whole chain came to.

    Attributes:
        radius: ``(N,)`` float64: no perturbation of this L2 length changes the answer.
        rounding: ``(N,)`` float64: what leads of logits were lowered by.
        layers: from the logits to the images.
    """

    radius: Tensor
    rounding: Tensor
    layers: tuple[LayerBound, ...]


class Chain:
    """A program and the gain of each of its layers; for any images.

    Args:
        program: of a model.
        mode: ``paper``, as printed, whose theorem on convolutions does not hold; ``certified``, the
            simplest forms that do; ``tight``, the least of all.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, program: Program, mode: str) -> None:
        check_mode(mode)
        self.program, self.mode = program, mode
        self.head = head_of(program, longest=mode == "tight")
        self._users = program.users()
        self._runs = runs_of(program, self.head.step) if mode == "tight" else {}
        self.stages = self._stages()

    def bound(self, images: Tensor, labels: Tensor) -> ChainBound:
        """Return the bound of each image.

        Leads are lowered by four times what float32 (the type of the images) makes of the logits at
        the image, and a rounding more.

        Args:
            images: ``(N, C, H, W)``.
            labels: ``(N,)``; an image whose label does not lead has radius 0.
        """
        largest = max(step.size for step in self.program.steps)
        radii, leads, chosen = [], [], []
        for part in torch.arange(len(images)).split(max(1, AT_ONCE // largest)):
            check()
            part = part.to(images.device)
            radius, less, taken = self._bound(images[part], labels[part])
            radii.append(radius)
            leads.append(less)
            chosen.append(taken)
        layers = [LayerBound(self.head.name, "head", self.head.form)]
        for stage in reversed(self.stages):
            layers += self._reported(stage, chosen)
        return ChainBound(torch.cat(radii), torch.cat(leads), tuple(layers))

    def _bound(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[int, _Taken]]:
        wanted = {self.head.step, *(stage.begin for stage in self.stages if stage.smooth)}
        values = self.program.evaluate(images.double(), {*wanted, self.head.last})
        less = self._rounding(images, values[self.head.last])
        kappa = self.head.distance(values[self.head.step], labels, less)
        taken = {}
        for stage in reversed(self.stages):
            if stage.smooth:
                kappa, forms, index = self._smooth(stage, values[stage.begin], kappa)
                taken[stage.end] = (forms, index)
            else:
                kappa = kappa / max(stage.layer.form.gain, 1e-300)
        return kappa, less, taken

    def _rounding(self, images: Tensor, logits: Tensor) -> Tensor:
        """Return ``(N,)``: what leads are lowered by, as the model computes in float32."""
        rounded = self.program.evaluate(images, [self.head.last])[self.head.last].double()
        apart = (rounded - logits).abs().amax(dim=1)
        return ROUNDINGS * (apart + torch.finfo(images.dtype).eps * logits.abs().amax(dim=1))

    @staticmethod
    def _reported(stage: Stage, chosen: list[dict[int, _Taken]]) -> list[LayerBound]:
        if not stage.smooth:
            return [stage.layer]
        index = torch.cat([taken[stage.end][1] for taken in chosen])
        forms = chosen[0][stage.end][0]
        shares = [float((index == i).double().mean()) for i in range(len(forms))]
        return [
            replace(stage.layer, form=form, share=share)
            for form, share in zip(forms, shares, strict=True)
            if share
        ]

    def _smooth(
        self, stage: Stage, inputs: Tensor, kappa: Tensor
    ) -> tuple[Tensor, list[Form], Tensor]:
        layer, activation = (self.program.steps[i].operation for i in (stage.end - 1, stage.end))
        assert isinstance(layer, Dense)
        assert isinstance(activation, Activation)
        return dense.smooth(layer, activation, inputs, kappa, self.mode)

    def _stages(self) -> list[Stage]:
        inside = {i for run in self._runs.values() for i in run.steps[:-1]}
        cuts = [i for i in self.program.cuts() if i <= self.head.step and i not in inside]
        stages = []
        begin = 0
        while begin != cuts[-1]:
            ends = [cut for cut in cuts if cut > begin]
            if len(ends) > 1 and self._is_smooth(begin, ends[0], ends[1]):
                end = ends[1]
                name = f"{self._name(ends[0])} + {self._name(end)}"
                layer = LayerBound(name, "smooth dense", Form("", math.nan))
                stages.append(Stage(begin, end, layer, smooth=True))
            else:
                end = ends[0]
                stages.append(Stage(begin, end, self._between(begin, end)))
            begin = end
        return stages

    def _is_smooth(self, begin: int, middle: int, end: int) -> bool:
        steps = self.program.steps
        layer, activation = steps[middle].operation, steps[end].operation
        return (
            isinstance(layer, Dense)
            and steps[middle].sources == (begin,)
            and len(steps[begin].shape) == 1
            and isinstance(activation, Activation)
            and activation.curvature is not None
            and end == middle + 1
        )

    def _between(self, begin: int, end: int) -> LayerBound:
        """Return what lies between two cuts: one layer, or all of a block's."""
        gains = {begin: 1.0}
        layers: dict[int, LayerBound] = {}
        interior = {i for run in self._runs.values() for i in run.steps[:-1]}
        for i in sorted(self.program.behind([end], begin) - {begin}):
            if i in interior:
                continue
            check()
            step = self.program.steps[i]
            if isinstance(step.operation, Constant):
                gains[i] = 0.0
            elif isinstance(step.operation, Sum | Concatenation):
                form = joined(step.operation, [gains[j] for j in step.sources])
                gains[i] = form.gain
                layers[i] = LayerBound(step.name, _kind(step.operation), form)
            else:
                layers[i] = self._layer(i)
                source = self._runs[i].source if i in self._runs else step.sources[0]
                gains[i] = outward(gains[source] * layers[i].form.gain)
        if list(layers) == [end]:
            return layers[end]
        form = Form("ways added up", gains[end])
        return LayerBound(self.program.steps[end].name, "block", form, 1.0, tuple(layers.values()))

    def _layer(self, i: int) -> LayerBound:
        step = self.program.steps[i]
        assert step.operation is not None
        if i in self._runs:
            return self._merged(self._runs[i])
        form = form_of(step.operation, self._shape_before(i), self.mode, pooled=self._is_pooled(i))
        return LayerBound(step.name, _kind(step.operation), form)

    def _merged(self, run: Run) -> LayerBound:
        """Return what a run's convolution does, which in every form is no worse than a product.

        Each form is a norm of matrices of which the layers' own are factors.
        """
        form = form_of(run.merged, self.program.steps[run.source].shape, self.mode)
        return LayerBound(" + ".join(map(self._name, run.steps)), _kind(run.merged), form)

    def _shape_before(self, i: int) -> tuple[int, ...]:
        return self.program.steps[self.program.steps[i].sources[0]].shape

    def _is_pooled(self, i: int) -> bool:
        """Whether a convolution's only reader, behind a ReLU perhaps, is a max or average pool."""
        if not isinstance(self.program.steps[i].operation, Convolution):
            return False
        while len(self._users[i]) == 1:
            (i,) = self._users[i]
            operation = self.program.steps[i].operation
            if not (isinstance(operation, Activation) and operation.slope <= 1):
                return is_pooled(operation)
        return False

    def _name(self, i: int) -> str:
        return self.program.steps[i].name


def _kind(operation: object) -> str:
    return type(operation).__name__.lower()
