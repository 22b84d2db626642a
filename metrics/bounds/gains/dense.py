"""Fully connected layers (Peck et al. 2017, theorem 4.1, for smooth activations).

What must change behind the layer for another answer is kappa; the least change before it is
returned. With a smooth activation the layer is taken at the image itself, by its Jacobian J and a
bound M on its second derivatives: 2 kappa / (||J|| + sqrt(||J||^2 + 2 C kappa)), where C is
M sqrt(n) or less. In this form, and not the paper's, nothing cancels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.bounds.gains.form import Form
from metrics.bounds.operations import Activation, Dense
from metrics.bounds.spectral import SLACK, matrix_norm, outward

ENTRYWISE = "theorem 4.1 fails where M bounds each second derivative: it must bound the Hessian"
AT_ONCE = 2**24  # entries of the Jacobians of some images


def norm(layer: Dense) -> Form:
    """Return ||V||_2."""
    return Form("‖V‖₂", matrix_norm(layer.weight), "exact")


def smooth(
    layer: Dense, activation: Activation, inputs: Tensor, kappa: Tensor, mode: str
) -> tuple[Tensor, list[Form], Tensor]:
    """Return the change before the layer, the forms tried, and which one each image took.

    Args:
        layer: z = V x + b.
        activation: h = g(z), twice differentiable.
        inputs: ``(N, inputs)`` x.
        kappa: ``(N,)`` the change of h.
        mode: one of ``MODES``. ``paper`` reads M of each second derivative, as printed;
            ``certified`` of each output's Hessian; ``tight`` takes sup|g''| max ||v_i|| ||V|| for
            M sqrt(n). The last two are compared with the first order, kappa / (sup|g'| ||V||).
    """
    assert activation.curvature is not None
    v = layer.weight.double()
    whole, rows = matrix_norm(v), outward(float(v.norm(dim=1).max()))
    jacobian = _jacobian_norms(layer, activation, inputs)
    if mode == "paper":
        curvature = activation.curvature * float(v.abs().max()) ** 2 * math.sqrt(len(v))
        form = Form("2κ/(‖J‖+√(‖J‖²+2M√n κ))", math.nan, "quoted", False, ENTRYWISE)
        return _second_order(kappa, jacobian, curvature), [form], torch.zeros_like(kappa).long()
    if mode == "certified":
        curvature = activation.curvature * rows**2 * math.sqrt(len(v))
        name = "2κ/(‖J‖+√(‖J‖²+2M√n κ)), M of Hessians"
    else:
        curvature = activation.curvature * rows * whole
        name = "2κ/(‖J‖+√(‖J‖²+2Cκ)), C = sup|g''| max‖v_i‖ ‖V‖₂"
    first = Form("sup|g'| ‖V‖₂", outward(activation.slope * whole))
    both = torch.stack(
        [_second_order(kappa, jacobian, outward(curvature)), kappa / max(first.gain, 1e-300)]
    )
    best = both.max(dim=0)
    return best.values, [Form(name, math.nan), first], best.indices


def _second_order(kappa: Tensor, jacobian: Tensor, curvature: float) -> Tensor:
    root = (jacobian.square() + 2 * curvature * kappa).sqrt()
    found = 2 * kappa / (jacobian + root)
    return torch.where(kappa > 0, found, 0.0)  # 0 / 0 where nothing must change


def _jacobian_norms(layer: Dense, activation: Activation, inputs: Tensor) -> Tensor:
    """Return ``(N,)``: ||diag(g'(z)) V||_2, each from above."""
    assert activation.derivative is not None
    v = layer.weight.to(inputs.device).double()
    slopes = activation.derivative(layer.forward(inputs.double())).abs()
    if v.shape[0] > v.shape[1]:  # V^T D^2 V is the smaller Gram matrix

        def gram(d: Tensor) -> Tensor:
            return (v.mT * d.square()[:, None, :]) @ v
    else:
        square = v @ v.mT

        def gram(d: Tensor) -> Tensor:
            return d[:, :, None] * square * d[:, None, :]

    some = max(1, AT_ONCE // min(v.shape) ** 2)
    values = [torch.linalg.eigvalsh(gram(part))[:, -1] for part in slopes.split(some)]
    return torch.cat(values).clamp_min(0).sqrt() * (1 + SLACK)
