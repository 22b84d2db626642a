"""Layers that act on each value, move values, or join tensors."""

from __future__ import annotations

import math

from metrics.bounds.gains.form import Form
from metrics.bounds.operations import Activation, Concatenation, Rearrangement, Scaling, Sum
from metrics.bounds.spectral import outward


def scaling(layer: Scaling) -> Form:
    """Return max |scale|: of batch norm |gamma| / sqrt(variance + epsilon)."""
    return Form("max|γ|/σ", outward(float(layer.scale.abs().max())), "exact")


def activation(layer: Activation) -> Form:
    """Return the largest slope."""
    return Form("max|g'|", layer.slope, "exact")


def rearrangement(layer: Rearrangement) -> Form:
    """Return the root of how often a value occurs in the output, at most."""
    return Form("√copies" if layer.copies > 1 else "1", math.sqrt(layer.copies), "exact")


def total(layer: Sum, gains: list[float]) -> Form:
    """Return the sum of the gains of the terms: for x + F(x), 1 + L_F."""
    terms = (abs(c) * gain for c, gain in zip(layer.coefficients, gains, strict=True))
    return Form("ΣL", outward(sum(terms)))


def concatenation(layer: Concatenation, gains: list[float]) -> Form:
    """Return the root of the sum of squares of the gains of the parts."""
    return Form("√ΣL²", outward(math.hypot(*gains)))
