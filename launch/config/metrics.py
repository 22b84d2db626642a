"""Metrics and attacks as a configuration names them: ``pgd`` or ``{name: pgd, steps: 20}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from launch.config.values import build_value, named, plain, refuse_unknown
from metrics import ATTACKS, METRICS, Attack, Metric
from metrics.robustness.scores import AttackAccuracy, CascadeAccuracy
from nas.errors import InputError
from nas.names import find

Entry = str | Mapping[str, Any]
OWN = ("label", "limit")
"""Settings of an attack's metric that are not the attack's."""


def build_metric(entry: Entry, epsilon: float) -> Metric:
    """Return the metric of an entry of ``metrics``; an attack that names no epsilon gets this one.

    Raises:
        InputError: an unknown name or setting, or a value that is refused.
    """
    name, settings = named({"name": entry} if isinstance(entry, str) else entry, "metrics")
    where = f"metrics.{name}"
    if "as" in settings:
        settings["label"] = settings.pop("as")
    kind = kind_of(name)
    if issubclass(kind, Attack):
        own = {key: settings.pop(key) for key in OWN if key in settings}
        refuse_unknown(settings, [*OWN, *_settings(kind)], where)
        attack = _built(kind, {**kind.as_metric, **settings}, epsilon, where)
        return build_value(AttackAccuracy, {"attack": attack, **own}, where)  # type: ignore[no-any-return]
    if issubclass(kind, CascadeAccuracy):
        settings = _cascade(settings, epsilon, where)
    elif "epsilon" in _settings(kind):
        settings.setdefault("epsilon", epsilon)
    return build_value(kind, settings, where)  # type: ignore[no-any-return]


def kind_of(name: str) -> type[Metric] | type[Attack]:
    """Return the class behind a metric's name.

    Raises:
        InputError: no such name, or something else behind it.
    """
    found: Any = ATTACKS.get(name) or find(name, METRICS, "metrics")
    if not (isinstance(found, type) and issubclass(found, Metric | Attack)):
        raise InputError(f"metrics: expected a subclass of Metric, got {found!r} ({name})")
    return found


def metric_settings(entry: Entry, metric: Metric) -> dict[str, Any]:
    """Return the resolved entry of a metric, as YAML types."""
    name = entry if isinstance(entry, str) else entry["name"]
    label = {"as": metric.label} if metric.label else {}
    return {"name": name, **plain(metric.settings()), **label}


def _cascade(settings: dict[str, Any], epsilon: float, where: str) -> dict[str, Any]:
    """Return a cascade's settings with its attacks built.

    ``epsilon`` is that of attacks that name none. The steps of the attacks that a cascade always
    had stand in earlier runs as ``pgd_steps`` and ``apgd_steps``.
    """
    settings = dict(settings)
    epsilon = settings.pop("epsilon", epsilon)
    steps = {key: settings.pop(key) for key in ("pgd_steps", "apgd_steps") if key in settings}
    if steps and "attacks" in settings:
        raise InputError(f"{where}: expected attacks or {', '.join(steps)}, got both")
    usual = [
        "fgsm",
        {"name": "pgd", "steps": steps.get("pgd_steps", 20)},
        {"name": "apgd", "steps": steps.get("apgd_steps", 100)},
    ]
    entries = settings.get("attacks", usual)
    if not isinstance(entries, list | tuple) or not entries:
        raise InputError(f"{where}.attacks: expected a list of attacks, got {entries!r}")
    built = []
    for entry in entries:
        name, own = named({"name": entry} if isinstance(entry, str) else entry, f"{where}.attacks")
        kind: Any = find(name, ATTACKS, f"{where}.attacks")
        if not (isinstance(kind, type) and issubclass(kind, Attack)):
            raise InputError(f"{where}.attacks: expected an Attack, got {kind!r} ({name})")
        built.append(_built(kind, own, epsilon, f"{where}.attacks.{name}"))
    settings["attacks"] = tuple(built)
    return settings


def _built(kind: type[Attack], settings: dict[str, Any], epsilon: float, where: str) -> Attack:
    attack: Attack = build_value(kind, {"epsilon": epsilon, **settings}, where)
    return attack


def _settings(kind: type[Any]) -> list[str]:
    return [f.name for f in fields(kind) if f.init]
