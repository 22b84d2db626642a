"""Is anything lost? Drivers and workers are killed at random moments until the search is whole.

    python bench/soak.py --kills 30 [--seed S] [--trials N] [--nodes N] [--json FILE]

Beside each other: a search that nobody disturbs (one process, no Ray), and the same search through
Ray, whose driver or one of whose workers gets SIGKILL, SIGTERM or SIGINT at random moments, while
it starts too, and which is resumed whenever it has ended. At the end the two trial tables are held
against each other row for row, wall times aside, and the ledger is asked whether any trial was
finished twice. Where a search is whole before all signals are sent, another one begins.

With ``--nodes`` the search runs on a Ray cluster of so many nodes of this machine, each with two
GPUs that are only counted, and nodes are killed too; another one joins some time later.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from launch.config.config import parse_config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.searching import finish
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.ledger.records import read_records
from nas.ledger.table import load_table
from nas.trial.evaluation import evaluation
from nas.trial.files import save_trial
from nas.trial.training import drain

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
TIMINGS = ["train_seconds", "score_seconds", "seconds"]
PATIENCE = 300.0  # seconds in which a driver that was told to stop has to


def document(trials: int) -> dict[str, Any]:
    """Return a search of as many trials, each of a second or two."""
    return {
        "name": "soak",
        "data": {"name": "digits", "limit": {"train": 500, "validation": 200}},
        "space": {
            "name": "depth-channels",
            "depth": [1, 2, 3],
            "channels": [8, 12, 16, 24],
            "stem": "small",
        },
        "recipe": {"epochs": 4, "batch_size": 50, "epsilon": 0.1, "steps": 3},
        "vary": {"repeat": list(range(max(1, trials // 12)))},
        "metrics": ["clean", "pgd"],
        "objectives": {"pgd_accuracy": "max"},
        "sampler": {"name": "grid"},
        "trials": None,
        "resources": {"workers": 2},
    }


def undisturbed(run: Path, asked: dict[str, Any]) -> pd.DataFrame:
    """Search in this process and return the table."""
    make_directory(run)
    config = settle_config(run, parse_config(asked), resume=False, keep_trials=False)
    search = open_search(run, config)
    torch.set_num_threads(config.resources.cpu)  # as workers do: sums can depend on it
    data = prepare(load_images(config.data), config.data)
    while (proposal := search.propose()) is not None:
        result = drain(evaluation(proposal.trial, data))
        save_trial(run, proposal.number, proposal.trial, result)
        search.finish(proposal.number, result.to_dict())
    finish(run, search)
    return load_table(run)


class Cluster:
    """Ray nodes of this machine, each with two cores and two GPUs that are only counted."""

    def __init__(self, count: int, rng: random.Random) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self._nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
        self._rng = rng
        self._there: list[Any] = []
        self._joins: list[float] = []  # when nodes come that stand for killed ones
        for _ in range(count):
            self._add()

    @property
    def address(self) -> str:
        return str(self._nodes.address)

    def raylets(self) -> list[int]:
        """Return the processes that start the workers of the nodes."""
        return [node.all_processes["raylet"][0].process.pid for node in self._there]

    def kill_one(self) -> None:
        """Kill a node with all that runs there; another one joins within half a minute."""
        node = self._there.pop(self._rng.randrange(len(self._there)))
        self._nodes.remove_node(node, allow_graceful=False)
        self._joins.append(time.monotonic() + self._rng.uniform(0.0, 30.0))

    def tick(self) -> None:
        """Let nodes join whose time has come."""
        due = [at for at in self._joins if at <= time.monotonic()]
        self._joins = [at for at in self._joins if at not in due]
        for _ in due:
            self._add()

    def close(self) -> None:
        self._nodes.shutdown()

    def _add(self) -> None:
        self._there.append(self._nodes.add_node(num_cpus=2, num_gpus=2))


@dataclass
class Driver:
    """A driver of the disturbed search, with the processes that it started."""

    process: subprocess.Popen[bytes]
    cluster: Cluster | None = None

    @classmethod
    def start(cls, config: Path, run: Path, log: Path, cluster: Cluster | None) -> Driver:
        psinas = Path(sys.executable).with_name("psinas")
        command = [str(psinas), "search", str(config), "--resume", "--out", str(run)]
        if cluster is not None:
            command += ["--address", cluster.address]
        with log.open("ab") as file:
            started = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        return cls(started, cluster)

    def members(self) -> list[int]:
        """Return the processes of the driver's session that are left, itself included."""
        return self._with(3, [self.process.pid])

    def _with(self, field: int, values: list[int]) -> list[int]:
        """Return the living processes of which a field of ``/proc/N/stat`` is one of ``values``."""
        found = []
        for place in Path("/proc").iterdir():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if place.name.isdigit() and int(fields[field]) in values and fields[0] != "Z":
                found.append(int(place.name))
        return found

    def workers(self) -> list[int]:
        """Return the processes that run trials."""
        found = []
        pids = self.members() if self.cluster is None else self._with(1, self.cluster.raylets())
        for pid in pids:
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"TrialActor" in title or b"ResourceTrainable" in title:
                    found.append(pid)
            except OSError:
                continue
        return found

    def gone(self) -> int:
        """Wait until nothing of it is left; return how many had to be ended by us."""
        deadline = time.monotonic() + 20
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return len(left)


