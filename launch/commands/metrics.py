"""The command ``psinas metrics``."""

from __future__ import annotations

from launch.show.columns import beside
from launch.show.console import say
from metrics import METRICS
from nas.search.trust import plain_names


def metrics() -> None:
    """List the metrics, their settings and their scores.

    Example: psinas metrics
    """
    rows = {}
    for name, make in METRICS.items():
        metric = make()
        settings = ", ".join(f"{key}={value!r}" for key, value in metric.settings().items())
        scores = ", ".join(plain_names(metric.score_names))
        rows[name] = (f"{metric.about} ({settings}) -> {scores}",)
    for line in beside(rows):
        say(line)
