"""What a trial asks of Ray: a share of a node, a node to itself, some nodes or any but some."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.tune import PlacementGroupFactory

from launch.cluster.nodes import Cluster


class Spread:
    """Says what a trial takes, from what travels to its worker.

    Args:
        cluster: on which it runs.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._key = uuid.uuid4().hex
        _OF_THIS_PROCESS[self._key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_this_process, (self._key,)  # Tune pickles it with the worker's class

    def of(self, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """Return the request of a trial; the same for all but the few that were lost before."""
        slots = self._cluster.slots()
        share = {"CPU": float(slots.cpu)} | ({"GPU": slots.gpu} if slots.gpu else {})
        if config.get("alone") and slots.gpu:
            share["GPU"] = max(1.0, slots.gpu)
        elif config.get("gpu"):  # of launch.cluster.placement
            share["GPU"] = float(config["gpu"])
        elif config.get("alone"):
            cores = (node.cpus for node in self._cluster.open_nodes())
            share["CPU"] = float(max(cores, default=slots.cpu))
        avoid, only = config.get("avoid", ()), config.get("only", ())
        left = [node for node in only if node not in avoid]
        if not (avoid or left):
            return PlacementGroupFactory([share])
        nodes = f"in({','.join(left)})" if left else f"!in({','.join(avoid)})"
        return PlacementGroupFactory([share], bundle_label_selector=[{"ray.io/node-id": nodes}])


_OF_THIS_PROCESS: weakref.WeakValueDictionary[str, Spread] = weakref.WeakValueDictionary()


def _of_this_process(key: str) -> Spread:
    """Return the driver's own; workers, who never ask it, get an empty one."""
    return _OF_THIS_PROCESS.get(key) or object.__new__(Spread)
