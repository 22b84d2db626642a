"""Other runs whose trials a search may take over (``--reuse``): opened, compared, told of."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.config.config import Config, deciding, differing_keys, within
from launch.config.versions import versions
from launch.runs.run import Run
from nas.errors import InputError, first_line
from nas.ledger.patience import Say
from nas.search.plan import SearchPlan
from nas.search.reuse import REUSABLE, Earlier, origin
from nas.search.shared import TRAINED_IN

OF_A_TRIAL = ("seed", "data", "space", "recipe", "repeats", "metrics", "fix", "vary")
"""Keys of a configuration that decide which trials it has and what they score."""
SHOWN = 3  # differing keys in a line


def open_earlier(paths: Iterable[Path], own: Path) -> list[Run]:
    """Return the runs of ``--reuse``, each read to its end, before anything begins.

    Args:
        paths: as they were given.
        own: the run directory of the search.

    Raises:
        InputError: one that cannot be read, or the search's own.
    """
    found: list[Run] = []
    for path in paths:
        try:
            if own.exists() and path.exists() and os.path.samefile(own, path):  # noqa: PTH121
                raise InputError(f"expected other runs than the search's own, got {path}")
            run = Run(path)
            run.config, run.results  # noqa: B018  each is read once, here
        except InputError as error:
            raise InputError(f"--reuse: {error}") from error
        except OSError as error:
            why = first_line(error)
            raise InputError(f"--reuse: expected a run directory, got {path}: {why}") from error
        found.append(run)
    return found


def equal_trials(
    earlier: Sequence[Run],
    own: Path,
    config: Config,
    plan: SearchPlan,
    say: Say,
    *,
    failures: bool = True,
) -> dict[str, Earlier]:
    """Return the trials of other runs that are equal to some of this search, by their key.

    Of two that are equal the one of the run that was named first, but a complete one before one
    that failed. One line a run says how many, where they ran and with which versions, or why none.

    Args:
        earlier: of :func:`open_earlier`.
        own: the run directory of the search, with the checksums of its data.
        config: of the search, settled.
        plan: of the search.
        say: is told the lines.
        failures: take known failures too.
    """
    found: dict[str, Earlier] = {}
    tails = {_tail(plan.trial(params).key) for params in _combinations(plan)} if earlier else set()
    known = Run(own).checksums if earlier else {}
    for run in earlier:
        ended = [r for r in run.results if _lasts(r, plan)]
        why = _never(run, config, known)
        usable = [] if why else [r for r in ended if _tail(r["key"]) in tails]
        usable = [r for r in usable if failures or r["status"] == "complete"]
        for result in usable:
            before = found.get(result["key"])
            if before is None or (
                before.result["status"] != "complete" and result["status"] == "complete"
            ):
                found[result["key"]] = Earlier(result, _homes(run, result))
        of = f"{len(run.results)} finished trials"
        if usable:
            say(
                f"--reuse {run.path}: {len(usable)} of its {of} have this search's seed, recipe, "
                f"data and metrics{_made(run, usable)}"
            )
        else:
            why = why or _differences(run.config, config) or _nothing(run)
            say(f"--reuse {run.path}: none of its {of} equals one of this search: {why}")
    return found


# ------------------------------------------------------------------------------------------- parts


def _lasts(result: Mapping[str, Any], plan: SearchPlan) -> bool:
    """Whether a result says the same wherever the trial runs, and has what this search judges."""
    if result["status"] not in REUSABLE or "key" not in result:
        return False
    return not result["scores"] or plan.objectives.keys() <= result["scores"].keys()


def _tail(key: str) -> str:
    """Return recipe, data and repeats of a trial's key, which begins with its architecture."""
    return key.partition("-")[2]


def _combinations(plan: SearchPlan) -> Iterable[dict[str, Any]]:
    """Yield answers that have every combination of what is varied beside the architecture."""
    decisions = plan.decisions
    first = {name: choices[0] for name, choices in decisions.items()}
    for values in itertools.product(*(decisions[name] for name in plan.vary)):
        yield {**first, **dict(zip(plan.vary, values, strict=True))}


def _homes(run: Run, result: Mapping[str, Any]) -> tuple[tuple[Path, int], ...]:
    """Return where the files of a trial may lie, by absolute paths: the search may move."""
    number = result["number"]
    homes = [(run.path.resolve(), number)]
    if TRAINED_IN in result:
        homes.append((Path(result[TRAINED_IN]), number))
    if (before := origin(result)) is not None:
        homes.append(before)
    return tuple(dict.fromkeys(homes))


def _never(run: Run, config: Config, known: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return why no trial of a run can equal one of this search; None: some may."""
    saved = run.config
    for key in ("seed", "space", "metrics"):
        ours, theirs = (c.resolved()[key] for c in (config, saved))
        if key == "space":
            ours, theirs = ours["name"], theirs["name"]
        if ours != theirs:
            return _told("space.name" if key == "space" else key, theirs, ours)
    for name, parts in run.checksums.items():
        ours = known.get(name, {}).get("train")
        if ours and parts.get("train") and parts["train"] != ours:
            return f"its {name} had other images or labels (checksum {parts['train']}, here {ours})"
    return None


def _nothing(run: Run) -> str:
    """Return why a run of the same trials has none to give."""
    statuses = sorted({r["status"] for r in run.results})
    return f"they ended as {', '.join(statuses)}" if statuses else "it has none yet"


def _differences(saved: Config, config: Config) -> str:
    """Return which keys of the configuration differ, of those that decide scores."""
    ours, theirs = deciding(config), deciding(saved)
    keys = [k for k in differing_keys(saved, config) if within(k, OF_A_TRIAL)]
    told = [_told(key, theirs.get(key), ours.get(key)) for key in keys[:SHOWN]]
    more = [f"{len(keys) - SHOWN} more keys differ"] if len(keys) > SHOWN else []
    return "; ".join([*told, *more])


def _told(key: str, theirs: Any, ours: Any) -> str:
    if isinstance(theirs, list | dict) or isinstance(ours, list | dict):
        return f"its {key} are others"
    return f"its {key} is {theirs}, this search's is {ours}"


def _made(run: Run, results: Collection[Mapping[str, Any]]) -> str:
    """Return where trials ran, and with which versions where they are not those here."""
    places = Counter(
        f"{e['device']} ({e.get('device_name')})" for r in results if (e := r.get("environment"))
    )
    told = f"; they ran on {', '.join(sorted(places))}" if places else ""
    made, here = run.document["made_with"], versions()
    other = [
        f"{name} {made[name]} (here {here[name]})"
        for name in ("psinas", "torch", "numpy")
        if made.get(name) and here.get(name) and made[name] != here[name]
    ]
    return told + (f", made with {', '.join(other)}: last digits may differ" if other else "")
