"""What a trial asks of the cluster: a share of a node, a node to itself, or any node but some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.tune import PlacementGroupFactory

from launch.cluster.session import Slots


class Spread:
    """Says what a trial takes, from what travels to its worker.

    Args:
        slots: the usual share.
        nodes: the resources of every living node.
    """

    def __init__(self, slots: Slots, nodes: Sequence[Mapping[str, float]]) -> None:
        self._slots = slots
        fits = [n for n in nodes if n.get("GPU", 0.0) >= slots.gpu and n.get("CPU", 0) >= slots.cpu]
        self._cores = int(max((n.get("CPU", 0) for n in fits), default=slots.cpu))

    def of(self, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """Return the request of a trial; the same for all but the few that were lost before."""
        share = {"CPU": float(self._slots.cpu)} | ({"GPU": gpu} if (gpu := self._slots.gpu) else {})
        if config.get("alone") and self._slots.gpu:
            share["GPU"] = max(1.0, self._slots.gpu)
        elif config.get("alone"):
            share["CPU"] = float(self._cores)
        avoid = config.get("avoid")
        if not avoid:
            return PlacementGroupFactory([share])
        elsewhere = {"ray.io/node-id": f"!in({','.join(avoid)})"}
        return PlacementGroupFactory([share], bundle_label_selector=[elsewhere])
