"""The cluster as a search sees it: nodes join, are drained and die while it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray._private.state import state

from launch.cluster.slots import Node, Slots, share, slots, unmet, wanted
from launch.config.sections import Resources
from nas.errors import InputError

Say = Callable[[str], None]
OFTEN = 1.0  # seconds for which what was seen of the cluster is believed


def living_nodes() -> tuple[Node, ...]:
    """Return every living node, in the order of their ids."""
    alive = sorted((n for n in ray.nodes() if n["Alive"]), key=lambda n: str(n["NodeID"]))
    names = [str(n.get("NodeManagerHostname") or n["NodeManagerAddress"]) for n in alive]
    several = {name for name, count in Counter(names).items() if count > 1}
    draining = state.get_draining_nodes()
    return tuple(
        Node(
            n["NodeID"],
            f"{name} ({n['NodeID'][:6]})" if name in several else name,
            int(n["Resources"].get("CPU", 0)),
            float(n["Resources"].get("GPU", 0.0)),
            n["NodeID"] in draining,
            ip=n["NodeManagerAddress"],
        )
        for n, name in zip(alive, names, strict=True)
    )


def nobody(count: int, slots: Slots) -> None:
    """Ask nobody for nodes: this machine is all there is."""


class Cluster:
    """What of the cluster a search may use at this moment.

    Args:
        resources: of a trial.
        say: is told of nodes that come and go.
        living: returns the nodes that are there.
        ask: asks for room for so many more trials of a share.
        clock: in seconds.
    """

    def __init__(
        self,
        resources: Resources,
        say: Say = lambda line: None,
        *,
        living: Callable[[], Sequence[Node]] = living_nodes,
        ask: Callable[[int, Slots], None] = nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resources, self._say = resources, say
        self._living, self._ask, self._clock = living, ask, clock
        self._seen, self._nodes = clock(), tuple(living())
        self._asked, self._gpus = -OFTEN, False
        self._empty_since: float | None = None
        self._settle()

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that are there, looked up at most once a second."""
        if (now := self._clock()) - self._seen >= OFTEN:
            before, self._seen = self._nodes, now
            self._nodes = tuple(self._living())
            was = slots(self._resources, before, gpus=self._gpus)
            self._settle()
            self._tell(before, was)
        return self._nodes

    def slots(self) -> Slots:
        """Return how trials fit now."""
        return slots(self._resources, self.nodes(), gpus=self._gpus)

    def at_once(self) -> int:
        """Return how many trials may have been started and not ended; one waits where none fits."""
        return max(self.slots().count, 1)

    def want(self, waiting: int) -> None:
        """Ask, at most once a second, for nodes for trials that could begin if there were room."""
        if (time_now := self._clock()) - self._asked >= OFTEN or not waiting:
            self._asked, now = time_now, self.slots()
            self._ask(wanted(self._resources, now, waiting), now)

    def lacks(self) -> str | None:
        """Return why no trial can run on what is there; None if it can."""
        return unmet(self._resources, self.nodes())

    def on_cpus(self) -> bool:
        """Whether ``gpu: auto`` came out as CPUs."""
        self.nodes()
        return self._resources.gpu == "auto" and not self._gpus

    def open_nodes(self) -> list[Node]:
        """Return the nodes that take trials."""
        return [node for node in self.nodes() if not node.draining]

    def leaving(self) -> list[str]:
        """Return the ids of the nodes that are being drained."""
        return [node.id for node in self.nodes() if node.draining]

    def names(self) -> dict[str, str]:
        """Return the name of every node, by its id."""
        return {node.id: node.host for node in self.nodes()}

    def at(self, ip: str) -> str | None:
        """Return the id of the node at an address, if there is exactly one."""
        found = [node.id for node in self.nodes() if node.ip == ip]
        return found[0] if len(found) == 1 else None

    def waited(self, running: int) -> float:
        """Return for how many seconds no trial has run and none has fitted anywhere."""
        if running or self.slots().count:
            self._empty_since = None
            return 0.0
        if self._empty_since is None:
            self._empty_since = self._clock()
            self._say(self._waiting())
        return self._clock() - self._empty_since

    def wait_for_room(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Return as soon as a trial can run; ask for a node that takes one until then.

        Raises:
            InputError: no such node came within ``resources.wait_seconds``.
        """
        began, told = self._clock(), False
        while (lack := self.lacks()) is not None:
            waited = self._clock() - began
            if waited >= self._resources.wait_seconds:
                after = f" (waited {waited:.0f} s, resources.wait_seconds)" if told else ""
                raise InputError(f"{lack}{after}")
            if not told:
                told = True
                self._say(f"{lack}: {self._waiting()}")
            self.want(1)
            sleep(min(OFTEN, self._resources.wait_seconds - waited))
        self.want(0)

    def _settle(self) -> None:
        """Stay with GPUs once there were some: a spot cluster's trials wait for the next ones."""
        self._gpus |= share(self._resources, self._nodes) > 0

    def _waiting(self) -> str:
        return (
            f"waiting up to {self._resources.wait_seconds:g} s for a node (resources.wait_seconds)"
        )

    def _tell(self, before: Sequence[Node], was: Slots) -> None:
        """Say what has changed among the nodes."""
        old, new = ({node.id: node for node in nodes} for nodes in (before, self._nodes))
        events = [f"node {node.host} is gone" for id, node in old.items() if id not in new]
        for id, node in new.items():
            if id not in old:
                gpus = f", {node.gpus:g} GPUs" if node.gpus else ""
                events.append(f"node {node.host} joined ({node.cpus} cores{gpus})")
            elif node.draining and not old[id].draining:
                events.append(f"node {node.host} is being drained: no more trials begin there")
        if not events:
            return
        now = slots(self._resources, self._nodes, gpus=self._gpus)
        where = f" on {now.gpu:g} GPU each" if now.gpu > was.gpu else ""
        self._say(f"{'; '.join(events)}: {now.count} trials at a time{where}")
