"""What placement is told of trials and of GPUs: bytes that trials take, and that cards have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from launch.cluster.before import Newcomers
from launch.cluster.node import gpus_here
from launch.cluster.nodes import Cluster
from launch.cluster.slots import automatic
from launch.cluster.worker import Sources
from launch.config.sections import Resources
from nas.data.arrays import prepare
from nas.trial.footprint import footprint
from nas.trial.trial import Trial
from search_spaces import Task


def estimator(images: Sources) -> Callable[[Trial], int]:
    """Return what estimates the peak of a trial on a GPU, in bytes.

    Args:
        images: by ``DataConfig.source``.
    """
    known: dict[str, tuple[Task, tuple[int, int]]] = {}

    def estimate(trial: Trial) -> int:
        if trial.data.hash not in known:
            data = prepare(images[trial.data.source], trial.data)
            known[trial.data.hash] = data.task, (len(data.train), len(data.validation))
        task, counts = known[trial.data.hash]
        return footprint(trial, task, device="cuda", images=counts).peak_bytes

    return estimate


def cards_of(
    resources: Resources, cluster: Cluster, newcomers: Newcomers | None
) -> Callable[[], Mapping[str, tuple[int, ...]]]:
    """Return what tells the bytes of each GPU of every node that has some, by the node's id.

    Args:
        resources: of a trial; only ``trials_per_gpu: auto`` needs to know.
        cluster: its nodes.
        newcomers: who has asked the nodes; None where this machine is the only one.
    """
    asked: dict[str, tuple[int, ...]] = {}

    def cards() -> Mapping[str, tuple[int, ...]]:
        there = [node.id for node in cluster.open_nodes() if node.gpus]
        if newcomers is not None:
            return {node: newcomers.cards.get(node, ()) for node in there}
        if there and not asked and automatic(resources) and resources.device != "cpu":
            asked[there[0]] = tuple(gpus_here()["gpu_memory_bytes"])
        return {node: asked.get(node, ()) for node in there}

    return cards
