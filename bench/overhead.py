"""What the search costs beside its trials: wall time over the trials' own, and CPU a trial.

    python bench/overhead.py

Two searches in this process, on two workers of one core each. The first has trials of a second or
more; its whole wall time, start-up included, is set against the sum of the trials' own seconds. The
second has 1,000 trials of next to no work; the driver's CPU time is divided by their number.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from launch.config.config import parse_config
from launch.runs.searching import search
from launch.show.reporter import Reporter
from nas.ledger.table import load_table

WORKERS = 2
SECOND_LONG: dict[str, Any] = {
    "data": {"name": "digits"},
    "space": {
        "name": "depth-channels",
        "depth": [2, 3, 4, 5, 6, 8],
        "channels": [16, 24, 32, 48],
        "stem": "small",
    },
    "recipe": {"epochs": 6, "batch_size": 64, "epsilon": 0.1},
    "sampler": {"name": "random"},
    "trials": 24,
}
TRIVIAL: dict[str, Any] = {
    "data": {"name": "digits", "limit": {"train": 8, "validation": 8}},
    "space": {"name": "depth-channels", "depth": [1], "channels": [1], "stem": "small"},
    "vary": {"repeat": list(range(1000))},
    "recipe": {"epochs": 1, "batch_size": 8, "adversary": "none", "steps": 1},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
}


def run(name: str, document: dict[str, Any], directory: Path) -> tuple[float, float, Any]:
    """Return wall seconds, this process's CPU seconds, and the trial table."""
    config = parse_config({**document, "name": name, "resources": {"workers": WORKERS}})
    wall, cpu = time.perf_counter(), time.process_time()
    search(config, directory / name, Reporter(), resume=False, keep_trials=False, address=None)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return *spent, load_table(directory / name)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wall, cpu, table = run("second-long", SECOND_LONG, Path(scratch))
        own = table["seconds"].sum() / WORKERS
        many_wall, many_cpu, many = run("trivial", TRIVIAL, Path(scratch))
    assert set(table["status"]) == set(many["status"]) == {"complete"}
    print(f"\nmachine: {platform.machine()}, {os.cpu_count()} cores, {WORKERS} workers")
    print(
        f"{len(table)} trials of {table['seconds'].mean():.2f} s (sd {table['seconds'].std():.2f}, "
        f"{table['seconds'].min():.2f} to {table['seconds'].max():.2f}):\n"
        f"  wall {wall:.1f} s; trial seconds / workers {own:.1f} s; "
        f"bound 1.15 x that + 15 s = {1.15 * own + 15:.1f} s; ratio {wall / own:.2f}\n"
        f"  driver CPU {cpu:.1f} s"
    )
    print(
        f"{len(many)} trivial trials: wall {many_wall:.1f} s; driver CPU {many_cpu:.1f} s, "
        f"{1000 * many_cpu / len(many):.1f} ms a trial; {1000 * many_wall / len(many):.1f} ms of "
        "wall a trial"
    )


if __name__ == "__main__":
    main()
