"""What ψ tends to as r → 0: the largest singular value of the Jacobian, in RMS lengths.

    sup ψ = sigma_max(J) sqrt(N/M),  J the M x N Jacobian of M outputs by N pixels

No attack on a smooth model can exceed it at a small radius, so it shows what an attack missed, and
where Ψ̂ at a finite radius is small because outputs saturate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metrics.answers import outputs_of
from metrics.attacks.geometry import own_generator
from metrics.checks import (
    check_batch_size,
    check_inputs,
    check_integers,
    check_model,
    check_outputs,
)
from metrics.deadline import check
from metrics.precision import full_float32
from metrics.susceptibility.normalisation import check_batch_norm, coupled, normalising
from metrics.susceptibility.sphere import nonzero, scales

METHODS = ("auto", "exact", "krylov")
EXACT_OUTPUTS = 32  # up to so many, as many backward passes are the cheaper way
ELEMENTS = 2**25  # of a Jacobian held at a time
RANK = 1e-6  # float32 leaves so much of a vector that lies in the space already
TRANSPOSED = 0.01  # share by which <J Jᵀ u, u> may differ from |Jᵀ u|²
TWICE = "that cannot be differentiated"


def susceptibility_limit(
    model: nn.Module,
    images: Tensor,
    *,
    method: str = "auto",
    rounds: int = 10,
    batch_norm: str = "eval",
    batch_size: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``(N,)`` float64: ψ as r → 0, sigma_max(J) sqrt(N/M) of each input.

    Args:
        model: images to outputs ``(N, ...)``, left as found; inputs must not depend on each other.
        images: ``(N, C, H, W)`` float.
        method: ``exact`` takes the M x M Gram matrix J Jᵀ, M backward passes; ``krylov`` gives a
            lower bound from the vectors of a power iteration, two backward passes a round;
            ``auto`` is exact for up to 32 outputs, and for models of operations that torch cannot
            differentiate twice.
        rounds: of ``krylov``.
        batch_norm: ``eval``, or ``frozen`` at the statistics of one clean batch.
        batch_size: images at a time.
        generator: decides the start of ``krylov``.

    Raises:
        ValueError: an unknown method, rounds < 1, ``batch_norm="batch"``, whose Jacobian is of
            the whole batch, ``krylov`` of a model that torch cannot differentiate twice; images or
            a model that cannot be.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {list(METHODS)}, got {method!r}")
    check_integers(rounds=rounds)
    if rounds < 1:
        raise ValueError(f"expected rounds >= 1, got {rounds}")
    check_batch_norm(batch_norm)
    if batch_norm == "batch":
        raise ValueError("batch_norm: expected eval or frozen for a limit, got 'batch'")
    check_model(model)
    check_inputs(images)
    batch_size = check_batch_size(batch_size)
    generator = own_generator(generator, images.device)
    with (
        full_float32(),
        torch.inference_mode(False),
        torch.enable_grad(),
        normalising(model, images, batch_norm),
    ):
        with torch.no_grad():
            outputs = check_outputs(outputs_of(model, images[:1]), 1).numel()
        if coupled(model, batch_norm):
            raise ValueError(
                "model: expected batch norms with running statistics for a limit, got some without,"
                " whose Jacobian is of the whole batch"
            )
        exact = method == "exact" or (method == "auto" and outputs <= EXACT_OUTPUTS)
        pixels = images[0].numel()
        scale = math.sqrt(pixels / outputs)
        if not exact:
            starts = [torch.randn(images.shape[1:], generator=generator, device=generator.device,
                                  dtype=torch.float32) for _ in images]  # fmt: skip
            try:
                found = [
                    _krylov(model, x, rounds, torch.stack(v))
                    for x, v in zip(
                        images.detach().split(batch_size), _groups(starts, batch_size), strict=True
                    )
                ]
                return torch.cat(found) * scale
            except (RuntimeError, NotImplementedError) as error:
                told = str(error)
                if not any(part in told for part in ("derivative for", "not implemented", TWICE)):
                    raise
                if method == "krylov":
                    raise ValueError(
                        "method krylov: expected operations that torch differentiates twice, got "
                        f"{str(error).partition(chr(10))[0]}; use exact"
                    ) from error
        batch_size = min(batch_size, max(1, ELEMENTS // (pixels * outputs)))
        return torch.cat([_exact(model, x) for x in images.detach().split(batch_size)]) * scale


def _groups(items: list[Tensor], size: int) -> list[list[Tensor]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _exact(model: nn.Module, images: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    outputs = check_outputs(outputs_of(model, x), len(x)).reshape(len(x), -1)
    down, up = _scales(outputs)
    rows = []
    for unit in torch.eye(outputs.shape[1], dtype=outputs.dtype, device=x.device):
        check()
        rows.append(_vjp(outputs, x, unit * down).flatten(1))
    jacobian = torch.stack(rows, dim=1).double() * up.double().unsqueeze(1)
    return _largest(jacobian @ jacobian.transpose(1, 2))


def _scales(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(N, 1)`` twice: what cotangents are multiplied by, and what undoes it.

    Small outputs have small gradients, which half precision would round to 0.
    """
    if outputs.dtype not in (torch.float16, torch.bfloat16):
        one = torch.ones_like(outputs[:, :1])
        return one, one
    down, _ = scales(outputs.detach().float())
    down = down.clamp(2.0**-14, 2.0**14).to(outputs.dtype)
    return down, 1 / down.float()


