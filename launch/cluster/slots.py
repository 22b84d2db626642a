"""How many trials fit on the nodes that are there, and on those that may come. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launch.config.sections import Resources

BESIDE = 1e-9  # of a GPU, that sums of shares may be off
DOUBLED = 8  # trials that may wait for nodes to come, where fewer than that run


@dataclass(frozen=True)
class Node:
    """A living node of the cluster, or a kind of node that the autoscaler can add.

    Attributes:
        id: Ray's.
        host: its name, for people.
        ip: its address.
        cpus, gpus: that Ray counts there.
        draining: it is about to go, and takes no more trials.
        at_most: of a kind of node, how many there may be in all.
    """

    id: str
    host: str
    cpus: int
    gpus: float = 0.0
    draining: bool = False
    at_most: int = 1
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


def slots(resources: Resources, nodes: Iterable[Node], coming: Iterable[Node] = ()) -> Slots:
    """Return how many trials fit on the nodes that are there; none, where none is large enough.

    Args:
        resources: of a trial. ``gpu: auto`` takes a share of a GPU as soon as a node that is there
            or may come has one.
        nodes: that are there.
        coming: kinds of nodes that the autoscaler can add.
    """
    nodes, coming = list(nodes), list(coming)
    gpu = share(resources, [*nodes, *coming])
    count = sum(node.room(resources.cpu, gpu) for node in nodes if not node.draining)
    if resources.workers is not None:
        count = min(count, resources.workers)
    return Slots(count, resources.cpu, gpu)


def share(resources: Resources, nodes: Sequence[Node]) -> float:
    """Return the share of a GPU that a trial takes; 0 runs it on a CPU."""
    if resources.gpu != "auto":
        return float(resources.gpu)
    return 1 / resources.trials_per_gpu if any(node.gpus for node in nodes) else 0.0


def at_once(resources: Resources, nodes: Iterable[Node], coming: Iterable[Node]) -> int:
    """Return how many trials may be started or wait: more than fit, where nodes can be added.

    What waits is what an autoscaler adds nodes for. It is at most as many as run, so that a
    sampler that learns is not asked for a whole cluster's trials before the first outcome; where
    nothing fits, one trial waits.
    """
    nodes, coming = list(nodes), list(coming)
    now = slots(resources, nodes, coming)
    most = max(now.count, 1)
    if coming:
        room = sum(kind.at_most * kind.room(now.cpu, now.gpu) for kind in coming)
        most = max(most, min(room, now.count + max(DOUBLED, now.count)))
    return most if resources.workers is None else min(most, resources.workers)


def unmet(resources: Resources, nodes: Iterable[Node]) -> str | None:
    """Return what no node has that a trial takes, with the key that asks for it; None if one fits.

    Nodes that are there or that may come; those that are draining do not count.
    """
    there = [node for node in nodes if not node.draining]
    gpu = share(resources, there)
    if any(node.room(resources.cpu, gpu) for node in there):
        return None
    most_gpus = max((node.gpus for node in there), default=0.0)
    most_cpus = max((node.cpus for node in there), default=0)
    if gpu > most_gpus:
        return (
            f"resources.gpu: expected at most the {most_gpus:g} GPUs of a node that Ray sees, "
            f"got {gpu:g}"
        )
    if resources.cpu > most_cpus:
        return (
            f"resources.cpu: expected at most the {most_cpus} cores of a node that Ray sees, "
            f"got {resources.cpu}"
        )
    return (
        f"resources: expected a node that has both {resources.cpu} cores and {gpu:g} GPUs, got "
        + ", ".join(f"{n.host} with {n.cpus} and {n.gpus:g}" for n in there[:8])
    )
