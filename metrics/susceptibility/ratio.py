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

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.checks import check_model
from metrics.engine.evaluator import BATCH_SIZES, Spent
from metrics.engine.folding import fast_copy
from metrics.susceptibility.ascent import Ascent
from metrics.susceptibility.limit import susceptibility_limit
from metrics.susceptibility.normalisation import (
    FEW,
    batch_norms,
    check_batch_norm,
    coupled,
    normalising,
)
from metrics.susceptibility.sphere import rms

LAWS = ("fixed", "log-uniform", "uniform")
SATURATION = 1.5  # Ψ̂ of neighbouring radii may differ by this factor
ROUNDING = 100  # rounding errors of an output, under which its change is noise
COUPLED_BATCH = 256  # inputs whose statistics batch norm shares
CACHED_PIXELS = 400_000  # 32 images of 3 x 64 x 64: 16 to 32 were 1.2 times as fast as 100
BOOTSTRAP_DRAWS = 1000


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
        cancelled: ψ whose output change is under 100 rounding errors of the output: float64 tells.
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


def susceptibility(
    model: nn.Module,
    images: Tensor,
    *,
    radii: Sequence[float] = (1e-4, 1e-3, 1e-2),
    law: str = "fixed",
    steps: int = 5,
    step: str = "rel",
    learning_rate: float = 0.01,
    restarts: int = 1,
    start: str = "gaussian",
    batch_norm: str = "eval",
    limit: bool = False,
    float64: bool = False,
    fast: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
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
        steps, step, learning_rate, restarts, start: see :class:`Ascent`; 0 steps give the random
            baseline, and ``step="sign"`` is the preset of Table 2.
        batch_norm: ``eval`` for a trained model; ``frozen`` uses the statistics of one clean
            batch (an untrained model); ``batch`` those of every batch, which couples the inputs
            (so that radii are not batched).
        limit: also find ψ as r → 0; for ``batch``, with ``frozen`` statistics.
        float64: compute with a float64 copy of the model.
        fast: search on the folded copy.
        batch_size: rows at a time; for ``batch`` inputs, which decides what a batch is. None is
            what suits the device, and 256 for ``batch``.
        generator: decides radii and starts, of each input alone: batches play no part.

    Raises:
        ValueError: no inputs, no radii, a radius <= 0, or a setting that is out of range or
            unknown.

    Warns:
        UserWarning: batch norm statistics of fewer than 4 inputs.
    """
    ascent = check_settings(
        radii,
        law=law,
        steps=steps,
        step=step,
        learning_rate=learning_rate,
        restarts=restarts,
        start=start,
        batch_norm=batch_norm,
    )
    if len(images) == 0:
        raise ValueError("expected at least one input, got 0")
    if float64:
        model, images = copy.deepcopy(model).double(), images.double()
    check_model(model)
    with torch.inference_mode(False), torch.enable_grad():
        return _susceptibility(
            model,
            images.detach().clone(),
            radii,
            law,
            ascent,
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
    r, directions = _draws(x, radii, law, ascent, generator)
    shape = (len(radii), ascent.restarts, len(x))
    psi, cancelled, flipped = (
        torch.zeros(shape, dtype=kind) for kind in (torch.float64, torch.bool, torch.bool)
    )
    spent = Spent()
    few = batch_norm != "eval" and bool(batch_norms(model)) and len(x) < FEW
    with normalising(model, x, batch_norm):
        for rows, inputs, moved, clean in _explore(
            model, x, r, directions, ascent, spent, coupled(model, batch_norm), fast, batch_size
        ):
            with torch.no_grad():
                outputs = model(moved.clone())
            spent.forwards += len(moved)
            change = rms(outputs.double() - clean.double()).flatten()
            length = rms(moved.double() - inputs.double()).flatten()  # what the model saw of δ
            rounding = ROUNDING * torch.finfo(clean.dtype).eps * rms(clean.double()).flatten()
            psi.view(-1)[rows] = (change / length).cpu()
            cancelled.view(-1)[rows] = (change < rounding).cpu()
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


def sphere_attack(
    model: nn.Module,
    images: Tensor,
    radius: float,
    *,
    steps: int = 5,
    step: str = "rel",
    learning_rate: float = 0.01,
    start: str = "gaussian",
    batch_norm: str = "eval",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``images`` moved by the δ, |δ| = ``radius``, at which :func:`susceptibility` is.

    Args:
        model, images, steps, step, learning_rate, start, batch_norm, batch_size, generator: as
            there.
        radius: RMS length of δ.

    Raises:
        ValueError: as there.
    """
    ascent = check_settings(
        (radius,),
        steps=steps,
        step=step,
        learning_rate=learning_rate,
        start=start,
        batch_norm=batch_norm,
    )
    check_model(model)
    with torch.inference_mode(False), torch.enable_grad():
        x = images.detach().clone()
        r, directions = _draws(x, (radius,), "fixed", ascent, generator)
        moved = torch.empty_like(x)
        with normalising(model, x, batch_norm):
            for rows, _, found, _ in _explore(
                model, x, r, directions, ascent, Spent(), coupled(model, batch_norm), True,
                batch_size,
            ):  # fmt: skip
                moved[rows] = found
    return moved


def log_radii(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return ``count`` radii from ``low`` to ``high``, equally far apart in ln r.

    Raises:
        ValueError: a bound that is not positive, or fewer than two.
    """
    if not (low > 0 and high > low and count >= 2):
        raise ValueError(f"expected 0 < low < high and count >= 2, got {low}, {high}, {count}")
    return tuple(low * (high / low) ** (i / (count - 1)) for i in range(count))


def geometric_mean(psi: Tensor) -> Tensor:
    """Return exp(mean of ln ψ) over the last axis, in float64; a ψ of 0 counts as the smallest."""
    return psi.double().clamp_min(torch.finfo(torch.float64).tiny).log().mean(dim=-1).exp()


def bootstrap(psi: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of Ψ̂ over the inputs of ``(radii, N)``; its draws are fixed."""
    logs = psi.double().clamp_min(torch.finfo(torch.float64).tiny).log().mean(dim=0)
    n = len(logs)
    draws = torch.randint(n, (BOOTSTRAP_DRAWS, n), generator=torch.Generator().manual_seed(0))
    means = logs.cpu()[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return math.exp(low), math.exp(high)


def saturates(per_radius: Tensor) -> bool:
    """Return whether Ψ̂ of two neighbouring radii differs by more than 1.5 times."""
    steps = per_radius.log().diff().abs()
    return bool((steps > math.log(SATURATION)).any())


def check_settings(
    radii: Sequence[float],
    *,
    law: str = "fixed",
    batch_norm: str = "eval",
    steps: int = 5,
    step: str = "rel",
    learning_rate: float = 0.01,
    restarts: int = 1,
    start: str = "gaussian",
) -> Ascent:
    """Return the ascent of these settings; raise ValueError for what cannot be."""
    if not radii or not all(r > 0 and math.isfinite(r) for r in radii):
        raise ValueError(f"radii: expected one or more RMS lengths > 0, got {list(radii)}")
    if law not in LAWS:
        raise ValueError(f"law: expected one of {list(LAWS)}, got {law!r}")
    if law != "fixed" and len(set(radii)) < 2:
        raise ValueError(f"law {law}: expected two or more different radii, got {list(radii)}")
    check_batch_norm(batch_norm)
    return Ascent(
        steps=steps, step=step, learning_rate=learning_rate, restarts=restarts, start=start
    )


# ------------------------------------------------------------------------------------------ parts


def _draws(
    x: Tensor, radii: Sequence[float], law: str, ascent: Ascent, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return radii ``(radii, N)`` float64 and starting directions ``(restarts, N, C, H, W)``.

    Every radius starts from the same direction, so that rows differ by the radius alone.
    """
    r = torch.tensor(radii, dtype=torch.float64).unsqueeze(1).repeat(1, len(x))
    directions = []
    for i in range(len(x)):
        directions.append(ascent.directions(x.shape[1:], generator))
        if law != "fixed":
            device = None if generator is None else generator.device
            u = torch.rand(len(radii), generator=generator, device=device).double().cpu()
            share = (torch.arange(len(radii)) + u) / len(radii)
            low, high = min(radii), max(radii)
            if law == "uniform":
                r[:, i] = low + (high - low) * share
            else:
                r[:, i] = low * (high / low) ** share
    return r, torch.stack(directions, dim=1).to(x)


def _explore(
    model: nn.Module,
    x: Tensor,
    radii: Tensor,
    directions: Tensor,
    ascent: Ascent,
    spent: Spent,
    together: bool,
    fast: bool,
    batch_size: int | None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield row numbers, their x, x + δ and h(x); rows count through (radius, restart, input).

    ``together``: a batch holds different inputs at one radius, since they share its statistics.
    """
    shape = (len(radii), ascent.restarts, len(x))
    rows = torch.arange(math.prod(shape)).view(-1, len(x) if together else math.prod(shape))
    size = batch_size or (COUPLED_BATCH if together else _suits(x))
    quick = (None if together or not fast else fast_copy(model, x[:2])) or model
    clean = quick_clean = _outputs(model, x, size)
    if quick is not model:
        quick_clean = _outputs(quick, x, size)
    spent.forwards += len(x) * (1 if quick is model else 2)
    for some in (batch for group in rows for batch in _parts(group, size)):
        k, j, i = torch.unravel_index(some, shape)
        radius = radii[k, i].to(x).view(-1, *[1] * (x.ndim - 1))
        delta = ascent.climb(quick, x[i], quick_clean[i], directions[j, i], radius)
        spent.forwards += ascent.steps * len(some)
        spent.backwards += ascent.steps * len(some)
        yield some, x[i], x[i] + delta, clean[i]


def _outputs(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(some.clone()) for some in _parts(x, batch_size)])


def _parts(v: Tensor, most: int) -> tuple[Tensor, ...]:
    """Return equal parts of at most so many: no last one is left with statistics of a few."""
    parts: tuple[Tensor, ...] = v.tensor_split(math.ceil(len(v) / most))
    return parts


def _suits(x: Tensor) -> int:
    """Return how many images like ``x`` are fastest at a time: what a core's cache holds."""
    if x.device.type != "cpu":
        return BATCH_SIZES["cuda"]
    return max(8, min(BATCH_SIZES["cpu"], CACHED_PIXELS // x[0].numel()))
