"""Asks the cluster's autoscaler for nodes, as pending trials would."""

from __future__ import annotations

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from launch.cluster.slots import Slots


class Demand:
    """Placement groups of a trial's share that wait, which is what an autoscaler adds nodes for.

    Where there is none they wait for nothing. They end with the driver's job, however it ends: a
    request by ``ray.autoscaler.sdk`` would keep nodes for ever after a driver that was killed. Ray
    tells nobody whether there is an autoscaler, or which kinds of nodes it could add.
    """

    def __init__(self) -> None:
        self._share: dict[str, float] = {}
        self._groups: list[PlacementGroup] = []

    def __call__(self, count: int, slots: Slots) -> None:
        """Let room for so many more trials be asked for; what has come is left to the trials."""
        share = {"CPU": float(slots.cpu)} | ({"GPU": slots.gpu} if slots.gpu else {})
        same = share == self._share
        kept = [g for g in self._groups if same and _waits(g)][:count]
        for group in self._groups:
            if group not in kept:
                remove_placement_group(group)
        more = [placement_group([share], strategy="PACK") for _ in range(count - len(kept))]
        self._share, self._groups = share, [*kept, *more]


def _waits(group: PlacementGroup) -> bool:
    state: str = placement_group_table(group).get("state", "")
    return state == "PENDING" and ray.is_initialized()
