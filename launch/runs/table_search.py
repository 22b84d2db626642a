"""``psinas table-search``: samplers side by side on a table, with many seeds, without training."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from threadpoolctl import threadpool_limits

from launch.config.config import Config
from launch.config.samplers import check_sampler
from launch.show.reporter import Reporter
from launch.show.sampler_curves import sampler_curves
from nas.benchmark.replay import best_so_far, optimum, plan_search, run_seed, search_table
from nas.benchmark.table import Table, read_table
from nas.errors import InputError
from nas.files import write_whole
from nas.ledger.table import read_csv
from nas.types import FloatArray

MARKS = (1, 2, 5)  # times powers of ten: the numbers of queries that are printed


@dataclass(frozen=True)
class Request:
    """What is compared on what; travels to worker processes.

    Attributes:
        path, column: of the table, and of the architectures in it (None: found).
        config: its space, its objectives' columns with ``max`` or ``min``.
        samplers: label -> the sampler's name and settings.
        budget, seeds, seed: queries of a search, searches of a sampler, the first seed.
    """

    path: Path
    column: str | None
    space: Mapping[str, Any]
    objectives: Mapping[str, str]
    samplers: Mapping[str, Mapping[str, Any]]
    budget: int
    seeds: int
    seed: int

    def table(self) -> Table:
        """Read the table.

        Raises:
            InputError: as of :func:`nas.benchmark.table.read_table`, or an unknown space.
        """
        space = Config(space=dict(self.space)).built_space()
        return read_table(self.path, space, self.objectives, column=self.column)


def request(
    path: Path,
    *,
    space: str,
    objectives: Sequence[str],
    samplers: str,
    budget: int,
    seeds: int,
    seed: int,
    column: str | None,
) -> Request:
    """Return what the command line asks for, checked.

    Raises:
        InputError: an unknown sampler or setting, or an objective named twice.
    """
    columns = set(read_csv(path).columns)
    found: dict[str, str] = {}
    for text in objectives:
        name, _, direction = text.rpartition(":")
        if direction not in ("max", "min") or not name or text in columns:
            name, direction = text, "max"
        if name in found:
            raise InputError(f"--objective: expected different columns, got {name!r} twice")
        found[name] = direction
    named: dict[str, Mapping[str, Any]] = {}
    entries = _listed(samplers, "--samplers")
    if not entries or not all(isinstance(entry, str) or _is_mapping(entry) for entry in entries):
        raise InputError(f"--samplers: expected names or mappings with a name, got {samplers!r}")
    for entry in entries:
        sampler = {"name": entry} if isinstance(entry, str) else dict(entry)
        label = str(sampler.pop("as", sampler.get("name")))
        if label in named:
            raise InputError(f"--samplers: expected different names, got {label!r} twice: use as:")
        factory, settings = Config(sampler=sampler).built_sampler()
        try:
            check_sampler(factory, {"decision": (0, 1)}, settings)
        except InputError as error:
            raise InputError(f"--samplers: {label}: {error}") from error
        named[label] = sampler
    where = _mapping(space, "--space")
    return Request(path, column, where, found, named, budget, seeds, seed)


def table_search(
    asked: Request, *, workers: int, out: Path | None, report: Reporter
) -> tuple[pd.DataFrame, list[str]]:
    """Search with every sampler and seed; return one row a sampler and query, and what to print.

    Columns: sampler, queries, seeds, searching (share of the searches that made so many queries:
    one that finds no other row ends, and keeps its best), mean, deviation (of one search), low and
    high (5 and 95 % of the searches), regret (optimum minus mean, in the objective's unit, >= 0)
    and optimal (share of searches that have found the optimum). With ``out``, what is done is
    written after each sampler.
    """
    table = asked.table()
    best = optimum(table)
    rows: list[pd.DataFrame] = []
    for label, curves in _run(asked, table, workers):
        rows.append(_summary(label, curves, best))
        last = rows[-1].iloc[-1]
        report.say(
            f"{label}: {asked.seeds} searches of {asked.budget} queries, best "
            f"{_figure(last['mean'], last['deviation'])}"
        )
        if out is not None:
            found = pd.concat(rows, ignore_index=True)
            write_whole(out, lambda p, found=found: found.to_csv(p, index=False))  # type: ignore[misc]
    found = pd.concat(rows, ignore_index=True)
    if out is not None:
        picture = sampler_curves(found, _measure(table), best)
        write_whole(out.with_suffix(".png"), lambda p: picture.savefig(p, format="png", dpi=150))
    return found, _lines(found, table, best)


def _lines(found: pd.DataFrame, table: Table, best: float) -> list[str]:
    """Return the result as text: the best so far at round numbers of queries, and the regret."""
    budget = int(found["queries"].max())
    marks = [m for m in _marks(budget) if m >= min(10, budget)]
    measure = _measure(table)
    width = max(len("sampler"), *(len(s) for s in found["sampler"]))
    head = "".join(f"{f'@{m}':>20}" for m in marks)
    result = [
        f"{measure}: {len(table.scores)} architectures, optimum {best:.5g}",
        f"mean ± deviation over {int(found['seeds'].max())} searches, by queries:",
        f"{'sampler':{width}}{head}{'regret':>10}{'optimal':>9}",
    ]
    for label, rows in found.groupby("sampler", sort=False):
        shown = rows[rows["queries"].isin(marks)]
        figures_shown = map(_figure, shown["mean"], shown["deviation"])
        cells = [f"{figure:>20}" for figure in figures_shown]
        ended = round((1 - rows["searching"].iloc[-1]) * rows["seeds"].iloc[-1])
        regret, optimal = rows["regret"].iloc[-1], rows["optimal"].iloc[-1]
        result.append(f"{label:{width}}{''.join(cells)}{regret:10.2g}{optimal:9.0%}")
        if ended:
            result[-1] += f"  ({ended} ended before {budget} queries: no other row was found)"
    return result


def _run(asked: Request, table: Table, workers: int) -> Iterator[tuple[str, FloatArray]]:
    """Yield every sampler with its curves, and queries made, ``(seeds, budget + 1)``."""
    tasks = [(label, repeat) for label in asked.samplers for repeat in range(asked.seeds)]
    if workers == 1:
        with threadpool_limits(1):
            answers = (_search(asked, table, *task) for task in tasks)
            yield from _gather(asked, answers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_begin, initargs=(asked,)
    ) as pool:
        try:
            yield from _gather(asked, pool.map(_work, tasks, chunksize=1))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _gather(asked: Request, answers: Iterator[FloatArray]) -> Iterator[tuple[str, FloatArray]]:
    for label in asked.samplers:
        yield label, np.stack([next(answers) for _ in range(asked.seeds)])


_WORKER: dict[str, Any] = {}  # of a worker process: what it searches


def _begin(asked: Request) -> None:
    threadpool_limits(1)
    _WORKER.update(asked=asked, table=asked.table())


def _work(task: tuple[str, int]) -> FloatArray:
    return _search(_WORKER["asked"], _WORKER["table"], *task)


def _search(asked: Request, table: Table, label: str, repeat: int) -> FloatArray:
    sampler, settings = Config(sampler=dict(asked.samplers[label])).built_sampler()
    plan = plan_search(table, sampler, settings, seed=run_seed(asked.seed, label, repeat))
    rows = search_table(plan, asked.budget)
    return np.append(best_so_far(table, rows, asked.budget), len(rows))


def _summary(label: str, answers: FloatArray, best: float) -> pd.DataFrame:
    curves, made = answers[:, :-1], answers[:, -1]
    seeds, budget = curves.shape
    mean = curves.mean(axis=0)
    deviation = curves.std(axis=0, ddof=1) if seeds > 1 else np.full(budget, math.nan)
    tiny = 1e-12 * max(1.0, abs(best))  # what is left of equal numbers, added up
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    return pd.DataFrame(
        {
            "sampler": label,
            "queries": np.arange(1, budget + 1),
            "seeds": seeds,
            "searching": [(made >= queries).mean() for queries in range(1, budget + 1)],
            "mean": mean,
            "deviation": np.where(deviation > tiny, deviation, deviation * 0),
            "low": low,
            "high": high,
            "regret": np.where(np.abs(best - mean) > tiny, np.abs(best - mean), mean * 0),
            "optimal": (np.abs(curves - best) <= tiny).mean(axis=0),
        }
    )


def _figure(mean: float, deviation: float) -> str:
    """Return a mean with its deviation, where there are any."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.5g}" + ("" if math.isnan(deviation) else f" ± {deviation:.2g}")


def _measure(table: Table) -> str:
    """Return what the numbers are of."""
    objectives = [f"{name} ({direction})" for name, direction in table.objectives.items()]
    return objectives[0] if len(objectives) == 1 else f"hypervolume of {', '.join(objectives)}"


def _marks(budget: int) -> list[int]:
    powers = range(len(str(budget)))
    marks = {m * 10**p for p in powers for m in MARKS if m * 10**p <= budget}
    return sorted(marks | {budget})


def _listed(text: str, where: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",") if name.strip()]
    return list(_yaml(text, where))


def _mapping(text: str, where: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return {"name": text}
    found = _yaml(text, where)
    if not _is_mapping(found):
        raise InputError(f"{where}: expected a name or a mapping with one, got {text!r}")
    return dict(found)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: expected YAML, got {text!r}") from error
