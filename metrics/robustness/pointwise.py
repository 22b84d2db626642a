"""Robust accuracy at each of several epsilons on its own, as figures of papers show it.

An attack may do worse at a larger epsilon: one long step passes what a short one hits, and a net
that was trained on long steps withstands them first. :func:`metrics.robustness.curves.
accuracy_curve` asks what the attack breaks *within* epsilon, and is the cheaper for attacks of many
steps; this asks what it breaks *at* epsilon. For attacks of one step it takes one gradient in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, misclassified, useless
from metrics.attacks.base import Attack, check_attack
from metrics.attacks.one_step import OneStep
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import in_batches
from metrics.robustness.curves import Curve, check_epsilons, curve_of


def pointwise_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    epsilons: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    fast: bool = True,
) -> Curve:
    """Return robust accuracy at every epsilon on its own: accuracies may rise.

    Args:
        model, images, labels, attack, epsilons, batch_size, fast: as in :func:`accuracy_curve`.
        generator: decides random draws; every epsilon has the same ones.

    Raises:
        ValueError: as :func:`accuracy_curve`.
    """
    check_attack(attack)
    levels = check_epsilons(epsilons)
    attacks = [attack.with_epsilon(epsilon) for epsilon in levels]
    with evaluator(
        model, images, labels, batch_size=batch_size, fast=fast, attacks=attacks
    ) as ready:
        right = ~ready.clean_wrong()
        robust = right.repeat(len(levels), 1)
        rows = right.nonzero().squeeze(1)
        zero = nonfinite = 0
        steps = [one for one in attacks if isinstance(one, OneStep)]
        if len(rows) and steps:
            robust[:, rows], zero, nonfinite = _one_step(ready, rows, steps)
        elif len(rows):
            state = None if generator is None else generator.get_state()
            for level, one in enumerate(attacks):
                if levels[level] == 0:
                    continue
                if generator is not None:
                    assert state is not None
                    generator.set_state(state)
                found = ready.search(one, rows, generator)
                robust[level, rows] = ~found.broken
                zero = int(found.zero_gradients.sum())
                nonfinite = int(found.nonfinite_gradients.sum())
    return curve_of(ready, levels, robust, zero, nonfinite)


def _one_step(
    ready: Evaluator, rows: Tensor, attacks: Sequence[OneStep]
) -> tuple[Tensor, int, int]:
    """Return ``(epsilons, rows)`` bool, what withstands, and counts of useless gradients.

    The fast copy looks first; broken is what the model itself then gets wrong.
    """
    robust = torch.ones(len(attacks), len(rows), dtype=torch.bool, device=rows.device)
    zeros = nonfinites = 0

    def look(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        x, y = ready.images[rows[part]].detach().clone(), ready.labels[rows[part]].clone()
        gradient = attacks[-1].gradient(ready.quick, x, y)
        stands = torch.ones(len(attacks), len(x), dtype=torch.bool, device=x.device)
        for level, attack in enumerate(attacks):
            if attack.epsilon == 0:
                continue
            there = attack.step(x, gradient)
            fooled = misclassified(logits_of(ready.quick, there), y).nonzero().squeeze(1)
            if ready.quick is not ready.model and len(fooled):
                fooled = fooled[misclassified(logits_of(ready.model, there[fooled]), y[fooled])]
            stands[level, fooled] = False
        return stands, *useless(gradient)

    for part, (stands, zero, nonfinite), most in in_batches(len(rows), ready.batch_size, look):
        robust[:, part] = stands
        zeros += int(zero.sum())
        nonfinites += int(nonfinite.sum())
        ready.batch_size = most
    return robust, zeros, nonfinites
