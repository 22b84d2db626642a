"""The δ at which ψ is measured: found for rows of all radii, restarts and inputs together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from metrics.answers import outputs_of
from metrics.attacks.geometry import own_generator
from metrics.checks import check_batch_size, check_inputs, check_model, check_outputs
from metrics.engine.evaluator import Spent
from metrics.engine.folding import fast_copy
from metrics.engine.memory import in_batches, suitable_batch
from metrics.engine.sharing import Shared, shared_of
from metrics.precision import full_float32, rounding, widened
from metrics.susceptibility.ascent import Ascent, AscentSettings, displaced
from metrics.susceptibility.normalisation import (
    check_batch_norm,
    coupled,
    normalising,
)
from metrics.susceptibility.radii import LAWS

Explored = tuple[Tensor, Tensor, Tensor, Tensor, float]
COUPLED_BATCH = 256  # inputs whose statistics batch norm shares


def sphere_attack(
    model: nn.Module,
    images: Tensor,
    radius: float,
    *,
    batch_norm: str = "eval",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    **ascent: Unpack[AscentSettings],
) -> Tensor:
    """Return ``images`` moved by the δ, |δ| = ``radius``, at which :func:`susceptibility` is.

    Args:
        model, images, batch_norm, batch_size, generator: as there.
        radius: RMS length of δ.
        ascent: settings of :class:`Ascent`; it has one start.

    Raises:
        ValueError: as there.
    """
    climbing = check_settings((radius,), batch_norm=batch_norm, **ascent)
    if climbing.restarts != 1:
        raise ValueError(f"expected restarts 1 of a single point, got {climbing.restarts}")
    check_model(model)
    check_inputs(images)
    batch_size = check_batch_size(batch_size)
    generator = own_generator(generator, images.device)
    with full_float32(), torch.inference_mode(False), torch.enable_grad():
        x = images.detach().clone()
        r, directions = starts(x, (radius,), "fixed", climbing, generator)
        moved = torch.empty_like(x)
        with normalising(model, x, batch_norm):
            for rows, _, found, _, _ in explore(
                model, x, r, directions, climbing, Spent(), coupled(model, batch_norm), True,
                batch_size, known_of(model, batch_norm),
            ):  # fmt: skip
                moved[rows] = found
    return moved


def check_settings(
    radii: Sequence[float],
    *,
    law: str = "fixed",
    batch_norm: str = "eval",
    **ascent: Unpack[AscentSettings],
) -> Ascent:
    """Return the ascent of these settings; raise ValueError for what cannot be."""
    try:
        lengths = [float(radius) for radius in radii]
    except (TypeError, ValueError):
        raise ValueError(f"radii: expected one or more RMS lengths > 0, got {radii!r}") from None
    if not lengths or not all(r > 0 and math.isfinite(r) for r in lengths):
        raise ValueError(f"radii: expected one or more RMS lengths > 0, got {lengths}")
    if law not in LAWS:
        raise ValueError(f"law: expected one of {list(LAWS)}, got {law!r}")
    if law != "fixed" and len(set(lengths)) < 2:
        raise ValueError(f"law {law}: expected two or more different radii, got {lengths}")
    check_batch_norm(batch_norm)
    return Ascent(**ascent)


def starts(
    x: Tensor, radii: Sequence[float], law: str, ascent: Ascent, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return radii ``(radii, N)`` float64 and starting directions ``(restarts, N, C, H, W)``.

    Every radius starts from the same direction, so that rows differ by the radius alone.
    """
    r = torch.tensor(radii, dtype=torch.float64, device="cpu").unsqueeze(1).repeat(1, len(x))
    directions = []
    for i in range(len(x)):
        directions.append(ascent.directions(x.shape[1:], generator))
        if law != "fixed":
            device = None if generator is None else generator.device
            u = torch.rand(len(radii), generator=generator, device=device, dtype=torch.float32)
            u = u.double().cpu()
            share = (torch.arange(len(radii), device="cpu") + u) / len(radii)
            low, high = min(radii), max(radii)
            if law == "uniform":
                r[:, i] = low + (high - low) * share
            else:
                r[:, i] = low * (high / low) ** share
    return r, torch.stack(directions, dim=1).to(x.device, widened(x[:0]).dtype)


def explore(
    model: nn.Module,
    x: Tensor,
    radii: Tensor,
    directions: Tensor,
    ascent: Ascent,
    spent: Spent,
    together: bool,
    fast: bool,
    batch_size: int | None,
    shared: Shared,
) -> Iterator[Explored]:
    """Yield row numbers, their x, x + δ and h(x), and the rounding error of outputs.

    Rows count through (radius, restart, input).

    ``together``: a batch holds different inputs at one radius, since they share its statistics.
    """
    shape = (len(radii), ascent.restarts, len(x))
    total = math.prod(shape)
    rows = torch.arange(total, device="cpu").view(-1, len(x) if together else total)
    quick = model
    if fast and not together:
        quick = shared.once("copy", lambda: fast_copy(model, x)) or model
    size = batch_size or (
        COUPLED_BATCH if together else shared.once("batch", lambda: suitable_batch(quick, x))
    )
    clean = quick_clean = _outputs(model, x, size, together)
    if quick is not model:
        quick_clean = _outputs(quick, x, size, together)
    spent.forwards += len(x) * (1 if quick is model else 2)

    precision = rounding(model, clean)

    def climbed(some: Tensor) -> Explored:
        k, j, i = torch.unravel_index(some, shape)
        direction = directions[j, i]
        radius = radii[k, i].to(direction).view(-1, *[1] * (x.ndim - 1))
        inputs, before = x[i], quick_clean[i]
        delta = ascent.climb(quick, inputs, before, direction, radius, together=together)
        spent.forwards += ascent.steps * len(some)
        spent.backwards += ascent.steps * len(some)
        return some, x[i], displaced(x[i], delta), clean[i], precision

    if together:  # a batch that does not fit cannot be halved: its inputs share statistics
        yield from (climbed(some) for group in rows for some in _parts(group, size))
        return
    every = rows.flatten()
    for _, found, _ in in_batches(len(every), size, lambda part: climbed(every[part])):
        yield found


def known_of(model: nn.Module, batch_norm: str) -> Shared:
    """Return what is known of a model in ``eval()``; of one with other statistics nothing is."""
    return shared_of(model) if batch_norm == "eval" else Shared(model)


def _outputs(model: nn.Module, x: Tensor, batch_size: int, together: bool) -> Tensor:
    def look(part: Tensor) -> Tensor:
        return check_outputs(outputs_of(model, part), len(part)).clone()  # not one for all

    with torch.no_grad():
        if together:
            return torch.cat([look(some) for some in _parts(x, batch_size)])
        found = in_batches(len(x), batch_size, lambda part: look(x[part]))
        return torch.cat([outputs for _, outputs, _ in found])


def _parts(v: Tensor, most: int) -> tuple[Tensor, ...]:
    """Return equal parts of at most so many: no last one is left with statistics of a few."""
    parts: tuple[Tensor, ...] = v.tensor_split(math.ceil(len(v) / most))
    return parts
