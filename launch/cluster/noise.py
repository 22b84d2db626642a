"""What Ray prints into a driver's output by itself, past every switch, and what is left of it.

A node that is killed brings fifty lines of its raylet's log, once for every process of it. A search
tells of lost nodes and workers itself, in a line each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray._private.worker

from nas.errors import cut

PRINTER = "print_to_stdstream"  # what ray's thread for the cluster's error messages prints with
TOLD = (
    "raylet is terminated", "has been marked dead", "a worker died or was killed",
    "workers (tasks / actors) killed", "worker(s) were killed", "the actor died",
    "the node with node id",
)  # fmt: skip


def tell_in_lines(say: Callable[[str], None]) -> None:
    """Let Ray's own messages be said in a line each, once, but for what a search tells itself.

    Ray's switches (``log_to_driver``, logging levels) do not reach them.
    """
    said: set[str] = set()

    def shorter(data: Mapping[str, Any], *arguments: Any, **more: Any) -> None:
        text = "\n".join(map(str, data.get("lines", ()))).strip()
        line = cut(text.partition("\n")[0])
        if line and line not in said and not any(part in text.lower() for part in TOLD):
            said.add(line)
            say(f"ray: {line}")

    if not hasattr(ray._private.worker, PRINTER):
        raise AttributeError(f"this version of ray has no ray._private.worker.{PRINTER}")
    setattr(ray._private.worker, PRINTER, shorter)
