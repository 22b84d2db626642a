"""What is searched beside the architecture: ``vary`` of a configuration, with typed values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from launch.config.values import build_value, plain
from nas.data.config import DataConfig
from nas.data.datasets import check_dataset
from nas.errors import InputError
from nas.trial.recipe import Recipe


def varied_values(
    vary: Mapping[str, Sequence[Any]], recipe: Recipe, data: DataConfig
) -> dict[str, list[Any]]:
    """Return ``vary`` with every value as its key wants it: ``1`` for a share is ``1.0``.

    Args:
        vary: ``recipe``, ``recipe.KEY``, ``data.KEY`` or ``repeat`` -> values.
        recipe, data: over which a value is laid.

    Raises:
        InputError: an unknown key, or values that are refused or the same twice.
    """
    kinds: dict[str, type[Any]] = {"recipe": Recipe, "data": DataConfig}
    known = [f"{part}.{f.name}" for part, kind in kinds.items() for f in fields(kind)]
    known = [key for key in known if key not in ("data.root", "data.download")]  # where, not which
    known += ["recipe", "repeat"]
    document = {"recipe": asdict(recipe), "data": asdict(data)}
    varied: dict[str, list[Any]] = {}
    for name, values in vary.items():
        if name not in known:
            raise InputError(f"vary: expected keys among {', '.join(known)}, got {name!r}")
        if not values:
            raise InputError(f"vary.{name}: expected one or more values, got none")
        part, _, key = name.partition(".")
        if name == "repeat":
            varied[name] = [_repeat(value) for value in values]
        elif name == "recipe":
            varied[name] = [_recipe_set(value, document["recipe"]) for value in values]
        else:
            built = [build_value(kinds[part], {**document[part], key: v}, part) for v in values]
            if name == "data.name":
                for value in values:
                    check_dataset(value)
            varied[name] = [plain(asdict(value)[key]) for value in built]
        if len({json.dumps(value, sort_keys=True) for value in varied[name]}) < len(values):
            raise InputError(f"vary.{name}: expected different values, got {values}")
    for key in {key for values in varied.get("recipe", ()) for key in values}:
        if f"recipe.{key}" in varied:
            raise InputError(
                f"vary: expected recipe.{key} once, got it in vary.recipe and by itself"
            )
    return varied


def share_of_all(recipe: Recipe, vary: Mapping[str, Sequence[Any]]) -> float | None:
    """Return the share of a minibatch that is attacked, None where losses have each their own."""
    losses = [recipe.loss, *vary.get("recipe.loss", ())]
    losses += [keys["loss"] for keys in vary.get("recipe", ()) if "loss" in keys]
    shares = {replace(recipe, loss=loss).attacked_share for loss in losses}
    return shares.pop() if len(shares) == 1 else None


def _repeat(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InputError(f"vary.repeat: expected integers >= 0, got {value!r}")
    return value


def _recipe_set(value: Any, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return several keys of the recipe, each as it wants it."""
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"vary.recipe: expected mappings of recipe keys, got {value!r}")
    built = asdict(build_value(Recipe, {**recipe, **value}, "recipe"))
    return {name: plain(built[name]) for name in value}
