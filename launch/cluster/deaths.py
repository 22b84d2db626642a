"""Every death of a worker is told to Tune as one.

Tune's actor manager knows ``RayActorError``; at anything else that Ray raises for a process that is
gone, such as the memory monitor's ``OutOfMemoryError``, it ends the whole run.
"""

from __future__ import annotations

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError

HANDLER = "_actor_task_failed"


class WorkerKilled(RayActorError):  # type: ignore[misc]  # ray is half typed
    """A worker is gone, for a reason that Ray raises as something else."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.error_msg = text

    def __str__(self) -> str:
        return self.error_msg

    def __reduce__(self) -> tuple[type[WorkerKilled], tuple[str]]:
        return type(self), (self.error_msg,)


def tell_every_death() -> None:
    """Let Tune hear of every lost worker as of a dead actor; once a process."""
    original = getattr(RayActorManager, HANDLER)
    if getattr(original, "tells_every_death", False):
        return

    def handler(self: RayActorManager, tracked_actor_task: object, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        if isinstance(exception, RayError) and not known:
            exception = WorkerKilled(str(exception))
        original(self, tracked_actor_task=tracked_actor_task, exception=exception)

    handler.tells_every_death = True  # type: ignore[attr-defined]
    setattr(RayActorManager, HANDLER, handler)
