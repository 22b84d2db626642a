"""How many trials fit on the nodes that are there. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from launch.cluster.climb import COUNTS
from launch.cluster.packing import BESIDE, USUAL, share_of
from launch.config.sections import Resources

LEAST, MOST = 8, 32  # trials for which more nodes are asked for at a time


@dataclass(frozen=True)
class Node:
    """A living node of the cluster.

    Attributes:
        id: Ray's.
        host: its name, for people.
        ip: its address.
        cpus, gpus: that Ray counts there.
        draining: it is about to go, and takes no more trials.
    """

    id: str
    host: str
    cpus: int
    gpus: float = 0.0
    draining: bool = False
    ip: str = ""

    def room(self, cpu: int, gpu: float) -> int:
        """Return how many trials of a share fit."""
        found = self.cpus // cpu
        return min(found, math.floor(self.gpus / gpu + BESIDE)) if gpu else found


@dataclass(frozen=True)
class Slots:
    """How trials fit on the cluster: how many at a time, and what each takes."""

    count: int
    cpu: int
    gpu: float


def slots(resources: Resources, nodes: Iterable[Node], *, gpus: bool = False) -> Slots:
    """Return how many trials fit on the nodes that are there; none, where none is large enough.

    Under ``trials_per_gpu: auto`` so many of the smallest share.

    Args:
        resources: of a trial. ``gpu: auto`` takes a share of a GPU as soon as a node has one.
        nodes: that are there.
        gpus: there were GPUs before, with which ``gpu: auto`` stays.
    """
    nodes = list(nodes)
    gpu = share(resources, nodes, gpus=gpus)
    least = share_of(COUNTS[-1]) if gpu and automatic(resources) else gpu
    count = sum(node.room(resources.cores, least) for node in nodes if not node.draining)
    if resources.workers is not None:
        count = min(count, resources.workers)
    return Slots(count, resources.cores, gpu)


def share(resources: Resources, nodes: Iterable[Node], *, gpus: bool = False) -> float:
    """Return the share of a GPU that a trial takes, or how many; 0 runs it on a CPU."""
    if resources.gpu != "auto":
        return float(resources.gpu)
    if not (gpus or any(node.gpus for node in nodes)):
        return 0.0
    if resources.processes > 1:
        return float(resources.processes)
    return share_of(USUAL if resources.trials_per_gpu == "auto" else resources.trials_per_gpu)


def automatic(resources: Resources) -> bool:
    """Whether each trial gets a share of its own, by :mod:`launch.cluster.placement`."""
    shared = resources.processes == 1 and resources.gpu == "auto"
    return shared and resources.trials_per_gpu == "auto"


def wanted(resources: Resources, now: Slots, waiting: int) -> int:
    """Return for how many more trials an autoscaler is asked for nodes.

    At most as many as run now, so that a search grows by doubling: a sampler that learns is not
    asked for a whole cluster's trials before their first outcomes.

    Args:
        resources: of a trial; ``workers`` is a limit here too.
        now: what fits.
        waiting: trials that could begin if there were room.
    """
    most = min(waiting, MOST, max(LEAST, now.count))
    return most if resources.workers is None else max(0, min(most, resources.workers - now.count))


def unmet(resources: Resources, nodes: Iterable[Node]) -> str | None:
    """Return what no node has that a trial takes, with the key that asks for it; None if one fits.

    Nodes that are draining do not count.
    """
    there = [node for node in nodes if not node.draining]
    gpu = share(resources, there)
    if any(node.room(resources.cores, gpu) for node in there):
        return None
    most_gpus = max((node.gpus for node in there), default=0.0)
    most_cpus = max((node.cpus for node in there), default=0)
    if gpu > most_gpus:
        return (
            f"resources.gpu: expected at most the {most_gpus:g} GPUs of a node that Ray sees, "
            f"got {gpu:g}"
        )
    if resources.cores > most_cpus and resources.processes > 1:
        return (
            f"resources.processes: expected at most the {most_cpus} cores of a node that Ray sees, "
            f"got {resources.processes} processes of resources.cpu={resources.cpu}"
        )
    if resources.cores > most_cpus:
        return (
            f"resources.cpu: expected at most the {most_cpus} cores of a node that Ray sees, "
            f"got {resources.cpu}"
        )
    return (
        f"resources: expected a node that has both {resources.cores} cores and {gpu:g} GPUs, got "
        + ", ".join(f"{n.host} with {n.cpus} and {n.gpus:g}" for n in there[:8])
    )
