"""What a search costs its driver, its disk and its reader when it has thousands of trials.

    python bench/scale.py                          1,000 trials, without and with Ray Tune
    python bench/scale.py --trials 10000
    python bench/scale.py --before OTHER_CHECKOUT  the same with another checkout, side by side

Trials are of a space with the 35 decisions of NASNet's cells and nets of one linear layer, without
training, with 30 scores that cost nothing. ``plain`` proposes and finishes them in one process;
``tune`` runs them on two workers. Every part is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from metrics.metric import Metric
from nas.ledger.results import JOURNAL
from search_spaces import Architecture, SearchSpace, Task
from search_spaces.nasnet.space import NASNet

HERE = Path(__file__).resolve().parent
SCORES = 30
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Cells(NASNet):
    """NASNet's decisions, one linear layer."""

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        channels, height, width = task.shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, task.classes))

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        return SearchSpace.hidden_states(self, architecture)


@dataclass(frozen=True, kw_only=True)
class Cheap(Metric):
    """Numbers that cost nothing and differ from architecture to architecture."""

    default_label = "score"
    suffixes = tuple(f"_{i}" for i in range(SCORES))

    def measure(self, model: nn.Module, images: Any, labels: Any, generator: Any) -> Any:
        return tuple(torch.rand(SCORES, generator=generator).tolist())


def document(trials: int, sampler: str, objectives: int) -> dict[str, Any]:
    """Return the configuration."""
    return {
        "name": "scale",
        "data": {"name": "digits", "limit": {"train": 8, "validation": 8}},
        "space": {"name": "scale:Cells"},
        "recipe": {"epochs": 0},
        "metrics": [{"name": "scale:Cheap"}],
        "objectives": {f"score_{i}": "max" for i in range(objectives)},
        "sampler": {"name": sampler},
        "trials": trials,
        "resources": {"workers": WORKERS},
    }


# ------------------------------------------------------------------- in processes of their own


