"""Before a search on a cluster: its nodes are asked, and what would spoil trials is refused.

Ray started on this machine has one node, which is this one, and is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray import cloudpickle

from launch.cluster.checks import doubts_of, faults_of, uses_gpus
from launch.cluster.node import Questions
from launch.cluster.probe import Probe, begin, here, living, probe
from launch.config.config import Config
from launch.config.modules import code_in
from nas.data.config import DataConfig
from nas.errors import InputError, one_line
from nas.search.plan import SearchPlan
from nas.trial.trial import Trial


def questions_of(config: Config, run: Path) -> Questions:
    """Return what a node is asked before trials of a search run there.

    The images are not asked for: they travel with the search.
    """
    modules = tuple(code_in(config.model_dump()))
    return Questions(str(run.resolve()), (), modules, None if uses_gpus(config) else False)


def check_nodes(config: Config, run: Path, say: Callable[[str], None]) -> Newcomers:
    """Ask the nodes with cores for a trial, refuse what would spoil trials, say what is doubtful.

    Args:
        config: of the search.
        run: its directory.
        say: is told each doubt in a line.

    Returns:
        What asks the nodes that join later.

    Raises:
        InputError: with the first fault, and how many more there are.
    """
    questions = questions_of(config, run)
    known = living()
    reports = probe(living(config.resources.cores), questions, say=say)
    there = living()  # without those that an autoscaler has taken meanwhile
    reports = [report for report in reports if report.node in there]
    driver = here(replace(questions, gpus=False))
    refuse(faults_of(reports, config, driver, str(run)))
    for doubt in doubts_of(reports, config, driver, str(run)):
        say(doubt)
    cards = {report.node: report.gpu_memory_bytes for report in reports}
    return Newcomers(config, run, say, known, cards)


class Newcomers:
    """Asks nodes that join while a search runs, without waiting for them.

    Args:
        config: of the search.
        run: its directory.
        say: is told what is wrong with a node, in lines.
        known: ids of the nodes that were there before.
        cards: bytes of each GPU of those that were asked, by the node's id.

    Attributes:
        cards: bytes of each GPU of every node that has answered, by the node's id.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        say: Callable[[str], None],
        known: Collection[str],
        cards: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._config, self._run, self._say = config, run, say
        self._known, self._asked = set(known), list[Probe]()
        self.cards = dict(cards or {})
        self._questions = questions_of(config, run)

    def spoilt(self, nodes: Collection[str]) -> list[str]:
        """Return which nodes have turned out unfit since the last call.

        Args:
            nodes: ids of the living ones.
        """
        if new := set(nodes) - self._known:
            self._known |= new
            try:
                self._asked.append(begin(sorted(new), self._questions))
            except InputError as error:  # no room for a token: that is not the node's
                self._say(str(error))
        reports = [report for asked in self._asked for report in asked.ready()]
        self.cards |= {report.node: report.gpu_memory_bytes for report in reports}
        self._asked = [asked for asked in self._asked if asked.left]
        if not reports:
            return []
        driver = here(replace(self._questions, gpus=False))
        unfit = []
        for report in reports:
            if report.node not in nodes:  # it is gone again
                continue
            held = [report], self._config, driver, str(self._run)
            faults = [] if report.silent else faults_of(*held)
            for line in [*(f"{fault}; it is not used" for fault in faults), *doubts_of(*held)]:
                self._say(line)
            if faults:
                unfit.append(report.node)
        return unfit


def refuse(faults: Sequence[str]) -> None:
    """Refuse a search that has faults.

    Raises:
        InputError: with the first, in one line.
    """
    if faults:
        more = f" (and {len(faults) - 1} more: psinas doctor shows them)" if faults[1:] else ""
        raise InputError(f"{faults[0]}{more}")


def datasets_of(plan: SearchPlan) -> list[DataConfig]:
    """Return every dataset that a search may use, as it is varied."""
    template = plan.template
    varied = [
        template.varied(name, value).data
        for name, values in plan.vary.items()
        if name.startswith("data.")
        for value in values
    ]
    return [template.data, *varied]


def check_travels(template: Trial) -> None:
    """Refuse a metric that cannot travel to workers.

    Raises:
        InputError: with its place in the configuration.
    """
    for index, metric in enumerate(template.metrics):
        try:
            cloudpickle.dumps(metric)
        except Exception as error:  # noqa: BLE001  a class of anybody's
            raise InputError(
                f"metrics[{index}]: expected a metric that can be pickled, since it travels to "
                f"workers, got a {type(metric).__name__}: {one_line(error)}"
            ) from error
