"""Whether a space can be searched: what its decisions must be, and that they are those of before.

A choice is stored in the ledger, hashed, sent to workers and written in tables. So it is text, a
number, true, false or null, and different from the others of its decision.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.study import Study

from nas.errors import InputError, one_line
from nas.samplers.decisions import Decisions
from search_spaces import SearchSpace

LARGEST = 2**63  # of an integer in a table's column
SHOWN = 120  # characters of choices in a line


def check_space(space: SearchSpace, varied: Collection[str] = ()) -> None:
    """Refuse a space whose decisions cannot be searched, before its first trial.

    Args:
        space: anybody's.
        varied: the names of what is searched beside it.

    Raises:
        InputError: with one line that names the decision.
    """
    try:
        asked, again = space.decisions(), space.decisions()
    except Exception as error:  # anybody's code
        raise InputError(f"space: its decisions cannot be read: {one_line(error)}") from error
    if not isinstance(asked, Mapping):
        kind = type(asked).__name__
        raise InputError(f"space: expected decisions as a mapping of choices, got a {kind}")
    for name, choices in asked.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"space: expected names of decisions as text, got {name!r}")
        if name in varied:
            raise InputError(f"space: expected another name of a decision than vary's {name!r}")
        if not isinstance(choices, Sequence) or isinstance(choices, str):
            kind = type(choices).__name__
            raise InputError(f"space: {name}: expected a tuple of choices, got a {kind}")
        _check_choices(name, choices)
    if [*asked.items()] != [*again.items()]:
        raise InputError("space: expected the same decisions at each call, got others the next")


def _check_choices(name: str, choices: Sequence[Any]) -> None:
    if not choices:
        raise InputError(f"space: {name}: expected one or more choices, got none")
    for choice in choices:
        if why := _unfit(choice):
            raise InputError(f"space: {name}: {why}, got {_short(repr(choice))}")
    for index, choice in enumerate(choices):
        if equal := [other for other in choices[:index] if other == choice]:
            raise InputError(
                f"space: {name}: expected different choices, got {equal[0]!r} and "
                f"{_short(repr(choice))}, which are equal"
            )


def _unfit(choice: Any) -> str:
    """Return what was expected instead of a choice; nothing where it will do."""
    if type(choice) not in (str, int, float, bool, type(None)):
        kind = f"{type(choice).__module__}.{type(choice).__name__}".removeprefix("builtins.")
        return f"expected choices of text, int, float, bool or None, none of {kind}"
    if isinstance(choice, float) and not math.isfinite(choice):
        return "expected finite numbers"
    if isinstance(choice, int) and abs(choice) >= LARGEST:
        return "expected integers of 64 bits"
    if isinstance(choice, str) and ("\0" in choice or not _encodable(choice)):
        return "expected text that UTF-8 can write"
    return ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def check_same_space(study: Study, decisions: Decisions, *, order: bool) -> None:
    """Refuse to go on where the space's code or settings were edited since the search began.

    Args:
        study: of the run.
        decisions: of the plan.
        order: whether the order of decisions counts, as it does for a grid.

    Raises:
        InputError: with the decision, its choices then, and its choices now.
    """
    before: dict[str, tuple[Any, ...]] = {}
    whole = False  # a trial whose driver died while it asked has a part of the decisions
    for trial in study.get_trials(deepcopy=False):
        found = {n: getattr(d, "choices", ()) for n, d in trial.distributions.items()}
        whole |= trial.state.is_finished()
        before = found if len(found) >= len(before) else before
        if whole:
            break
    end = "when this search began; --out begins another search"
    for name, was in before.items():
        if name not in decisions:
            raise InputError(
                f"space: expected the decision {name}, got none, which was there {end}"
            )
        if _typed(was) != _typed(decisions[name]):
            raise InputError(
                f"space: {name}: expected the choices {_listed(was)}, got "
                f"{_listed(decisions[name])}: it had the former {end}"
            )
    if whole and (new := [name for name in decisions if name not in before]):
        raise InputError(f"space: expected no decision {new[0]}, got one that was not there {end}")
    if whole and order and list(before) != list(decisions):
        then, now = ", ".join(before), ", ".join(decisions)
        raise InputError(
            f"space: expected decisions in the order {then}, got {now}: so it was {end}"
        )


def _typed(choices: Sequence[Any]) -> list[tuple[type, Any]]:
    return [(type(choice), choice) for choice in choices]


def _listed(choices: Sequence[Any]) -> str:
    return _short(", ".join(map(repr, choices)))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."
