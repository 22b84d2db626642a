"""What a search costs beside its trials: whole searches of a table, and single suggestions.

Random search and evolution are run over 10,000 trials of a made-up table, in fresh processes, with
time and memory after 1,000 and after all; then every sampler is asked for one more proposal in
studies of 100, 1,000 and 10,000 trials that are already there.

python bench/table_search.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution

from nas.benchmark.replay import plan_search, search_table
from nas.benchmark.table import read_table
from nas.samplers.registry import SAMPLERS
from search_spaces import DepthChannels

SIDE = 150  # choices of each of the table's two decisions
DECISIONS = {f"edge{i}": tuple("abcde") for i in range(6)}
SPACE = DepthChannels(depth=tuple(range(1, SIDE + 1)), channels=tuple(range(1, SIDE + 1)))


def made_up(path: Path) -> None:
    """Write scores of all combinations: a smooth hill and noise."""
    rows = pd.DataFrame([(d, c) for d in SPACE.depth for c in SPACE.channels])
    rows.columns = ["depth", "channels"]
    noise = np.random.default_rng(0).normal(0, 0.02, len(rows))
    rows["score"] = np.sin(rows["depth"] / 40) * np.cos(rows["channels"] / 60) + noise
    rows.to_csv(path, index=False)


def whole(name: str, path: Path, trials: int, answers: multiprocessing.Queue) -> None:
    """Search ``trials`` trials; put seconds and the growth of memory in MiB."""
    table = read_table(path, SPACE, {"score": "max"})
    table.decisions.everything()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    rows = search_table(plan_search(table, SAMPLERS[name], {}, seed=0), trials)
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(rows) == trials
    answers.put((seconds, grown))


def suggestion(name: str, trials: int, rounds: int) -> float:
    """Return the median milliseconds of one proposal in a study of so many trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")
    distributions = {n: CategoricalDistribution(c) for n, c in DECISIONS.items()}
    for _ in range(trials):
        params = {n: c[rng.integers(5)] for n, c in DECISIONS.items()}
        score = sum(v == "c" for v in params.values()) + rng.normal(0, 0.3)
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=score)
        )
    study.sampler = SAMPLERS[name](DECISIONS, 0)
    spent = []
    for _ in range(rounds + 1):  # the first one reads the ledger
        started = time.perf_counter()
        trial = study.ask()
        for decision, choices in DECISIONS.items():
            trial.suggest_categorical(decision, choices)
        spent.append(1000 * (time.perf_counter() - started))
        study.tell(trial, 0.0)
    return statistics.median(spent[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    few = arguments.trials // 10
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        made_up(path)
        print(f"{'whole searches':14} {few:>8,} trials {arguments.trials:>10,} trials, one process")
        for name in ("random", "evolution"):
            cells = []
            for trials in (few, arguments.trials):
                answers = context.Queue()
                process = context.Process(target=whole, args=(name, path, trials, answers))
                process.start()
                seconds, grown = answers.get()
                process.join()
                cells.append(
                    f"{seconds:7.2f} s, {1000 * seconds / trials:5.2f} ms and "
                    f"{1024 * grown / trials:5.1f} KiB a trial"
                )
            print(f"{name:14} {'   '.join(cells)}", flush=True)
    sizes = (100, 1000, 10_000)
    print(f"one suggestion, ms, in a study of {sizes} trials (median of {arguments.rounds})")
    names = [name for name in SAMPLERS if name != "grid"]
    base: list[float] = []
    for name in names:
        spent = [suggestion(name, size, arguments.rounds) for size in sizes]
        base = base or spent
        ratios = ", ".join(f"{s / b:.0f} x" for s, b in zip(spent, base, strict=True))
        print(f"{name:14} {'  '.join(f'{s:8.2f}' for s in spent)}   ({ratios} of {names[0]})",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
