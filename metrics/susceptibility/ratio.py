"""The susceptibility ratio Ψ: how much a network magnifies a small change of its input.

|v| is the RMS norm sqrt(mean(v_i^2)), for inputs and outputs alike.

    ψ(h, x, δ) = |h(x) - h(x + δ)| / |δ|                                      (eq. 1)
    Ψ̂          = exp( mean over inputs and radii of ln ψ )                    (eq. 2)

δ is found by a few steps of gradient ascent on |h(x) - h(x + δ)|, put back on the sphere |δ| = r
after each. Where the outputs cannot move further, ψ falls like 1/r: the ratio *saturates*, and a
smaller Ψ̂ is then no sign of robustness. What ψ tends to as r → 0 is in
:mod:`metrics.susceptibility.limit`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from metrics.answers import outputs_of
from metrics.attacks.geometry import own_generator
from metrics.checks import check_batch_size, check_inputs, check_model
from metrics.engine.evaluator import Spent
from metrics.engine.folding import copied
from metrics.left_as_found import evaluating
from metrics.precision import full_float32
from metrics.showing import brief
from metrics.susceptibility.ascent import Ascent, AscentSettings
from metrics.susceptibility.exploration import check_settings, explore, known_of, starts
from metrics.susceptibility.limit import susceptibility_limit
from metrics.susceptibility.means import bootstrap, geometric_mean, saturates
from metrics.susceptibility.normalisation import (
    FEW,
    batch_norms,
    coupled,
    normalising,
)
from metrics.susceptibility.sphere import rms

ROUNDING = 100  # rounding errors of an output, under which its change is noise
SMALLEST = 2.0**-149  # of float32: outputs near it are rounded to its multiples


@dataclass(frozen=True)
class Susceptibility:
    """Ψ̂ and what it was made of.

    Attributes:
        value: Ψ̂, the geometric mean of ``psi`` in float64.
        psi: ``(radii, N)`` float64, ψ of every radius and input.
        radii: ``(radii, N)`` float64, the radius that each was asked at.
        per_radius: Ψ̂ of each radius alone.
        interval: 95 % bootstrap interval of Ψ̂ over inputs.
        saturated: Ψ̂ of two neighbouring radii differs by more than 1.5 times; None for one radius,
            which cannot tell.
        underflows: ψ that were exactly 0; clamped to the smallest float64 in the mean.
        cancelled: ψ whose output change is under 100 rounding errors of the output, in the coarsest
            precision on its way: float64 tells.
        nonfinite: ψ that are NaN or infinite; Ψ̂ is then not finite either.
        few: batch norm took its statistics of a batch of fewer than 4 inputs.
        flipped: ``(radii, N)`` bool, after the attack another output is the largest, or one is not
            finite. Of inputs that the model gets right, the rest is the post-attack accuracy.
        limit: the geometric mean of ψ as r → 0, where it was asked for.
        passes: images that went through the model, forwards or backwards.
    """

    value: float
    psi: Tensor
    radii: Tensor
    per_radius: tuple[float, ...]
    interval: tuple[float, float]
    saturated: bool | None
    underflows: int
    cancelled: int
    nonfinite: int
    few: bool
    flipped: Tensor
    limit: float | None
    passes: int

    __repr__ = brief


def susceptibility(
    model: nn.Module,
    images: Tensor,
    *,
    radii: Sequence[float] = (1e-4, 1e-3, 1e-2),
    law: str = "fixed",
    batch_norm: str = "eval",
    limit: bool = False,
    float64: bool = False,
    fast: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    **ascent: Unpack[AscentSettings],
) -> Susceptibility:
    """Return Ψ̂ of ``model`` at ``images`` (equations 1 and 2 of the Ψ paper).

    Rows of all radii, restarts and inputs go through the model together, on a folded copy of it;
    the ψ that count are measured on the model itself.

    Args:
        model: images to outputs ``(N, ...)``; left as found, batch-norm statistics included.
        images: ``(N, C, H, W)`` float. The sphere is not cut by the box [0, 1].
        radii: RMS lengths of δ.
        law: ``fixed`` uses each of ``radii`` for every input; ``log-uniform`` and ``uniform`` cut
            the range that they span into as many equal parts, of ln r or of r, and draw one radius
            in each part for every input.
        batch_norm: ``eval`` for a trained model; ``frozen`` uses the statistics of one clean
            batch (an untrained model); ``batch`` those of every batch, which couples the inputs
            (so that radii are not batched).
        limit: also find ψ as r → 0; for ``batch``, with ``frozen`` statistics.
        float64: compute with a float64 copy of the model.
        fast: search on the folded copy.
        batch_size: rows at a time; for ``batch`` inputs, which decides what a batch is. None is
            what suits the device, and 256 for ``batch``.
        generator: decides radii and starts, of each input alone: batches play no part.
        ascent: settings of :class:`Ascent` (steps, step, learning_rate, restarts, start); 0 steps
            give the random baseline, and ``step="sign"`` is the preset of Table 2.

    Raises:
        ValueError: no inputs, no radii, a radius <= 0, a setting that is out of range or unknown,
            or a model that cannot be measured so.

    Warns:
        UserWarning: batch norm statistics of fewer than 4 inputs.
    """
    climbing = check_settings(radii, law=law, batch_norm=batch_norm, **ascent)
    check_model(model)
    check_inputs(images)
    batch_size = check_batch_size(batch_size)
    generator = own_generator(generator, images.device)
    radii = [float(radius) for radius in radii]
    with full_float32(), torch.inference_mode(False), torch.enable_grad():
        if float64:
            model, images = _in_float64(model, images), images.double()
        return _susceptibility(
            model,
            images.detach().clone(),
            radii,
            law,
            climbing,
            batch_norm=batch_norm,
            limit=limit,
            fast=fast,
            batch_size=batch_size,
            generator=generator,
        )


def _susceptibility(
    model: nn.Module,
    x: Tensor,
    radii: Sequence[float],
    law: str,
    ascent: Ascent,
    *,
    batch_norm: str,
    limit: bool,
    fast: bool,
    batch_size: int | None,
    generator: torch.Generator | None,
) -> Susceptibility:
    r, directions = starts(x, radii, law, ascent, generator)
    shape = (len(radii), ascent.restarts, len(x))
    psi, cancelled, flipped = (
        torch.zeros(shape, dtype=kind, device="cpu")
        for kind in (torch.float64, torch.bool, torch.bool)
    )
    spent = Spent()
    few = batch_norm != "eval" and bool(batch_norms(model)) and len(x) < FEW
    with normalising(model, x, batch_norm):
        for rows, inputs, moved, clean, precision in explore(
            model, x, r, directions, ascent, spent, coupled(model, batch_norm), fast, batch_size,
            known_of(model, batch_norm),
        ):  # fmt: skip
            with torch.no_grad():
                outputs = outputs_of(model, moved)
            spent.forwards += len(moved)
            change = rms(outputs.double() - clean.double()).flatten()
            length = rms(moved.double() - inputs.double()).flatten()  # what the model saw of δ
            noise = precision * rms(clean.double()).flatten() + SMALLEST
            psi.view(-1)[rows] = (change / length).cpu()
            cancelled.view(-1)[rows] = (change < ROUNDING * noise).cpu()
            after, before = (v.reshape(len(v), -1) for v in (outputs, clean))
            other = after.argmax(dim=1) != before.argmax(dim=1)
            flipped.view(-1)[rows] = (other | ~after.isfinite().all(dim=1)).cpu()
            few |= coupled(model, batch_norm) and len(moved) < FEW
    if few and len(x) >= FEW:
        warnings.warn(f"batches of fewer than {FEW} inputs share their statistics", stacklevel=3)
    best = psi.nan_to_num(nan=math.inf).argmax(dim=1, keepdim=True)  # NaN counts, as NaN
    psi, cancelled, flipped = (v.gather(1, best).squeeze(1) for v in (psi, cancelled, flipped))
    found = None
    if limit:
        frozen = "frozen" if batch_norm == "batch" else batch_norm
        limits = susceptibility_limit(model, x, batch_norm=frozen, generator=generator)
        found = geometric_mean(limits).item()
    per_radius = geometric_mean(psi)
    return Susceptibility(
        value=geometric_mean(psi.flatten()).item(),
        psi=psi,
        radii=r,
        per_radius=tuple(per_radius.tolist()),
        interval=bootstrap(psi),
        saturated=saturates(per_radius[r.mean(dim=1).argsort()]) if len(radii) > 1 else None,
        underflows=int((psi == 0).sum()),
        cancelled=int(cancelled.sum()),
        nonfinite=int((~psi.isfinite()).sum()),
        few=few,
        flipped=flipped,
        limit=found,
        passes=spent.forwards + spent.backwards,
    )


def _in_float64(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a float64 copy of a model, which is left as found.

    Raises:
        ValueError: one that cannot be copied, or does not run in float64.
    """
    with evaluating(model), torch.no_grad():
        model(images[:2].clone())  # what it keeps of a graph cannot be copied
        try:
            exact = copied(model).double()
            exact(images[:2].clone().double())
        except Exception as error:
            raise ValueError(
                f"float64: expected a model that can be copied and runs in float64, got "
                f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            ) from error
    return exact
