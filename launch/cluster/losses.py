"""Where a worker was lost, and whether its node was lost with it."""

from __future__ import annotations

import re

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.exceptions import ActorUnavailableError

from launch.cluster.causes import NODE_GONE
from launch.cluster.nodes import Cluster
from launch.cluster.place import Place
from nas.errors import said


def node_lost(error: BaseException | None, node: str | None, cluster: Cluster) -> bool:
    """Whether a worker was lost with its node, which may only have stopped to answer.

    Args:
        error: that Ray raised.
        node: id of the node on which the worker was, where it is known.
        cluster: whose nodes live or do not.
    """
    gone = node is not None and node not in cluster.names()
    unheard = isinstance(error, ActorUnavailableError)
    text = "" if error is None else said(error).lower()
    return gone or unheard or any(part in text for part in NODE_GONE)


def place_of(error: BaseException | None, node: str | None, cluster: Cluster) -> Place | None:
    """Return where a worker died, as far as anybody knows; arguments as of :func:`node_lost`."""
    there = cluster.names()
    text = "" if error is None else said(error)
    if node is None and (found := re.search(r"\bip: (\S+)", text)):
        node = cluster.at(found[1])
    return None if node is None or node not in there else Place(node, there[node])
