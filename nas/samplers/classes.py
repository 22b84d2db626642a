"""Any ``optuna.samplers.BaseSampler`` class as the sampler of a search: ``my_mod:MySampler``.

A search calls a sampler's factory with (decisions, seed, ``**settings``). :class:`SamplerClass` is
that factory for a class, whose settings are the keyword arguments of its constructor.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from nas.samplers.base import LedgerSampler

NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
GIVEN = ("seed", "decisions")
"""Arguments that the search gives, where a constructor has them."""


@dataclass(frozen=True)
class SamplerClass:
    """Makes samplers of a class.

    It is given ``seed`` where it takes one, ``decisions`` (name -> choices) likewise, and Optuna's
    ``GridSampler`` its ``search_space``. A ``warn_independent_sampling`` is False unless it is set:
    every decision is categorical, which some of Optuna's samplers always draw independently.

    Args:
        kind: of :class:`BaseSampler`.
    """

    kind: type[BaseSampler]

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's named arguments with their types, those of its parents' behind ``**``.

        Any where a type is not known while the program runs.
        """
        found: dict[str, Any] = {}
        for owner in self.kind.__mro__:
            if "__init__" not in vars(owner) or owner is object:
                continue
            own = list(signature(vars(owner)["__init__"]).parameters.values())[1:]
            for parameter in own:
                if parameter.kind in NAMED:
                    found.setdefault(parameter.name, _type(parameter.annotation, owner.__module__))
            if all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in own):
                break
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that a configuration may set, with their types."""
        given = {*GIVEN, *(["search_space"] if self._is_grid else [])}
        return {name: kind for name, kind in self.parameters.items() if name not in given}

    @property
    def lasting(self) -> bool:
        """Whether one sampler serves a whole process, rather than one a proposal.

        Optuna's keep their state in the study, and are made anew from (seed, number); ours read the
        ledger. Anybody else's may keep state in memory, or take long to make.
        """
        module = self.kind.__module__.partition(".")[0]
        return module != "optuna" and not issubclass(self.kind, LedgerSampler)

    def __call__(
        self, decisions: Mapping[str, Sequence[Any]], seed: int, **settings: Any
    ) -> BaseSampler:
        parameters = self.parameters
        given: dict[str, Any] = {"seed": seed, "decisions": decisions}
        arguments = {name: given[name] for name in GIVEN if name in parameters}
        if self._is_grid:
            arguments["search_space"] = dict(decisions)
        if "warn_independent_sampling" in parameters:
            arguments["warn_independent_sampling"] = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # TPE's warn_independent_sampling
            return self.kind(**{**arguments, **settings})

    @property
    def _is_grid(self) -> bool:
        return issubclass(self.kind, optuna.samplers.GridSampler)


def factory_settings(factory: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the settings of a factory with their types: what it takes beside (decisions, seed).

    None where it takes any, as ``**settings``.
    """
    parameters = list(signature(factory).parameters.values())
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    module = getattr(factory, "__module__", __name__)
    positional = [p for p in parameters if p.kind is not Parameter.KEYWORD_ONLY]
    return {
        parameter.name: _type(parameter.annotation, module)
        for parameter in parameters
        if parameter.kind in NAMED and parameter not in positional[:2]
    }


def _type(annotation: Any, module: str) -> Any:
    """Return what an annotation means; Any of none, and of names that only a checker knows."""
    if annotation is Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, vars(sys.modules[module]))
    except (NameError, AttributeError, TypeError, SyntaxError, KeyError):
        return Any
