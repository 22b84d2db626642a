"""What ψ tends to as r → 0: the largest singular value of the Jacobian, in RMS lengths.

    sup ψ = sigma_max(J) sqrt(N/M),  J the M x N Jacobian of M outputs by N pixels

No attack on a smooth model can exceed it at a small radius, so it shows what an attack missed, and
where Ψ̂ at a finite radius is small because outputs saturate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metrics.attacks.geometry import own_generator
from metrics.checks import check_batch_size, check_inputs, check_model, check_outputs
from metrics.precision import full_float32
from metrics.susceptibility.normalisation import check_batch_norm, normalising
from metrics.susceptibility.sphere import nonzero

METHODS = ("auto", "exact", "krylov")
EXACT_OUTPUTS = 32  # up to so many, as many backward passes are the cheaper way
ELEMENTS = 2**25  # of a Jacobian held at a time
RANK = 1e-6  # float32 leaves so much of a vector that lies in the space already
SMALLEST = 1e-30


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
    if rounds < 1:
        raise ValueError(f"expected rounds >= 1, got {rounds}")
    check_batch_norm(batch_norm)
    if batch_norm == "batch":
        raise ValueError("batch_norm: expected eval or frozen for a limit, got 'batch'")
    check_model(model)
    check_inputs(images)
    check_batch_size(batch_size)
    generator = own_generator(generator, images.device)
    with (
        full_float32(),
        torch.inference_mode(False),
        torch.enable_grad(),
        normalising(model, images, batch_norm),
    ):
        with torch.no_grad():
            outputs = check_outputs(model(images[:1].clone()), 1).numel()
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
                if "derivative for" not in str(error) and "not implemented" not in str(error):
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
    outputs = model(x.clone()).reshape(len(x), -1)
    rows = []
    for unit in torch.eye(outputs.shape[1], dtype=outputs.dtype, device=x.device):
        rows.append(_vjp(outputs, x, unit.expand_as(outputs)).flatten(1))
    jacobian = torch.stack(rows, dim=1).double()
    return _largest(jacobian @ jacobian.transpose(1, 2))


def _krylov(model: nn.Module, images: Tensor, rounds: int, v: Tensor) -> Tensor:
    """Return sigma_max of Jᵀ on the space of J v, J Jᵀ J v, ...: what power iteration visits.

    The best combination of all its vectors (Rayleigh-Ritz) comes closer than the last one alone,
    and is a lower bound too.
    """
    x = images.clone().requires_grad_()
    outputs = model(x.clone())
    basis: list[Tensor] = []  # orthonormal, of the outputs' space
    pulled: list[Tensor] = []  # Jᵀ u of each
    u_free = torch.zeros_like(outputs, requires_grad=True)
    linear = _vjp(outputs, x, u_free, create_graph=True)  # Jᵀ u, whose derivative by u is J
    u = _vjp(linear, u_free, v.to(images))
    for _ in range(rounds):
        basis.append(_orthonormal(u.reshape(len(u), -1).double(), basis))
        w = _vjp(outputs, x, basis[-1].to(u).view_as(u))
        pulled.append(w.flatten(1).double())
        # At its own length, J w could be too small for float32.
        u = _vjp(linear, u_free, w / nonzero(w.flatten(1).abs().amax(dim=1)).view(-1, 1, 1, 1))
    rows = torch.stack(pulled, dim=1)
    return _largest(rows @ rows.transpose(1, 2))


def _orthonormal(u: Tensor, basis: list[Tensor]) -> Tensor:
    """Return each sample of ``u`` without its parts along ``basis``, of length 1 (or 0)."""
    size = u.norm(dim=1, keepdim=True)
    for _ in range(2):  # the second time for what rounding left of the first
        for b in basis:
            u = u - (u * b).sum(dim=1, keepdim=True) * b
    left = u.norm(dim=1, keepdim=True)
    spent = left <= RANK * size  # rounding: the space is used up
    return torch.where(spent, torch.zeros_like(u), u / left.clamp_min(SMALLEST))


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
