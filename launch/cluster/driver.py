"""Runs a search on Ray Tune: Tune executes, the ledger remembers.

A worker (:mod:`launch.cluster.worker`) runs one trial after another, an epoch a step. Nothing of
Tune's own state is kept: a resumed search is a fresh Tuner over the same ledger.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray import tune

from launch.cluster.before import check_nodes, check_travels, datasets_of
from launch.cluster.callbacks import StopAtFailure, TellSearcher
from launch.cluster.deaths import tell_every_death
from launch.cluster.demand import Demand
from launch.cluster.estimates import Estimates, cards_of
from launch.cluster.forgetting import ForgettingScheduler
from launch.cluster.nodes import Cluster, nobody
from launch.cluster.place import node_of
from launch.cluster.placement import placement_of
from launch.cluster.scheduler import RungScheduler, open_rungs
from launch.cluster.searcher import StudySearcher
from launch.cluster.session import ray_session, waiting
from launch.cluster.signals import heed_stops
from launch.cluster.spread import Spread
from launch.cluster.watch import Watch
from launch.cluster.watch_disk import WatchDisk
from launch.cluster.worker import Sources, TrialActor
from launch.config.config import Config
from launch.config.identity import settle_data
from launch.config.modules import check_found
from launch.show.progress import Progress
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.errors import InputError
from nas.search.reuse import Earlier
from nas.search.running import Running
from nas.search.search import Search


def run_search(
    search: Search,
    config: Config,
    run: Path,
    progress: Progress,
    *,
    address: str | None = None,
    reuse: Callable[[], Mapping[str, Earlier]] = dict,
) -> bool:
    """Run what is left of a search; return False when it was interrupted.

    Args:
        search: over the run's ledger, which the caller has locked.
        config: the resolved configuration.
        run: the run directory, on storage that all nodes share.
        progress: told of everything that happens.
        address: of a Ray cluster, ``auto`` or ``HOST:PORT``; None starts Ray here and ends it.
        reuse: returns trials of other runs that are equal to some of this search, by their key;
            called when the checksums of the data are known.

    Raises:
        InputError: no such data, data that have changed since the run began, no such cluster, one
            that cannot meet ``resources``, or nodes on which trials would be spoilt.
        WorkerFailure: workers cannot run trials at all; what ran is left to a resume.
    """
    check_found(config.model_dump())
    check_travels(search.plan.template)
    images = read_sources(search)
    settle_data(run / "config.yaml", images)
    earlier = reuse()
    with (
        tempfile.TemporaryDirectory(prefix="psinas-") as scratch,  # not on shared storage
        ray_session(address, progress.say),
    ):
        heed_stops()  # ray has taken them away
        resources = waiting(config.resources, address)
        cluster = Cluster(resources, progress.say, ask=Demand() if address else nobody)
        try:
            cluster.wait_for_room()
            newcomers = None if address is None else check_nodes(config, run, progress.say)
        except KeyboardInterrupt:
            return False
        if address is not None and cluster.on_cpus():
            progress.say(
                "no node of the cluster has a GPU: trials run on CPUs until one joins that has "
                "(--set resources.gpu=0.25, say, waits for it)"
            )
        placement = placement_of(
            config.resources,
            cluster.open_nodes,
            cards_of(config.resources, cluster, newcomers),
            lambda: cluster.slots().gpu > 0,
            Estimates(images),
            progress.say,
        )
        book = Running()
        progress.begin(search, cluster.slots().count, book)
        watch = Watch(
            book,
            run,
            progress,
            config.resources,
            search.plan.budget,
            locate=lambda worker: cluster.names().get(node_of(worker) or "", ""),
        )
        rungs = open_rungs(config, search)
        searcher = StudySearcher(
            search,
            config,
            run,
            progress,
            cluster=cluster,
            placement=placement,
            watch=watch,
            rungs=rungs,
            earlier=earlier,
        )
        searcher.newcomers = newcomers
        spread = Spread(cluster)
        actor = tune.with_parameters(
            TrialActor,
            template=search.plan.template,
            images=images,
            run=str(run.resolve()),
            device=config.resources.device,
            threads=config.resources.cpu,
            processes=config.resources.processes,
            time_limit_seconds=config.resources.time_limit_seconds,
            checkpoint_seconds=config.keep.checkpoint_seconds,
            reserve_bytes=config.keep.reserve_bytes,
        )
        tuner = tune.Tuner(
            tune.with_resources(actor, spread.of),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=ForgettingScheduler() if rungs is None else RungScheduler(rungs),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                stop=StopAtFailure(searcher),
                callbacks=[TellSearcher(searcher), WatchDisk(searcher.thrift)],
            ),
        )
        interrupted = False
        tell_every_death()
        try:
            tuner.fit()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            watch.close()
    if searcher.failure is not None:
        raise searcher.failure
    # At the first Ctrl-C Tune returns and leaves them.
    interrupted |= bool(search.running) or searcher.thrift.halted is not None
    return not interrupted


def read_sources(search: Search) -> Sources:
    """Return the images of every dataset that the search may use, each read once.

    Raises:
        InputError: files that are not there, a selection that cannot be made of them, or images
            that are smaller than the recipe's ``cutout``.
    """
    images: Sources = {}
    for data in datasets_of(search.plan):
        if data.source not in images:
            images[data.source] = load_images(data)
        task = prepare(images[data.source], data).task  # refused here rather than in every trial
        side, largest = min(task.shape[1:]), max(search.plan.recipe_values("cutout"))
        if largest > side:
            raise InputError(
                f"recipe.cutout: expected at most the {side} pixels of a side of the images, "
                f"got {largest}"
            )
    return images
