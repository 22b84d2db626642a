"""Samplers as a configuration names them: a name, any ``BaseSampler`` class, or a factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler
from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from launch.config.values import named, refuse_unknown, validated
from nas.errors import InputError, one_line
from nas.names import find
from nas.samplers.classes import SamplerClass, factory_settings
from nas.samplers.registry import SAMPLERS, SamplerFactory


def build_sampler(entry: Mapping[str, Any]) -> tuple[SamplerFactory, dict[str, Any]]:
    """Return what makes the sampler of an entry, and its settings.

    What makes it is called with (decisions, seed, settings).

    Args:
        entry: ``name`` and settings. The name is one of ``psinas samplers``, or
            ``"pkg.module:Thing"``: a class of ``optuna.samplers.BaseSampler``, whose settings are
            its constructor's keyword arguments, or a function of (decisions, seed, settings).

    Raises:
        InputError: no such sampler, or a setting that it does not take.
    """
    name, settings = named(entry, "sampler")
    found: Any = find(name, SAMPLERS, "sampler.name")
    if isinstance(found, type) and issubclass(found, BaseSampler):
        found = SamplerClass(found)
        types = found.settings
    elif callable(found):
        try:
            types = factory_settings(found)
        except ValueError as error:  # of a builtin, which has no signature
            raise InputError(f"sampler.name: expected {_EXPECTED}, got {name}: {error}") from error
    else:
        raise InputError(f"sampler.name: expected {_EXPECTED}, got {found!r} ({name})")
    if types is None:
        return found, settings
    refuse_unknown(settings, list(types), "sampler")
    return found, {
        key: validated(_adapter(types[key]), value, f"sampler.{key}", object)
        for key, value in settings.items()
    }


def check_sampler(
    factory: SamplerFactory, decisions: Mapping[str, Sequence[Any]], settings: Mapping[str, Any]
) -> None:
    """Make a sampler once, so that what cannot be made is refused before the first trial.

    Raises:
        InputError: it cannot be made, or is no sampler.
    """
    try:
        made: Any = factory(decisions, 0, **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"sampler: {error}") from error
    except Exception as error:  # anybody's constructor: a package that is missing, say
        raise InputError(f"sampler: {one_line(error)}") from error
    if not isinstance(made, BaseSampler):
        raise InputError(f"sampler.name: expected {_EXPECTED}, got one that makes {made!r}")


_EXPECTED = "a BaseSampler class, or a callable of (decisions, seed) that makes a sampler"


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what reads a setting of a type; one that pydantic does not know is taken as it is."""
    try:
        return TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return TypeAdapter(Any)
