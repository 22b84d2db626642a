"""What `psinas score` says: what was scored and how, and what the suspicion flags found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from launch.show.columns import beside
from nas.search.trust import BEGIN, RAISED, advice, suspicions

SHOWN = (
    "epsilon", "deltas", "norm", "region", "steps", "restarts", "queries", "draws", "budget",
    "mode", "target",
)  # fmt: skip
"""Settings without which an attack's accuracy, or a stability, says nothing."""


def header_lines(of: Mapping[str, Any]) -> list[str]:
    """Return what scores are of: data, seed, and each attack's epsilon or lengths and effort."""
    described = ("model", "dataset", "split", "images", "seed")
    rows: dict[str, tuple[str, ...]] = {name: (str(of[name]),) for name in described}
    rows |= _made_lines(of)
    for metric in of["metrics"]:
        attacks = metric.get("attacks", [metric])
        told = [
            _attack(a, named="attacks" in metric) for a in attacks if {"epsilon", "deltas"} & set(a)
        ]
        if metric["images"] < of["images"]:
            told.append(f"{metric['images']} images")
        if told:
            rows[metric.get("as", metric["name"])] = ("; ".join(told),)
    return beside(rows)


def flag_lines(scores: Mapping[str, float]) -> list[str]:
    """Return a line for each suspicion flag in a model's scores, and what each raised one means."""
    names = [n for n in scores if BEGIN in n and n + RAISED in scores]
    rows = {
        name: (
            f"{scores[name]:.6g}",
            f"threshold {scores[name + '_threshold']:.4g}",
            _state(scores[name + RAISED]),
        )
        for name in names
    }
    return [*beside(rows), *(f"! {line}" for line in advice(suspicions(scores)))]


def _made_lines(of: Mapping[str, Any]) -> dict[str, tuple[str]]:
    """Return rows of somebody's own model: its weights, normalisation and size."""
    rows: dict[str, tuple[str]] = {}
    if "weights" in of:
        rows["weights"] = (_weights(of["weights"]),)
    if "normalise" in of:
        told = ((name, " ".join(f"{v:g}" for v in of["normalise"][name])) for name in
                ("mean", "std"))  # fmt: skip
        rows["normalise"] = (", ".join(f"{name} {values}" for name, values in told),)
    if "size" in of:
        rows["size"] = (f"{of['size']} pixels a side",)
    return rows


def _weights(weights: Mapping[str, Any] | None) -> str:
    if weights is None:
        return "none: random ones, whose scores say nothing"
    if "torchvision" in weights:
        return str(weights["torchvision"])
    prefix = f", without the prefix {weights['prefix']}" if weights["prefix"] else ""
    return f"{weights['file']}{prefix}"


def suite_lines(scores: Mapping[str, float]) -> list[str]:
    """Return a warning for each score that says that a suite of attacks may have been misled."""
    lines = []
    for name, share in scores.items():
        if name.endswith("_randomized") and share > 0:
            of = name.removesuffix("_randomized")
            lines.append(
                f"! {of}: {share:.1%} of images get other logits from pass to pass: the suite is "
                "not made for randomized models, and its accuracy is too high"
            )
        for kind in ("zero", "nonfinite"):
            if name.endswith(f"_{kind}_gradients") and share > 0:
                of = name.removesuffix(f"_{kind}_gradients")
                lines.append(
                    f"! {of}: the loss of {share:.1%} of images has a {kind} gradient, which no "
                    "gradient attack can follow: look at --suspicion"
                )
    return lines


def curve_lines(curve: Mapping[str, Any]) -> list[str]:
    """Return a line for each epsilon of a curve: accuracy and its 95 % interval."""
    rows: dict[str, tuple[str, ...]] = {"epsilon": ("accuracy", "low", "high")}
    columns = (curve["epsilons"], curve["accuracies"], curve["low"], curve["high"])
    for epsilon, *shares in zip(*columns, strict=True):
        rows[_pixels(epsilon)] = tuple(f"{share:.4f}" for share in shares)
    told = _attack(curve["attack"], named=True)
    return [f"under {told}, {curve['images']} images:", *beside(rows)]


def _state(raised: float) -> str:
    return "not checked" if math.isnan(raised) else "RAISED" if raised else ""


def _attack(settings: Mapping[str, Any], *, named: bool) -> str:
    told = {key: settings[key] for key in SHOWN if settings.get(key) is not None}
    if "epsilon" in told:
        told["epsilon"] = _pixels(told["epsilon"])
    if "deltas" in told:
        told["deltas"] = " ".join(f"{delta:g}" for delta in told["deltas"])
    if told.get("restarts") == 1:
        del told["restarts"]
    text = ", ".join(f"{key} {value}" for key, value in told.items())
    return f"{settings['name']} {text}" if named else text


def _pixels(epsilon: float) -> str:
    """Return an epsilon as papers write it, ``8/255`` or ``0.2``: the shorter."""
    levels, decimal = 255 * epsilon, f"{epsilon:.4g}"
    whole = abs(levels - round(levels)) < 1e-9
    return min(decimal, f"{levels:.0f}/255", key=len) if whole else decimal
