"""What a reproduction is: searches, and a view of the run directories that they leave.

Several reproductions can share a search: a second one finds the run directory there. One that needs
no trained nets has no search, and its view is all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from launch.config.config import Config, different_values, load_config, within
from launch.config.sections import Retrain
from launch.runs.retrain import with_recipe
from launch.runs.run import Run
from launch.show.comparison import Comparison
from launch.show.reporter import Reporter
from launch.show.view import View
from nas.errors import InputError


@dataclass(frozen=True)
class Reproduction:
    """One table or figure of a paper.

    Attributes:
        about: one line.
        searches: presets, one a search; of none, the view is given no runs.
        view: what is made of the runs, in the order of the searches.
        quick: the searches in small, by the name of the data that they are on (``--data``); the
            first is the default. One of a single entry has no choice of data; of none, the
            searches are what they are in full.
        needs: decisions and scores that it cannot do without.
        keep_all: the view needs the weights of every trial.
        retrained: the view needs the winners retrained, as their configurations say.
        also: place of a search, from 0 -> recipe keys with which its winner is retrained once more.
        compare: the paper's numbers beside ours, from the view's table and the name of the data;
            None where the paper prints none.
    """

    about: str
    searches: tuple[str, ...]
    view: Callable[[Sequence[Run], Reporter], View]
    quick: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...] = field(default=(), kw_only=True)
    keep_all: bool = field(default=False, kw_only=True)
    retrained: bool = field(default=False, kw_only=True)
    also: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)
    compare: Callable[[pd.DataFrame, str], Sequence[Comparison]] | None = field(
        default=None, kw_only=True
    )

    def sources(self, *, quick: bool, data: str | None) -> tuple[str, ...]:
        """Return the presets to search.

        Raises:
            InputError: ``data`` without ``quick``, or one that no small preset is for.
        """
        if data is not None and not self.quick:
            raise InputError(f"--data: expected none, got {data}: this one has no choice of data")
        if not quick or not self.quick:
            if data is not None:
                raise InputError(
                    f"--data: expected only with --quick, got {data}: the full one has its own"
                )
            return self.searches
        if data is None:
            return next(iter(self.quick.values()))
        if data not in self.quick:
            known = ", ".join(self.quick)
            raise InputError(f"--data: expected one of {known}, got {data!r}")
        return self.quick[data]

    def retrainings(self, place: int, config: Config) -> list[Retrain]:
        """Return how the winner of a search is retrained: not at all, once or twice.

        Args:
            place: of the search, from 0.
            config: its configuration.
        """
        if not self.retrained or config.retrain is None:
            return []
        more = [with_recipe(config.retrain, self.also[place])] if place in self.also else []
        return [config.retrain, *more]

    def configs(self, sources: Sequence[str], assignments: Sequence[str]) -> list[Config]:
        """Return the configurations of the searches, with ``key=value`` laid over all of them.

        Raises:
            InputError: a key or value that is refused, one that tells the searches apart, or
                something that the view needs and that is not there.
        """
        if assignments and not sources:
            raise InputError(f"--set: expected none, got {assignments[0]}: nothing is searched")
        plain = [load_config(source).flat() for source in sources]
        apart = {key for other in plain[1:] for key in different_values(plain[0], other)}
        for assignment in assignments:
            key = assignment.partition("=")[0]
            if any(within(other, [key]) for other in apart):
                raise InputError(
                    f"--set {key}: expected a key that all searches share, got one that tells "
                    f"{', '.join(sources)} apart"
                )
        return [self._settled(load_config(source, assignments)) for source in sources]

    def _settled(self, config: Config) -> Config:
        plan = config.plan()
        there = {*plan.decisions, *(n for m in plan.template.metrics for n in m.score_names)}
        if missing := [name for name in self.needs if name not in there]:
            raise InputError(
                f"expected the decisions and scores {', '.join(self.needs)}, got none of "
                f"{', '.join(missing)}: leave the preset's space and metrics as they are"
            )
        if not self.keep_all:
            return config
        keep = config.keep.model_copy(update={"top": max(config.keep.top, plan.size)})
        return config.model_copy(update={"keep": keep})
