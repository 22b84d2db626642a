"""The susceptibility ratio Ψ: how much a network magnifies a small change of its input.

|v| is the RMS norm sqrt(mean(v_i^2)), for inputs and outputs alike.

    ψ(h, x, δ) = |h(x) - h(x + δ)| / |δ|                                      (eq. 1)
    Ψ̂          = exp( mean over inputs and radii of ln ψ )                    (eq. 2)

δ is found by a few steps of gradient ascent on |h(x) - h(x + δ)|, put back on the sphere |δ| = r
after each. Where the outputs cannot move further, ψ falls like 1/r: the ratio *saturates*, and a
smaller Ψ̂ is then no sign of robustness. As r → 0, ψ tends to sigma_max(J) sqrt(N/M), with J the
M x N Jacobian: :func:`susceptibility_limit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import evaluating, gradient_of

STEPS = ("rel", "sign")
BATCH_NORM = ("eval", "frozen", "batch")
SATURATION = 1.5  # Ψ̂ of neighbouring radii may differ by this factor
SIGN_STEP = 0.01  # the paper's learning rate
BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class Susceptibility:
    """Ψ̂ and what it was made of.

    Attributes:
        value: Ψ̂, the geometric mean of ``psi`` in float64.
        psi: ``(radii, N)`` float64, ψ of every radius and input.
        per_radius: Ψ̂ of each radius alone.
        interval: 95 % bootstrap interval of Ψ̂ over inputs.
        saturated: Ψ̂ of two neighbouring radii differs by more than 1.5 times.
        underflows: ψ that were exactly 0; clamped to the smallest float64 in the mean.
        cancelled: ψ whose output change is under 100 rounding errors of the output.
    """

    value: float
    psi: Tensor
    per_radius: tuple[float, ...]
    interval: tuple[float, float]
    saturated: bool
    underflows: int
    cancelled: int


def susceptibility(
    model: nn.Module,
    images: Tensor,
    *,
    radii: Sequence[float] = (1e-4, 1e-3, 1e-2),
    steps: int = 5,
    step: str = "rel",
    batch_norm: str = "eval",
    batch_size: int = 256,
    generator: torch.Generator | None = None,
) -> Susceptibility:
    """Return Ψ̂ of ``model`` at ``images`` (equations 1 and 2 of the Ψ paper).

    Args:
        model: images to outputs ``(N, ...)``; left as found, batch-norm statistics included.
        images: ``(N, C, H, W)`` float. The sphere is not cut by the box [0, 1].
        radii: RMS lengths of δ.
        steps: gradient steps; 0 gives the random baseline.
        step: ``rel`` moves by r·g/rms(g); ``sign`` by 0.01·sign(g), the preset of Table 2.
        batch_norm: ``eval`` for a trained model; ``frozen`` uses the statistics of one clean
            batch (an untrained model); ``batch`` those of every batch, which couples the inputs.
        batch_size: inputs at a time; decides what a batch is for ``batch``.
        generator: decides the random start on the sphere.

    Raises:
        ValueError: no inputs, no radii, a radius <= 0, negative steps, an unknown step or
            batch_norm.
    """
    _check(images, radii, steps, step, batch_norm)
    rows = []
    cancelled = 0
    with torch.inference_mode(False), torch.enable_grad(), _normalising(model, images, batch_norm):
        for radius in radii:
            row = []
            for x in images.detach().split(batch_size):
                ratio, lost = _psi(model, x.clone(), radius, steps, step, generator)
                row.append(ratio)
                cancelled += lost
            rows.append(torch.cat(row))
    psi = torch.stack(rows)
    log_psi = psi.clamp_min(torch.finfo(torch.float64).tiny).log()
    per_radius = tuple(log_psi.mean(dim=1).exp().tolist())
    jumps = [max(a, b) / min(a, b) for a, b in zip(per_radius, per_radius[1:], strict=False)]
    return Susceptibility(
        value=math.exp(log_psi.mean().item()),
        psi=psi,
        per_radius=per_radius,
        interval=_bootstrap(log_psi.mean(dim=0)),
        saturated=any(jump > SATURATION for jump in jumps),
        underflows=int((psi == 0).sum()),
        cancelled=cancelled,
    )


def susceptibility_limit(model: nn.Module, images: Tensor) -> Tensor:
    """Return ``(N,)`` float64: ψ as r → 0, sigma_max(J) sqrt(N/M), from the exact M x M Gram.

    Costs M backward passes, M the number of outputs; the model is in ``eval()``.
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        x = images.detach().clone().requires_grad_()
        outputs = model(x).flatten(1)
        m = outputs.shape[1]
        rows = [
            torch.autograd.grad(outputs[:, i].sum(), x, retain_graph=True)[0].flatten(1)
            for i in range(m)
        ]
    jacobian = torch.stack(rows, dim=1).double()
    gram = jacobian @ jacobian.transpose(1, 2)
    largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
    limit: Tensor = (largest * (jacobian.shape[2] / m)).sqrt()
    return limit


