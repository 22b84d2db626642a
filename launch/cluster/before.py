"""Before a search on a cluster: its nodes are asked, and what would spoil trials is refused.

Ray started on this machine has one node, which is this one, and is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray import cloudpickle

from launch.cluster.checks import doubts_of, faults_of, uses_gpus
from launch.cluster.node import NodeReport, Questions
from launch.cluster.probe import here, living, probe
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


def check_nodes(config: Config, run: Path, say: Callable[[str], None]) -> list[NodeReport]:
    """Ask all living nodes, refuse what would spoil trials, say what a user should know.

    Args:
        config: of the search.
        run: its directory.
        say: is told each doubt in a line.

    Raises:
        InputError: with the first fault, and how many more there are.
    """
    questions = questions_of(config, run)
    reports = probe(living(), questions)
    driver = here(Questions(questions.run, (), questions.modules, False))
    refuse(faults_of(reports, config, driver, str(run)))
    for doubt in doubts_of(reports, config, driver, str(run)):
        say(doubt)
    return reports


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
