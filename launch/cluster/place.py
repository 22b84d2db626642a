"""Where a worker runs, and what it raises when it is of no more use."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray._private.state import state

from nas.errors import PsinasError


@dataclass(frozen=True)
class Place:
    """A share of a node: what a sick worker's successors would get again.

    Attributes:
        node: Ray's id of it.
        host: its name, for people.
        gpus: ids of the GPUs; empty on a CPU.
    """

    node: str
    host: str
    gpus: tuple[int, ...] = ()

    @classmethod
    def here(cls) -> Place:
        """Return the place of the worker that asks."""
        node = ray.get_runtime_context().get_node_id()
        return cls(node, socket.gethostname(), tuple(int(gpu) for gpu in ray.get_gpu_ids()))

    @classmethod
    def of(cls, data: list[Any]) -> Place:
        """Return the place of what :meth:`to_list` gives."""
        node, host, gpus = data
        return cls(node, host, tuple(gpus))

    def to_list(self) -> list[Any]:
        """Return plain JSON types."""
        return [self.node, self.host, list(self.gpus)]

    def __str__(self) -> str:
        gpus = f"GPU {', '.join(map(str, self.gpus))} of " if self.gpus else ""
        return f"{gpus}{self.host}"


def node_of(actor: Any) -> str | None:
    """Return the id of the node on which an actor runs; None where Ray does not know."""
    table = state.actor_table(actor._actor_id.hex()) if actor is not None else {}
    return table.get("Address", {}).get("NodeID") or None


class DeviceLost(PsinasError):
    """The worker's device failed."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(place, text)
        self.place, self.text = place, text

    def __str__(self) -> str:
        return f"{self.text} (on {self.place})"


class WorkerSick(PsinasError):
    """One trial after another ended with the same error on this worker; the last one's outcome."""

    def __init__(self, place: Place, text: str, outcome: str) -> None:
        super().__init__(place, text, outcome)
        self.place, self.text, self.outcome = place, text, outcome

    def __str__(self) -> str:
        return f"{self.text} (on {self.place})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.text, self.outcome)
