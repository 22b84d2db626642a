"""A search as whoever watches it sees it: how much is done, and what runs, by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from launch.show.running_lines import NOWHERE, by_node, on_one_line, running_lines
from nas.search.hanging import duration
from nas.search.running_file import Seen
from nas.search.winners import best
from nas.trial.deviations import told


@dataclass(frozen=True)
class Look:
    """What a look at a run found.

    Attributes:
        path: the run directory.
        seen: what it says of its driver.
        results: of the ledger, by number.
        running: trials that run, as far as is known.
        left: trials that an ended driver left.
        objectives: score -> ``max`` or ``min``.
    """

    path: Path
    seen: Seen
    results: Sequence[Mapping[str, Any]]
    running: frozenset[int]
    left: frozenset[int]
    objectives: Mapping[str, str]

    @property
    def over(self) -> bool:
        """Whether nothing more will happen before somebody goes on with the run."""
        return self.seen.over and not self.running


def summary(look: Look) -> str:
    """Return one line: how many trials are done, run, failed, were left, and the best."""
    of = f"/{look.seen.total}" if look.seen.total is not None else ""
    failed = sum(r["status"] not in ("complete", "stopped") for r in look.results)
    line = f"{look.path}: {len(look.results)}{of} done, {len(look.running)} running"
    line += f", {failed} failed"
    if look.left:
        line += f", {len(look.left)} left"
    for name, direction in look.objectives.items():
        if (top := best(look.results, name, direction)) is not None:
            line += f" | best {name} {told(top['scores'], name)} (trial {top['number']})"
    return line


def doubts(look: Look) -> list[str]:
    """Return what must be said of a driver that is not there, or is not heard of."""
    lines = silence(look.seen) if look.running else []
    if look.left:
        numbers = ", ".join(map(str, sorted(look.left)[:10]))
        more = f" and {len(look.left) - 10} more" if len(look.left) > 10 else ""
        lines.append(
            f"left by a driver that ended: trials {numbers}{more}; go on with: "
            f"psinas search --resume --out {look.path}"
        )
    return lines


def silence(seen: Seen) -> list[str]:
    """Return a line about a driver of which nobody knows whether it lives, if it is one."""
    if seen.state != "silent":
        return []
    when = "" if seen.age_seconds is None else f" for {duration(seen.age_seconds)}"
    silent = f"the driver ({seen.driver}) has not been heard of{when}"
    return [f"{silent}: what is called running may not run"]


def screen(look: Look, most: int) -> list[str]:
    """Return at most ``most`` lines: the summary, and a line for each running trial, by node."""
    lines = [summary(look), *doubts(look)]
    rows = [] if look.seen.state == "dead" else look.seen.rows
    room = max(most - len(lines) - 1, 0)
    listed: list[str] = []
    for host, group in groupby(by_node(rows), key=lambda row: row.host):
        there = list(group)
        listed.append(f"{host or NOWHERE}: {len(there)} running")
        listed += [f"  {line}" for line in running_lines(there, len(there), host=False)]
    if len(listed) > room:
        hidden = sum(line.startswith("  ") for line in listed[room:])
        listed = [*listed[:room], f"and {hidden} more"]
    if elsewhere := len(look.running) - len(rows):
        if elsewhere > 0 and look.seen.state != "none" and rows:
            listed.append(f"{elsewhere} more wait for a worker, or run under other drivers")
    return [*lines, *listed]


def plain(look: Look) -> str:
    """Return what a log is told: the summary, and what runs, on one line."""
    rows = [] if look.seen.state == "dead" else look.seen.rows
    return "; ".join([summary(look), *doubts(look), *([on_one_line(rows)] if rows else [])])
