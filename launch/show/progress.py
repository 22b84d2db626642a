"""What a person sees while a search runs: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich import progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from launch.show.nearby import seen_from_here
from launch.show.running_lines import on_one_line, running_lines
from launch.show.tables import on_a_line
from nas.ledger.results import REUSED_FROM
from nas.search.running import Running
from nas.search.sampling import Proposal
from nas.search.search import Search
from nas.search.trust import suspicions
from nas.search.winners import best
from nas.trial.deviations import told as score

LONG_SECONDS = 60.0  # a trial that has run for so long is worth a line of its own
QUIET_SECONDS = 300.0  # after which a log is told what runs
MOST_LINES = 12


class _Live(bars.Progress):
    """The bar, and lines below it."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn."""
        yield from super().get_renderables()
        if self.below:
            yield Text("\n".join(self.below), no_wrap=True, overflow="ellipsis")


class Progress:
    """Told of every event of a search; shows done, running, failed, the best, and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: _Live | None = None
        self._bar = bars.TaskID(0)
        self._started = 0.0
        self._before = self._failed = 0
        self._best: dict[str, Mapping[str, Any]] = {}
        self._search: Search | None = None
        self._running: Running | None = None
        self._spoke = 0.0

    def begin(self, search: Search, slots: int, running: Running | None = None) -> None:
        """Say what is about to run; ``running``: the book of what runs, which is shown too."""
        self._search, self._running = search, running
        self._spoke = time.monotonic()
        self._started, self._before = time.monotonic(), search.finished
        self._best = {}  # one reporter is told of several searches
        results = search.results()
        self._failed = sum(_failed(result) for result in results)
        self._note(results, search)
        pace = f"{slots} at a time" if slots else "no node takes a trial yet"
        todo = f"{search.finished} of {search.plan.budget} trials done, {pace}"
        self._console.print(todo, highlight=False)
        if self._console.is_terminal:
            self._live = _Live(
                bars.BarColumn(bar_width=None),
                bars.TextColumn("{task.fields[told]}", markup=False),
                console=self._console,
                transient=True,
                expand=True,
            )
            self._bar = self._live.add_task("", total=search.plan.budget, told=self._told(search))
            self._live.update(self._bar, completed=search.finished)
            self._live.start()

    def started(self, proposal: Proposal, search: Search) -> None:
        """Note a trial that begins."""
        self._refresh(search)

    def finished(self, number: int, outcome: Mapping[str, Any], search: Search) -> None:
        """Print one line for a trial that ended."""
        self._failed += _failed(outcome)
        self._note([*self._best.values(), {"number": number, **outcome}], search)
        architecture = outcome["architecture"]
        answers = {**search.params(number), "architecture": architecture["hash"]}
        choices = " ".join(f"{name}={answers[name]}" for name in search.plan.told_apart)
        done = f"[{search.finished}/{search.plan.budget}]"
        if outcome["status"] == "complete":
            scores = outcome["scores"]
            told = " ".join(f"{name} {score(scores, name)}" for name in search.plan.objectives)
            told += "" if REUSED_FROM in outcome else f" ({outcome['seconds']:.1f} s)"
            if flags := suspicions(scores):
                told += f" ! suspicious: {', '.join(flags)}"
        else:
            told = f"{outcome['status']}: {outcome['reason']}"
        if origin := outcome.get(REUSED_FROM):
            self._before += 1  # it says nothing of the pace
            told += f" (reused from {seen_from_here(origin)})"
        line = on_a_line(f"{done} trial {number}: {choices}: {told}")
        self.say(line)
        self._refresh(search)

    def say(self, line: str) -> None:
        """Print a line about something else than the end of a trial."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._spoke = time.monotonic()

    def tick(self) -> None:
        """Show how far the running trials are, where they take long; called as time passes.

        On a terminal one line each below the bar; elsewhere a line after some minutes of silence.
        """
        if self._search is None or self._running is None:
            return
        rows = self._running.rows()
        if self._live is not None:
            room = min(MOST_LINES, max(self._console.height // 3, 1))
            long = any(row.seconds > LONG_SECONDS for row in rows)
            self._live.below = running_lines(rows, room) if long else []
            self._refresh(self._search)
        elif rows and time.monotonic() - self._spoke > QUIET_SECONDS:
            self.say(on_one_line(rows))

    def end(self) -> None:
        """Take the live bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._search = self._running = None

    def _note(self, results: Sequence[Mapping[str, Any]], search: Search) -> None:
        for name, direction in search.plan.objectives.items():
            top = best(results, name, direction)
            if top is not None:
                self._best[name] = top

    def _refresh(self, search: Search) -> None:
        if self._live is not None:
            told = self._told(search)
            self._live.update(self._bar, completed=search.finished, told=told)

    def _told(self, search: Search) -> str:
        done, total = search.finished, search.plan.budget
        running = len(search.running if self._running is None else self._running)
        told = f"{done}/{total} done, {running} running, {self._failed} failed"
        if done > self._before:
            pace = (time.monotonic() - self._started) / (done - self._before)
            told += f", about {timedelta(seconds=round(pace * (total - done)))} left"
        for name, top in self._best.items():
            mark = "!" if suspicions(top["scores"]) else ""
            told += f" | best {name} {score(top['scores'], name)} (trial {top['number']}{mark})"
        return told


def _failed(outcome: Mapping[str, Any]) -> bool:
    return outcome["status"] not in ("complete", "stopped")