def estimated_radius(logits: Tensor, psi: float) -> Tensor:
    """Return ``(N,)``: RMS distance to the nearest decision boundary in logit space, over Ψ̂.

    The nearest boundary is where the two largest of n logits meet: (z1 - z2) / sqrt(2 n).
    """
    top = logits.double().topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]) / math.sqrt(2 * logits.shape[1]) / psi


def lyapunov_exponent(first: float, last: float, steps: int) -> float:
    """Return λ of a drift that grew from ``first`` to ``last`` in ``steps``: ln(last/first)/steps.

    Raises:
        ValueError: a drift that is not positive, or steps below 1.
    """
    if not (first > 0 and last > 0 and steps >= 1):
        raise ValueError(f"expected positive drifts and steps >= 1, got {first}, {last}, {steps}")
    return math.log(last / first) / steps


def rms(v: Tensor) -> Tensor:
    """Return ``(N,)``: sqrt(mean(v²)) of each sample, shaped to broadcast against ``v``."""
    return v.flatten(1).square().mean(dim=1).sqrt().view(-1, *[1] * (v.ndim - 1))


def _psi(
    model: nn.Module,
    x: Tensor,
    radius: float,
    steps: int,
    step: str,
    generator: torch.Generator | None,
) -> tuple[Tensor, int]:
    with torch.no_grad():
        clean = model(x)
    device = x.device if generator is None else generator.device
    noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    delta = _on_sphere(noise, radius)
    for _ in range(steps):
        delta.requires_grad_()
        # A sum, not a mean: a mean would divide every sample's step by the batch size.
        # The clamp keeps an output that does not move from a NaN gradient: sqrt has none at 0.
        change = (model(x + delta) - clean).flatten(1).square().mean(dim=1)
        distance = change.clamp_min(torch.finfo(change.dtype).tiny).sqrt().sum()
        gradient = gradient_of(distance, delta)
        if step == "rel":
            move = radius * gradient / rms(gradient).clamp_min(1e-30)
        else:
            move = SIGN_STEP * gradient.sign()
        delta = _on_sphere(delta.detach() + move, radius)
    with torch.no_grad():
        change = rms(model(x + delta).double() - clean.double()).flatten()
        rounding = 100 * torch.finfo(clean.dtype).eps * rms(clean.double()).flatten()
    return (change / rms(delta.double()).flatten()).cpu(), int((change < rounding).sum())


def _on_sphere(v: Tensor, radius: float) -> Tensor:
    return v * (radius / rms(v).clamp_min(1e-30))


@contextmanager
def _normalising(model: nn.Module, images: Tensor, batch_norm: str) -> Iterator[None]:
    """Put the batch norms in the asked mode; modes and running statistics come back."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    saved = [(norm, norm.momentum, _buffers(norm)) for norm in norms]
    with evaluating(model):
        try:
            if batch_norm != "eval":
                for norm in norms:
                    norm.train()
            if batch_norm == "frozen":
                for norm in norms:
                    norm.momentum = 1.0
                with torch.no_grad():
                    model(images)
                model.eval()
            yield
        finally:
            for norm, momentum, buffers in saved:
                norm.momentum = momentum
                for name, value in buffers.items():
                    getattr(norm, name).copy_(value)


def _buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}


def _bootstrap(log_psi: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of exp(mean) over inputs; its draws have a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    n = len(log_psi)
    draws = torch.randint(n, (BOOTSTRAP_DRAWS, n), generator=generator)
    means = log_psi[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return math.exp(low), math.exp(high)


def _check(images: Tensor, radii: Sequence[float], steps: int, step: str, batch_norm: str) -> None:
    if len(images) == 0:
        raise ValueError("expected at least one input, got 0")
    check_settings(radii, steps, step, batch_norm)


def check_settings(radii: Sequence[float], steps: int, step: str, batch_norm: str) -> None:
    """Raise ValueError for settings that :func:`susceptibility` would refuse."""
    if not radii or not all(r > 0 and math.isfinite(r) for r in radii):
        raise ValueError(f"radii: expected one or more RMS lengths > 0, got {list(radii)}")
    if steps < 0:
        raise ValueError(f"expected steps >= 0, got {steps}")
    if step not in STEPS:
        raise ValueError(f"step: expected one of {list(STEPS)}, got {step!r}")
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm: expected one of {list(BATCH_NORM)}, got {batch_norm!r}")