class Meter:
    """CPU time of this process at every trial, and how often it forced a file to disk."""

    def __init__(self) -> None:
        self.cpu = [time.process_time()]
        self.forced = 0
        fsync = os.fsync

        def counted(file: Any) -> None:
            self.forced += 1
            fsync(file)

        os.fsync = counted

    def report(self) -> dict[str, float]:
        """Return milliseconds of CPU a trial in the first and the last tenth, and MiB."""
        trials = len(self.cpu) - 1
        few = max(1, trials // 10)
        first, last = self.cpu[few] - self.cpu[0], self.cpu[-1] - self.cpu[-1 - few]
        return {
            "first": 1000 * first / few,
            "last": 1000 * last / few,
            "all": 1000 * (self.cpu[-1] - self.cpu[0]) / trials,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "forced": self.forced / trials,
        }


def begin(run: Path, asked: dict[str, Any], *, resume: bool) -> tuple[Any, Any]:
    """Return configuration and search, as ``psinas search`` opens them."""
    from launch.config.config import parse_config
    from launch.runs.begin import make_directory, open_search, settle_config
    from nas.ledger.journal import repair_journal

    make_directory(run)
    repair_journal(run / JOURNAL)
    config = settle_config(run, parse_config(asked), resume=resume, keep_trials=False)
    return config, open_search(run, config)


def plain(run: Path, asked: dict[str, Any]) -> dict[str, float]:
    """Propose and finish trials one by one."""
    from nas.trial.machine import environment_of
    from nas.trial.recipe import Recipe

    environment = environment_of(torch.device("cpu"), Recipe())
    _, search = begin(run, asked, resume=False)
    generator = torch.Generator().manual_seed(0)
    meter = Meter()
    while (proposal := search.propose()) is not None:
        scores = {f"score_{i}": v for i, v in enumerate(Cheap().measure(None, 0, 0, generator))}
        search.finish(
            proposal.number,
            {"status": "complete", "reason": "", "scores": scores, "epochs": 0, "seconds": 0.01234,
             "environment": environment},
        )  # fmt: skip
        meter.cpu.append(time.process_time())
    return meter.report()


def tune(run: Path, asked: dict[str, Any]) -> dict[str, float]:
    """Run trials on Ray's workers."""
    from launch.cluster.driver import run_search
    from launch.show.progress import Progress

    config, search = begin(run, asked, resume=False)

    class Watching(Progress):
        def finished(self, *told: Any) -> None:
            super().finished(*told)
            meter.cpu.append(time.process_time())
            if search.finished == config.trials:
                found.update(files=files_of(run / ".tune"), wall=time.perf_counter() - started)

    found: dict[str, float] = {}
    with open(os.devnull, "w") as nowhere:
        meter, started = Meter(), time.perf_counter()
        run_search(search, config, run, Watching(Console(file=nowhere)))
    meter.cpu[0] = meter.cpu[1]  # without Ray's start
    return {**meter.report(), **found}


def resume(run: Path, asked: dict[str, Any]) -> dict[str, float]:
    """Go on with a search of so many trials by one."""
    _, search = begin(run, {**asked, "trials": asked["trials"] + 1}, resume=True)
    assert search.propose() is not None
    return {"at": time.time(), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def files_of(folder: Path) -> int:
    """Return how many files and folders there are."""
    return sum(len(files) + len(folders) for _, folders, files in os.walk(folder))


# ------------------------------------------------------------------------------- in the parent


def child(part: str, source: Path, run: Path, asked: dict[str, Any]) -> dict[str, float]:
    """Return what a part measured, run with the packages of ``source``."""
    path = os.pathsep.join((str(source), str(HERE)))
    command = [sys.executable, __file__, "--part", part, str(run), json.dumps(asked)]
    answer = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(answer.stdout.decode().splitlines()[-1])
    return found


def shown(source: Path, run: Path) -> float:
    """Return the seconds of ``psinas trials RUN``."""
    path = os.pathsep.join((str(source), str(HERE)))
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from launch.cli import main; main()", "trials", str(run)],
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - started


def measure(part: str, source: Path, folder: Path, asked: dict[str, Any]) -> list[str]:
    """Run one part and what reads its run; return its lines."""
    run = folder / f"{part}-{len(list(folder.iterdir()))}"
    found = child(part, source, run, asked)
    trials = asked["trials"]
    journal = (run / JOURNAL).read_bytes()
    many = journal.count(b"\n") / trials
    lines = [
        f"driver CPU a trial  {found['first']:8.2f} ms in the first tenth, {found['last']:.2f} in "
        f"the last, {found['all']:.2f} in all",
        f"driver memory, peak {found['peak']:8.0f} MiB",
        f"journal a trial     {len(journal) / trials:8.0f} bytes, "
        f"{many:.1f} lines, {found['forced']:.1f} fsyncs",
    ]
    if part == "tune":
        lines.append(
            f"Tune's own files    {found['files']:8.0f} in the run directory; wall "
            f"{found['wall']:.0f} s"
        )
    started = time.time()
    again = child("resume", source, run, asked)
    lines += [
        f"psinas trials       {shown(source, run):8.1f} s",
        f"--resume            {again['at'] - started:8.1f} s to its first proposal, "
        f"{again['peak']:.0f} MiB",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--parts", nargs="*", default=["plain", "tune"])
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--objectives", type=int, default=1)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        part, run, asked = arguments.part
        print(json.dumps(globals()[part](Path(run), json.loads(asked))))
        return
    sources = {"now": HERE.parent}
    if arguments.before is not None:
        sources = {"before": arguments.before.resolve(), **sources}
    asked = document(arguments.trials, arguments.sampler, arguments.objectives)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {WORKERS} workers")
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts:
            for name, source in sources.items():
                print(f"{part}, {arguments.trials:,} trials, sampler {arguments.sampler}, {name}")
                for line in measure(part, source, Path(folder), asked):
                    print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