def disturbed(
    run: Path,
    asked: dict[str, Any],
    kills: int,
    rng: random.Random,
    told: Counter[str],
    cluster: Cluster | None,
) -> pd.DataFrame:
    """Search through Ray under signals until it is whole and return the table."""
    config, log = run.with_suffix(".yaml"), run.with_suffix(".log")
    config.write_text(yaml.safe_dump(asked))
    sent = 0
    while True:
        driver = Driver.start(config, run, log, cluster)
        told["starts"] += 1
        while driver.process.poll() is None and (sent < kills or cluster is not None):
            if sent >= kills:
                cluster.tick()  # type: ignore[union-attr]
                time.sleep(0.5)
                continue
            whom = rng.choice(["driver", "worker"] + (["node"] if cluster is not None else []))
            ends = time.monotonic() + rng.uniform(0.5, 20.0)
            while driver.process.poll() is None and (
                time.monotonic() < ends if whom == "driver" else not driver.workers()
            ):
                if cluster is not None:
                    cluster.tick()
                time.sleep(0.1)
            if whom != "driver":
                time.sleep(rng.uniform(0.0, 3.0))
            if whom == "node" and cluster is not None and len(cluster.raylets()) > 1:
                cluster.kill_one()
                sent += 1
                told["SIGKILL to a node"] += 1
                continue
            workers = driver.workers()
            if driver.process.poll() is not None or (whom != "driver" and not workers):
                continue
            whom = "driver" if whom == "driver" else "worker"
            pid = driver.process.pid if whom == "driver" else rng.choice(workers)
            how = rng.choice(SIGNALS)
            if driver.process.poll() is None:
                try:
                    os.kill(pid, how)
                except ProcessLookupError:
                    continue
                sent += 1
                told[f"{how.name} to a {whom}"] += 1
            if whom == "driver":
                break
        try:
            code = driver.process.wait(timeout=PATIENCE if sent < kills else None)
        except subprocess.TimeoutExpired:
            told["drivers that did not stop"] += 1
            driver.process.kill()
            code = driver.process.wait()
        told[f"exit {code}"] += 1
        told["processes left behind"] += driver.gone()
        if code == 0:
            told["signals sent"] += sent
            return load_table(run)


def _differing(got: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return in which trials and columns two tables differ, and what they say there."""
    if list(got.columns) != list(whole.columns) or list(got.index) != list(whole.index):
        return f"{[*got.columns]} of {[*got.index]} beside {[*whole.columns]} of {[*whole.index]}"
    return got.compare(whole, result_names=("disturbed", "undisturbed")).to_string()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, help="of a Ray cluster on this machine")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rng, told = random.Random(given.seed), Counter[str]()
    asked = document(given.trials)
    cluster = None
    if given.nodes is not None:
        asked["resources"] = {"gpu": 1, "device": "cpu", "wait_seconds": 300}
        cluster = Cluster(given.nodes, rng)
    with tempfile.TemporaryDirectory() as scratch:
        expected = undisturbed(Path(scratch) / "undisturbed", asked)
        rounds = 0
        while told["signals sent"] < given.kills or not rounds:
            run = Path(scratch) / f"disturbed-{rounds}"
            left = given.kills - told["signals sent"]
            table = disturbed(run, asked, left, rng, told, cluster)
            rounds += 1
            got, whole = (t.drop(columns=TIMINGS).set_index("number") for t in (table, expected))
            if not (same := got.equals(whole)):
                print(f"{run.name}: {_differing(got, whole)}")
            finished = [r for r in read_records(run) if r.result is not None]
            told["trials"] += len(expected)
            told["trials lost"] += len(set(expected["number"]) - {r.number for r in finished})
            told["trials finished twice"] += len(finished) - len({r.number for r in finished})
            told["tables that differ"] += not same
            told["tracebacks"] += run.with_suffix(".log").read_text().count("Traceback")
    if cluster is not None:
        cluster.close()
    print(f"{platform.machine()}, {os.cpu_count()} cores, seed {given.seed}, {rounds} searches")
    for name, count in sorted(told.items()):
        print(f"{name:28s} {count:5d}")
    if given.json is not None:
        given.json.write_text(json.dumps(dict(told), indent=2) + "\n")
    if told["trials lost"] or told["trials finished twice"] or told["tables that differ"]:
        sys.exit("something was lost, repeated or changed")


if __name__ == "__main__":
    main()
