"""One reproduction, planned and carried out: its searches, its view, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from launch.cluster.elsewhere import on_worker
from launch.config.config import Config
from launch.config.sections import Resources
from launch.papers.registry import reproduction
from launch.papers.reproduction import Reproduction
from launch.papers.there import view_there
from launch.runs.begin import check_begun
from launch.runs.retrain import check, retrain
from launch.runs.run import Run
from launch.runs.searching import search
from launch.show.comparison import Comparison, tally
from launch.show.reporter import Reporter
from launch.show.view import write_view
from nas.errors import InputError
from nas.files import write_whole
from nas.seeds import settings_hash

RUNS = Path("runs")


@dataclass(frozen=True)
class Planned:
    """A reproduction with its searches and places.

    Attributes:
        name, asked: it.
        quick: in small.
        searches: configuration and run directory of each.
        directory: where its table and its picture go.
    """

    name: str
    asked: Reproduction
    quick: bool
    searches: tuple[tuple[Config, Path], ...]
    directory: Path

    @property
    def table(self) -> Path:
        """Its table, as CSV."""
        return self.directory / f"{self.name}.csv"

    @property
    def picture(self) -> Path:
        """Its picture, as PNG."""
        return self.directory / f"{self.name}.png"

    @property
    def text(self) -> Path:
        """What it prints."""
        return self.directory / f"{self.name}.txt"

    @property
    def there(self) -> bool:
        """Whether its table and its picture are there."""
        return self.table.is_file() and self.picture.is_file()

    @property
    def key(self) -> str:
        """What tells it from the same one with other settings."""
        return settings_hash({str(place): config.flat() for config, place in self.searches})


def planned(
    name: str,
    *,
    quick: bool,
    data: str | None = None,
    assignments: Sequence[str] = (),
    out: Path | None = None,
    base: Path = RUNS,
) -> Planned:
    """Return a reproduction with its searches and places; nothing is made.

    Args:
        name: of the reproduction.
        quick: in small.
        data: of the small one.
        assignments: ``key=value``, laid over every search.
        out: the run directory, of several searches the directory of theirs; None is one below
            ``base``, of the preset's name.
        base: where run directories are.

    Raises:
        InputError: no such reproduction, or settings that it refuses.
    """
    asked = reproduction(name)
    configs = asked.configs(asked.sources(quick=quick, data=data), assignments)
    places = [_place(config, out, base, alone=len(configs) == 1) for config in configs]
    if not places:
        directory = base / name if out is None else out
    else:
        directory = places[0] if len(places) == 1 else places[0].parent
    return Planned(name, asked, quick, tuple(zip(configs, places, strict=True)), directory)


def _place(config: Config, out: Path | None, base: Path, *, alone: bool) -> Path:
    """Return the run directory of a search."""
    if out is None:
        return base / config.name
    return out if alone else out / config.name


def check_places(plan: Planned) -> None:
    """Refuse, before anything is searched, what would be refused later.

    Raises:
        InputError: a retraining that cannot be, a run directory of another search, or a directory
            that cannot be written.
    """
    for number, (config, place) in enumerate(plan.searches):
        for wanted in plan.asked.retrainings(number, config):
            check(config, wanted)
        check_begun(place, config)
    if not plan.searches:  # of searches, each makes its own
        try:
            plan.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out: expected a directory to write, got {plan.directory}: {error}"
            ) from error


def carry_out(
    plan: Planned, report: Reporter, *, address: str | None, reuse: Sequence[Path]
) -> bool:
    """Search, or go on, then make the view; return False where a search was stopped.

    Args:
        plan: what.
        report: is told of it.
        address: of a cluster.
        reuse: run directories whose trials are taken over.
    """
    runs = []
    again = f"psinas reproduce {plan.name} with the options that were given"
    for number, (config, place) in enumerate(plan.searches):
        if len(plan.searches) > 1:
            report.say(f"\n{config.name}, in {place}")
        searched = search(
            config,
            place,
            report,
            resume=True,
            keep_trials=True,
            address=address,
            again=again,
            reuse=[path for path in reuse if path.resolve() != place.resolve()],
        )
        if not searched.whole:
            return False
        for wanted in plan.asked.retrainings(number, config):
            if (winner := searched.winner) is None:
                continue
            changed = "" if wanted is config.retrain else f", with {dict(plan.asked.also[number])}"
            report.say(f"\n{config.name}: retraining trial {winner.number}{changed}")
            row = retrain(searched.run, wanted, report, winner=winner, address=address, again=again)
            if row is None:
                return False
        runs.append(Run(place))
    if address is None:
        view = plan.asked.view(runs, report)
    else:
        resources = plan.searches[0][0].resources if plan.searches else Resources()
        paths = [place for _, place in plan.searches]
        view = on_worker(address, resources, view_there, plan.name, paths, say=report.say)
    report.say(f"\n{plan.name}: {plan.asked.about}")
    for line in view.lines:
        report.say(line)
    text = "".join(f"{line}\n" for line in view.lines)
    write_whole(plan.text, lambda partial: partial.write_text(text, encoding="utf-8"))
    table, picture = write_view(plan.directory, plan.name, view)
    report.say(f"table in {table}, picture in {picture}")
    if found := compared(plan):
        agree, differ, missing = tally(found)
        rest = f", {missing} not measured" if missing else ""
        report.say(f"{agree} of {agree + differ} numbers agree with the paper's{rest}")
    return True


def compared(plan: Planned) -> Sequence[Comparison]:
    """Return the paper's numbers beside ours, from the table that is there.

    Raises:
        OSError: there is no table.
    """
    if plan.asked.compare is None:
        return ()
    data = plan.searches[0][0].data.name if plan.searches else ""
    return plan.asked.compare(pd.read_csv(plan.table), data)
