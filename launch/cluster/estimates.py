"""What placement is told of trials and of GPUs: bytes that trials take, and that cards have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
import torch

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


class Estimates:
    """The peaks of trials on a GPU, estimated by a task of the cluster while the search goes on.

    An estimate takes from a second to a minute of a core, and runs the code of an architecture.

    Args:
        images: by ``DataConfig.source``.
    """

    def __init__(self, images: Sources) -> None:
        self._images = images
        self._data: dict[str, tuple[Task, tuple[int, int]]] = {}
        self._asked: dict[str, Any] = {}  # key of a trial -> what its estimate will be

    def __call__(self, trial: Trial) -> int | None:
        """Return the peak in bytes; None as long as it is not known.

        Raises:
            RayTaskError: no estimate of this trial.
        """
        if trial.key not in self._asked:
            task, counts = self._of_data(trial)
            remote: Any = ray.remote(num_cpus=0, max_retries=1)(_peak_bytes)
            self._asked[trial.key] = remote.remote(trial, task, counts)
        reference = self._asked[trial.key]
        if not ray.wait([reference], timeout=0)[0]:
            return None
        found: int = ray.get(reference)
        return found

    def _of_data(self, trial: Trial) -> tuple[Task, tuple[int, int]]:
        if trial.data.hash not in self._data:
            data = prepare(self._images[trial.data.source], trial.data)
            self._data[trial.data.hash] = data.task, (len(data.train), len(data.validation))
        return self._data[trial.data.hash]


def _peak_bytes(trial: Trial, task: Task, images: tuple[int, int]) -> int:
    torch.set_num_threads(1)
    return footprint(trial, task, device="cuda", images=images).peak_bytes


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
