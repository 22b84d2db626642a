"""Metrics and attacks as a configuration names them: ``pgd`` or ``{name: pgd, steps: 20}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from launch.config.values import build_value, named, plain, refuse_unknown
from metrics import ATTACKS, METRICS, Attack, Metric
from metrics.robustness.scores import OWN_EPSILON, AttackAccuracy, CascadeAccuracy
from nas.errors import InputError
from nas.names import find

Entry = str | Mapping[str, Any]
OWN = ("label", "limit")
"""Settings of an attack's metric that are not the attack's."""


def build_metric(entry: Entry, epsilon: float | None) -> Metric:
    """Return the metric of an entry of ``metrics``.

    Args:
        entry: of ``metrics``.
        epsilon: L infinity radius of an attack that names none; an L2 attack names its own. Of
            None every attack does.

    Raises:
        InputError: an unknown name or setting, a value that is refused, or no epsilon.
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
    elif "attack" in _settings(kind) and "attack" in settings:
        settings = {**settings, "attack": _of_a_curve(settings["attack"], f"{where}.attack")}
    elif "epsilon" in _settings(kind) and "epsilon" not in settings:
        if settings.get("norm") == "l2":
            raise InputError(f"{where}: {OWN_EPSILON}")
        _given(epsilon, where)
        settings["epsilon"] = epsilon
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


def without_epsilon(entry: Entry) -> dict[str, Any]:
    """Return an entry without its L infinity epsilon, and without those of a cascade's attacks."""
    name, settings = named({"name": entry} if isinstance(entry, str) else entry, "metrics")
    kind = kind_of(name)
    if "attacks" in settings:
        settings["attacks"] = [without_epsilon(attack) for attack in settings["attacks"]]
    known = _settings(kind)
    if issubclass(kind, Attack):
        norm = kind(**{k: v for k, v in settings.items() if k in known}).distance
    else:
        norm = settings.get("norm", "linf")
    if norm != "l2":
        settings.pop("epsilon", None)
    return {"name": name, **settings}


def the_attack(entry: Entry, where: str) -> Attack:
    """Return the attack of an entry that names no epsilon: whoever uses it gives it its own.

    Raises:
        InputError: no such attack, or a setting that it refuses.
    """
    return _of_a_curve(entry, where)


def _cascade(settings: dict[str, Any], epsilon: float | None, where: str) -> dict[str, Any]:
    """Return a cascade's settings with its attacks built.

    ``epsilon`` is that of L infinity attacks that name none. The steps of the attacks that a
    cascade always had stand in earlier runs as ``pgd_steps`` and ``apgd_steps``.
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
        name, kind, own = _attack(entry, f"{where}.attacks")
        built.append(_built(kind, own, epsilon, f"{where}.attacks.{name}"))
    settings["attacks"] = tuple(built)
    return settings


def _of_a_curve(entry: Any, where: str) -> Attack:
    """Return the attack of a curve over epsilons, which gives it its own."""
    name, kind, own = _attack(entry, where)
    attack: Attack = build_value(kind, own, f"{where}.{name}")
    return attack


def _attack(entry: Any, where: str) -> tuple[str, type[Attack], dict[str, Any]]:
    """Return the name, the class and the settings of an attack's entry."""
    if not isinstance(entry, str | Mapping):
        raise InputError(f"{where}: expected an attack, such as pgd, got {entry!r}")
    name, own = named({"name": entry} if isinstance(entry, str) else entry, where)
    kind: Any = find(name, ATTACKS, where)
    if not (isinstance(kind, type) and issubclass(kind, Attack)):
        raise InputError(f"{where}: expected an Attack, got {kind!r} ({name})")
    return name, kind, own


def _built(
    kind: type[Attack], settings: dict[str, Any], epsilon: float | None, where: str
) -> Attack:
    filled = settings if epsilon is None else {"epsilon": epsilon, **settings}
    attack: Attack = build_value(kind, filled, where)
    if "epsilon" not in settings:
        if attack.distance == "l2":
            raise InputError(f"{where}: {OWN_EPSILON}")
        _given(epsilon, where)
    return attack


def _given(epsilon: float | None, where: str) -> None:
    if epsilon is None:
        raise InputError(
            f"{where}: expected an epsilon of its own (such as 8/255), got none: the adversary's "
            "is an L2 radius"
        )


def _settings(kind: type[Any]) -> list[str]:
    return [f.name for f in fields(kind) if f.init]
