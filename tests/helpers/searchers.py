"""A searcher as the driver makes it, over nodes that a test names, without Ray."""

from __future__ import annotations

from launch.cluster.nodes import Cluster
from launch.cluster.placement import placement_of
from launch.cluster.searcher import StudySearcher
from launch.cluster.slots import Node
from launch.cluster.watch import Watch
from nas.search.running import Running


def searcher_over(search, config, run, progress, *, cores=2, watch=None, **more):
    """Return the searcher of a search on one node of some cores."""
    cluster = Cluster(config.resources, living=lambda: [Node("n", "node", cores)])
    placement = placement_of(
        config.resources, cluster.open_nodes, dict, lambda: False, None, progress.say
    )
    if watch is None:
        watch = Watch(Running(), run, progress, config.resources, search.plan.budget)
    return StudySearcher(
        search, config, run, progress, cluster=cluster, placement=placement, watch=watch, **more
    )
