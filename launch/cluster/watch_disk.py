"""Looks at the disk while trials run, however long they take."""

from __future__ import annotations

import signal
import threading
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray import tune

from launch.cluster.thrift import Thrift


class WatchDisk(tune.Callback):  # type: ignore[misc]  # ray is half typed
    """Looks at what is free while trials run; they are left to a resume where it is almost none."""

    def __init__(self, thrift: Thrift) -> None:
        self._thrift = thrift
        self._cut = False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for its own restore, which we never use
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look now and then."""
        if self._thrift.look_now_and_then() and not self._cut:
            self._cut = True
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)  # Tune ends in order, as at Ctrl-C
