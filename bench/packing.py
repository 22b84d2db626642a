"""Packing trials on 64 GPUs: a simulation in which the driver's own code places them.

    python bench/packing.py [--trials 1500] [--seeds 3] [--memory 24] [--batch 512]
                            [--picture FILE.svg]
    python bench/packing.py --measure FILE.csv

One trial a GPU, 2, 4 and 8 a GPU, and ``auto``. What is the driver's: which share a trial asks for,
whether there is room, how many a GPU pay, what follows when memory runs out (``launch.cluster``:
``placement``, ``packing``, ``peaks``, ``climb``, ``ladder``), and where Ray puts a share, as
``packing.Room`` has it.

What is measured: bytes, multiply-accumulates (MACs) and parameters of the architectures in
``packing.csv`` (``--measure``: depth-channels and resnet whole, 11 random cells of nasnet, CIFAR's
shape, PGD-7, by ``nas.trial.footprint``), scaled to the batch. What is modelled:

- Alone, an epoch of 50,000 images takes 22.7 s at 5 million MACs (8 trials of 3 epochs on 12,000
  images took 131 s on an H200, one at a time: DESIGN.md, 40) and about 50 s for ResNet-18 (a PGD-10
  epoch took 69.5 s on one GPU), and grows as a power of MACs between. Scoring takes an epoch.
- Alone, a trial uses the share u of a card: 0.42 at 5 million MACs, so that four at a time come to
  the measured 131 / 58 = 2.26 times the work, and 1 for ResNet-18; a power between, at most 1.
- n trials on a card share it: together they do min(1, sum of u) of it, each in proportion to its
  u, less 1.7 % of each for every other. Epochs vary by 5 %.
- A trial's peak is 1.1 times its estimate and varies by 10 %; a process takes 500 MB more. A trial
  that begins where the peaks pass the card's memory ends at once, out of memory.
- A worker that takes a trial of the same share begins in 0.2 s, another in 5 s.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from launch.cluster.climb import Climb
from launch.cluster.packing import Packing, Request, Room, share_of
from launch.cluster.peaks import CONTEXT, Peaks
from launch.cluster.placement import PEAK, Placement
from nas.data.config import DataConfig
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import Architecture

GB = 10**9
NODES, GPUS = 8, 8
EPOCHS = 10
SCORING = 1.0  # epochs' time
REFERENCE, RESNET18 = 5e6, 555_422_720  # MACs
SECONDS, SHARE = (22.7, 50.0), (0.42, 1.0)  # alone, at the two
LOSS = 0.017  # for each other trial on the card: 4 * 0.42 > 1, (1 / 1.017 ** 3) / 0.42 = 2.26
FIXED = 169e6 + 134e6, 16  # bytes whatever the batch: images and workspace, and for a parameter
STARTS = 0.2, 5.0
STRATEGIES = ("1", "2", "4", "8", "auto")


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int = 256
    gpus: float = GPUS


@dataclass(frozen=True)
class Net:
    """An architecture: its cost, and its peak in training with a batch of 128."""

    parameters: float
    macs: float
    peak_bytes: float

    def peak(self, batch: int) -> float:
        fixed = FIXED[0] + FIXED[1] * self.parameters
        return fixed + max(0.0, self.peak_bytes - fixed) * batch / 128

    def between(self, ends: tuple[float, float]) -> float:
        """Return a power of MACs that has these values at the two nets that are known."""
        power = math.log(ends[1] / ends[0]) / math.log(RESNET18 / REFERENCE)
        return ends[0] * (self.macs / REFERENCE) ** power


@dataclass
class Task:
    """A trial that runs, waits to, or has run: what it does and what is left of its epoch."""

    number: int
    trial: Trial
    net: Net
    request: Request
    peak: float
    seconds: list[float]  # of each epoch that is left, alone
    use: float
    starting: float = 0.0
    begun: bool = False


@dataclass
class Card:
    """A GPU: what runs there, since when at these paces."""

    tasks: list[Task] = field(default_factory=list)
    at: float = 0.0
    version: int = 0
    workers: dict[float, int] = field(default_factory=dict)  # idle ones, by share

    def shares(self) -> tuple[float, float]:
        """Return which share of the card is busy, and of use."""
        use = sum(t.use for t in self.tasks if t.begun)
        busy = min(1.0, use)
        return busy, busy * self._together()

    def forward(self, now: float) -> None:
        """Let time pass; nothing begins or ends within."""
        pace = self._pace()
        for task in self.tasks:
            if task.begun:
                task.seconds[0] -= (now - self.at) * pace
        self.at = now

    def following(self) -> tuple[float, Task] | None:
        """Return when the next of its tasks begins or ends an epoch, and which."""
        pace = self._pace()
        times = [(self.at + t.seconds[0] / pace if t.begun else t.starting, t) for t in self.tasks]
        return min(times, key=lambda pair: pair[0], default=None)

    def _pace(self) -> float:
        """Return how fast each task is, of its pace alone."""
        use = sum(t.use for t in self.tasks if t.begun)
        return self._together() / max(1.0, use)

    def _together(self) -> float:
        return float((1 + LOSS) ** (1 - max(1, len(self.tasks))))


@dataclass(frozen=True)
class Result:
    """What a search came to; shares are of all cards until the last trial began."""

    busy: float
    useful: float
    makespan: float
    ran_out: int
    lost: int
    most: int
    history: tuple[tuple[float, float], ...]
    tail: float


class Simulation:
    """A search of ``trials`` on 64 GPUs.

    Args:
        nets: that trials are drawn from.
        strategy: trials a GPU, or ``auto``.
        memory: bytes of a card.
        batch: of the recipe.
        seed: of the draws, the same trials for every strategy.
    """

    def __init__(
        self,
        nets: list[Net],
        strategy: str,
        *,
        trials: int,
        memory: float,
        batch: int,
        seed: int,
        nodes: int = NODES,
    ) -> None:
        self.now, self.memory, self.batch = 0.0, memory, batch
        self.nets, self.left = nets, trials
        self.draws = [random.Random(f"{seed} {number}") for number in range(trials)]
        self.chosen = [draw.choice(nets) for draw in self.draws]
        self.recipe = Recipe(epochs=EPOCHS, batch_size=batch)
        self.nodes = [Node(f"n{i}") for i in range(nodes)]
        self.cards = {(n.id, g): Card() for n in self.nodes for g in range(GPUS)}
        self.room = Room(self.nodes)
        self.fixed = None if strategy == "auto" else int(strategy)
        self.placement = self._placement()
        self.waiting: list[Task] = []
        self.again: list[tuple[int, Trial]] = []
        self.events: list[tuple[float, int, tuple[str, int], int]] = []
        self.running = self.count = self.ran_out = self.lost = 0
        self.shares = dict.fromkeys(self.cards, (0.0, 0.0))
        self.busy = self.useful = 0.0  # cards, now

    def _placement(self) -> Placement:
        sizes = {node.id: (int(self.memory),) * GPUS for node in self.nodes}
        packing = None
        if self.fixed is None:
            peaks = Peaks(lambda trial: int(self._net(trial).peak(self.batch)), 0.25)
            packing = Packing(peaks, lambda: sizes, print)
        return Placement(
            lambda: self.nodes,
            lambda: sizes,
            lambda: True,
            packing=packing,
            climb=Climb(),
            clock=lambda: self.now,
        )

    def _net(self, trial: Trial) -> Net:
        return self.chosen[int(trial.architecture["number"])]

    def run(self) -> Result:
        busy = useful = 0.0
        tail, total = 0.0, self.left
        history = []
        self._start()
        while self.events:
            time, _, gpu, version = heapq.heappop(self.events)
            card = self.cards[gpu]
            if version != card.version:
                continue
            if self.left or self.waiting:
                passed = time - self.now
                busy += passed * self.busy
                useful += passed * self.useful
                tail = time
                history.append((self.now, self.busy / len(self.cards)))
            self.now = time
            self._happen(gpu)
            self._start()
        assert not self.left
        assert self.count == total
        all_of_it = max(tail, 1e-9) * len(self.cards)
        return Result(
            busy / all_of_it,
            useful / all_of_it,
            self.now,
            self.ran_out,
            self.lost,
            self.fixed or self.placement.most,
            tuple(history),
            tail,
        )

    # ----------------------------------------------------------------------------- the driver

    def _start(self) -> None:
        """Propose while there is room, as the searcher does, and place what Ray can."""
        while self._has_room():
            if self.again:
                number, trial = self.again.pop(0)
            elif self.left:
                number = len(self.chosen) - self.left
                self.left -= 1
                answer = (("number", number),)
                name = Architecture("simulated", (), answer, f"{number:016x}")
                trial = Trial(name, self.recipe, DataConfig(), ())
            else:
                break
            self._hand_out(number, trial)
        self._place()

    def _has_room(self) -> bool:
        if self.fixed is None:
            return self.placement.has_room()
        return self.running + len(self.waiting) < self.fixed * len(self.cards)

    def _hand_out(self, number: int, trial: Trial) -> None:
        asked = self.placement.asks(number, trial)
        share = asked.get("gpu", share_of(self.fixed or 1))
        net, draw = self.chosen[number], random.Random(f"{number} {self.recipe.batch_size}")
        micro = asked.get("micro_batch", self.batch)
        peak = net.peak(micro) * 1.1 * draw.lognormvariate(0, 0.1)
        alone = net.between(SECONDS)
        seconds = [alone * draw.lognormvariate(0, 0.05) for _ in range(EPOCHS)]
        seconds[-1] += alone * SCORING
        use = min(1.0, net.between(SHARE))
        request = Request(share, tuple(asked.get("only", ())))
        self.waiting.append(Task(number, trial, net, request, peak, seconds, use))
        self._place()

    def _place(self) -> None:
        for task in list(self.waiting):
            place = self.room.take(task.request)
            if place is None:
                continue
            self.waiting.remove(task)
            card = self.cards[place]
            card.forward(self.now)
            idle = card.workers.get(task.request.gpu, 0)
            card.workers[task.request.gpu] = max(0, idle - 1)
            task.starting = self.now + STARTS[0 if idle else 1]
            card.tasks.append(task)
            self.running += 1
            self.placement.began(task.number)
            self._schedule(place)

    def _schedule(self, gpu: tuple[str, int]) -> None:
        card = self.cards[gpu]
        card.version += 1
        before, now = self.shares[gpu], card.shares()
        self.shares[gpu] = now
        self.busy += now[0] - before[0]
        self.useful += now[1] - before[1]
        if (following := card.following()) is not None:
            event = following[0], following[1].number, gpu, card.version
            heapq.heappush(self.events, event)

    # ------------------------------------------------------------------------------ the cards

    def _happen(self, gpu: tuple[str, int]) -> None:
        card = self.cards[gpu]
        following = card.following()
        assert following is not None
        task = following[1]
        card.forward(self.now)
        place = [gpu[0], gpu[0], [gpu[1]]]
        if not task.begun:
            task.begun = True
            if sum(t.peak + CONTEXT for t in card.tasks if t.begun) > self.memory:
                self._end(task, gpu, {"status": "oom", "scores": {}}, place)
        else:
            task.seconds.pop(0)
            if task.seconds:
                self.placement.reported(task.number, place)
            else:
                scores = {"macs": task.net.macs}
                outcome = {"status": "complete", "scores": scores, PEAK: int(task.peak)}
                self._end(task, gpu, outcome, place)
        self._schedule(gpu)

    def _end(self, task: Task, gpu: tuple[str, int], outcome: dict[str, Any], place: Any) -> None:
        card = self.cards[gpu]
        card.tasks.remove(task)
        card.workers[task.request.gpu] = card.workers.get(task.request.gpu, 0) + 1
        self.room.give_back(task.request, gpu)
        self.running -= 1
        self.placement.left(task.number, outcome, place)
        if outcome["status"] == "oom":
            self.ran_out += 1
            alone = task.request.gpu == 1
            if self.placement.ran_out(task.number, task.trial, alone=alone) is not None:
                self.again.append((task.number, task.trial))
                return
            self.lost += 1
        self.placement.row(task.number, outcome)
        self.count += 1


# ---------------------------------------------------------------------------------------- reports


def read_nets(path: Path) -> dict[str, list[Net]]:
    """Return the architectures of what is searched: small nets of one space, or all together."""
    found: dict[str, list[Net]] = {"depth-channels": [], "all three spaces": []}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            net = Net(float(row["parameters"]), float(row["macs"]), float(row["peak_bytes"]))
            found["all three spaces"].append(net)
            if row["space"] in found:
                found[row["space"]].append(net)
    return found


def measure(path: str) -> None:
    """Write the file of architectures; some seconds for each."""
    import numpy as np
    import torch

    from metrics.cost import macs, parameters
    from nas.data.config import Limit
    from nas.trial.footprint import footprint
    from search_spaces import SEARCH_SPACES, Task

    torch.set_num_threads(1)
    images = Task.plain((3, 32, 32), 10)
    data = DataConfig(limit=Limit(train=50_000, validation=5_000))
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["space", "parameters", "macs", "peak_bytes"])
        for name in ("depth-channels", "resnet", "nasnet"):
            settings = {} if name == "nasnet" else {"stem": "small"}
            space = SEARCH_SPACES[name](**settings)
            whole = name != "nasnet"
            for net in list(space) if whole else [space.sample(rng) for _ in range(11)]:
                model = space.build(net, images)
                trial = Trial(net, Recipe(batch_size=128), data, ())
                found = footprint(trial, images, device="cuda")
                peak = found.training_bytes + found.workspace_bytes
                cost = macs(model, torch.rand(1, 3, 32, 32))
                writer.writerow([name, parameters(model), cost, peak])


def picture(drawn: dict[str, dict[str, Result]], out: str) -> None:
    """Draw how busy the cards are until the tail: a panel for each search, a line each way."""
    import matplotlib

    matplotlib.rcParams.update({"svg.hashsalt": "psinas", "svg.fonttype": "none"})
    from launch.show.style import colours, finished, panels

    figure, all_axes = panels(len(drawn), 10)
    for axes, (title, results) in zip(all_axes, drawn.items(), strict=True):
        for (name, result), colour in zip(results.items(), colours(len(results)), strict=True):
            label = f"{name}{'' if name == 'auto' else ' a GPU'}: {result.makespan / 3600:.1f} h"
            if result.ran_out:
                label += f", {result.ran_out} out of memory"
            width = 2.5 if name == "auto" else 1.0
            axes.plot(*binned(result), color=colour, label=label, linewidth=width)
        axes.axhline(0.95, color="#888888", linewidth=0.8, linestyle=":")
        axes.set(ylim=(0, 1.02), title=title, xlabel="hours")
    all_axes[0].set(ylabel="share of 64 GPUs that is busy, until the tail")
    finished(figure, *all_axes).savefig(out, metadata={"Date": None})


def binned(result: Result, parts: int = 80) -> tuple[list[float], list[float]]:
    """Return hours and means of the history in so many parts of equal length."""
    width = result.tail / parts
    sums = [0.0] * parts
    ends = [time for time, _ in result.history[1:]] + [result.tail]
    for (start, busy), end in zip(result.history, ends, strict=True):
        at = start
        while at < end - 1e-9:
            part = min(parts - 1, int(at / width + 1e-9))
            upto = end if part == parts - 1 else min(end, (part + 1) * width)
            sums[part] += busy * (upto - at)
            at = max(upto, at + 1e-9)
    return [(i + 0.5) * width / 3600 for i in range(parts)], [total / width for total in sums]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=24, help="GB of a card")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--picture", metavar="FILE.svg")
    parser.add_argument("--measure", metavar="FILE.csv")
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return
    print(f"{NODES * GPUS} cards of {given.memory:g} GB, {given.trials} trials of batch "
          f"{given.batch}, {given.seeds} seeds: mean and standard deviation")  # fmt: skip
    drawn: dict[str, dict[str, Result]] = {}
    for title, nets in read_nets(Path(__file__).with_name("packing.csv")).items():
        print(f"\n{title}, {len(nets)} architectures\n"
              f"{'a GPU':6} {'busy':>15} {'useful':>15} {'hours':>13} {'ran out':>11} {'oom':>4}"
              "  most")  # fmt: skip
        for strategy in STRATEGIES:
            found = [
                Simulation(
                    nets, strategy, trials=given.trials, memory=given.memory * GB,
                    batch=given.batch, seed=seed,
                ).run()
                for seed in range(given.seeds)
            ]  # fmt: skip
            drawn.setdefault(title, {})[strategy] = found[0]
            columns = [
                told([r.busy for r in found], "{:.1%}", 15),
                told([r.useful for r in found], "{:.1%}", 15),
                told([r.makespan / 3600 for r in found], "{:.2f}", 13),
                told([r.ran_out for r in found], "{:.0f}", 11),
                f"{mean(r.lost for r in found):4.0f} ",
                ",".join(str(r.most) for r in found),
            ]
            print(f"{strategy:6} {' '.join(columns)}", flush=True)
    if given.picture:
        picture(drawn, given.picture)


def told(values: list[float], form: str, width: int) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{form.format(mean(values))} ± {form.format(spread)}".rjust(width)


if __name__ == "__main__":
    main()