def _krylov(model: nn.Module, images: Tensor, rounds: int, v: Tensor) -> Tensor:
    """Return sigma_max of Jᵀ on the space of J v, J Jᵀ J v, ...: what power iteration visits.

    The best combination of all its vectors (Rayleigh-Ritz) comes closer than the last one alone,
    and is a lower bound too.
    """
    x = images.clone().requires_grad_()
    outputs = check_outputs(outputs_of(model, x), len(x))
    down, up = (s.view(-1, *[1] * (outputs.ndim - 1)) for s in _scales(outputs.flatten(1)))
    basis: list[Tensor] = []  # orthonormal, of the outputs' space
    pulled: list[Tensor] = []  # Jᵀ u of each
    u_free = torch.zeros_like(outputs, requires_grad=True)
    linear = _vjp(outputs, x, u_free, create_graph=True)  # Jᵀ u, whose derivative by u is J
    _check_twice(outputs, x, linear, u_free)
    u = _vjp(linear, u_free, v.to(images))
    for _ in range(rounds):
        check()
        basis.append(_orthonormal(u.reshape(len(u), -1).double(), basis))
        w = _vjp(outputs, x, down * basis[-1].to(u).view_as(u))
        pulled.append((w.double() * up.double().view(-1, 1, 1, 1)).flatten(1))
        u = _vjp(linear, u_free, _near_1(w))
    rows = torch.stack(pulled, dim=1)
    return _largest(rows @ rows.transpose(1, 2))


def _check_twice(outputs: Tensor, x: Tensor, linear: Tensor, u_free: Tensor) -> None:
    """Raise RuntimeError unless the derivative of Jᵀ u is J, by <J Jᵀ u, u> = |Jᵀ u|².

    A gradient that cannot be differentiated (that of an own autograd function) makes it 0.
    """
    u = torch.sin(torch.arange(1, outputs[0].numel() + 1, device=x.device)).to(outputs)
    u = u.view_as(outputs[0]).expand_as(outputs)
    pulled = _near_1(_vjp(outputs, x, u))
    pushed = _vjp(linear, u_free, pulled)
    here = (pushed.double() * u.double()).flatten(1).sum(dim=1)
    there = (pulled.double() * _vjp(outputs, x, u).double()).flatten(1).sum(dim=1)
    apart = (here - there).abs() > TRANSPOSED * there
    if (apart & here.isfinite() & there.isfinite()).any():
        raise RuntimeError(f"a gradient {TWICE}")


def _near_1(w: Tensor) -> Tensor:
    """Return each sample at a size that float32 can multiply once more."""
    return w / nonzero(w.flatten(1).abs().amax(dim=1)).view(-1, 1, 1, 1)


def _orthonormal(u: Tensor, basis: list[Tensor]) -> Tensor:
    """Return each sample of ``u`` without its parts along ``basis``, of length 1 (or 0)."""
    size = u.norm(dim=1, keepdim=True)
    for _ in range(2):  # the second time for what rounding left of the first
        for b in basis:
            u = u - (u * b).sum(dim=1, keepdim=True) * b
    left = u.norm(dim=1, keepdim=True)
    spent = left <= RANK * size  # rounding: the space is used up
    return torch.where(spent, torch.zeros_like(u), u / nonzero(left))


def _largest(gram: Tensor) -> Tensor:
    """Return the root of each ``(N, k, k)`` matrix's largest eigenvalue; NaN stays NaN."""
    finite = gram.isfinite().flatten(1).all(dim=1)
    largest = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0))[:, -1].clamp_min(0)
    return torch.where(finite, largest.sqrt(), torch.nan)


def _vjp(outputs: Tensor, at: Tensor, cotangent: Tensor, *, create_graph: bool = False) -> Tensor:
    """Return Jᵀ u; zero where ``outputs`` do not depend on ``at``."""
    if not outputs.requires_grad:
        return torch.zeros_like(at)
    found = torch.autograd.grad(
        outputs, at, cotangent, retain_graph=True, create_graph=create_graph, allow_unused=True
    )[0]
    return torch.zeros_like(at) if found is None else found
