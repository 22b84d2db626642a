"""The whole configuration of a search: from YAML and ``--set key=value`` to values.

Every key has a default; an unknown one is refused with those that are known. The resolved
configuration is saved in the run directory, and is all that a resume or a replay needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, field_validator

from launch.config.documents import assign, at_home, read_document
from launch.config.kept import check_kept
from launch.config.metrics import build_metric, metric_settings
from launch.config.modules import directories, look_in, needed
from launch.config.samplers import build_sampler, check_sampler
from launch.config.sections import Keep, Resources, Retrain, Scheduler, Strict, refuse_several
from launch.config.trust import admit
from launch.config.values import (
    build_value,
    flat,
    fractions,
    named,
    plain,
    validated,
)
from launch.config.vary import share_of_all, varied_values
from metrics.metric import Metric
from nas.data.checksum import DATA_CHECKSUM
from nas.data.config import DataConfig
from nas.data.datasets import check_dataset
from nas.errors import InputError
from nas.ledger.address import without_password
from nas.ledger.results import STUDY
from nas.names import known_names
from nas.samplers.registry import SAMPLERS, SamplerFactory
from nas.search.plan import SearchPlan, fixed_choices
from nas.search.spaces import check_space
from nas.search.trust import plain_names
from nas.trial.deviations import DEVIATION, has_deviation
from nas.trial.evaluation import TRAINING_SCORES
from nas.trial.kept import BEST_IS_AVERAGE
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import SEARCH_SPACES, SearchSpace, space_class

DIRECTORY_KEYS = ("made_with", "run_id", "driver", DATA_CHECKSUM)
RETIRED = ("beside", "laid")
"""Keys of ``retrain`` that run directories of earlier versions have; they named other searches."""
MAY_DIFFER = ("trials", "keep", "resources", "retrain", "data.root", "data.download", "modules")
"""Keys that a resumed search may change: how far it goes, where it runs and where the files are.

``resources`` sets device and threads, which can move a last digit: each row says what it ran on.
"""
RESERVED = tuple(
    "number status reason epochs rung seconds architecture repeat_of peak_memory_bytes "
    f"micro_batch memory_steps {BEST_IS_AVERAGE}".split()
)
"""Columns of the trial table that no decision may be called."""


class Config(Strict):
    """A search, resolved. ``psinas presets`` lists examples."""

    name: str = Field(default="search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    data: DataConfig = DataConfig()
    space: dict[str, Any] = {"name": "depth-channels"}
    recipe: Recipe = Recipe()
    fix: dict[str, Any] = {}  # decision of the space -> its one choice
    vary: dict[str, list[Any]] = {}
    metrics: list[str | dict[str, Any]] = [
        "clean",
        "fgsm",
        "pgd",
        "step-ll",
        "psi",
        "psi-init",
        "psi-epoch1",
        "cost",
        "suspicion",
    ]
    objectives: dict[str, Literal["max", "min"]] = Field(
        default={"pgd_accuracy": "max"}, min_length=1
    )
    sampler: dict[str, Any] = {"name": "tpe"}
    scheduler: Scheduler | None = None
    trials: int | None = Field(default=24, ge=1)
    repeats: int = Field(default=1, ge=1)  # seeds under which each trial is trained; scores: means
    keep: Keep = Keep()
    resources: Resources = Resources()
    retrain: Retrain | None = None
    modules: list[str] = []  # directories of modules that are named here and not installed
    storage: str | None = None  # a URL (nas.ledger.storages); null: study.journal in the directory

    @field_validator("storage")
    @classmethod
    def _password_apart(cls, url: str | None) -> str | None:
        return None if url is None else without_password(url)

    @property
    def study_name(self) -> str:
        """The study's name: a storage may hold those of several runs."""
        return self.name if self.storage else STUDY

    def plan(self) -> SearchPlan:
        """Return what to search.

        Raises:
            InputError: a name or a setting that does not exist, an objective that no metric gives.
        """
        check_dataset(self.data.name)
        space = self.built_space()
        check_space(space, self.vary)
        metrics = self.built_metrics()
        known = [n for m in metrics for n in m.score_names] + list(TRAINING_SCORES)
        if twice := {n for n in known if known.count(n) > 1}:
            raise InputError(
                f"metrics: expected different score names, got {sorted(twice)} twice: "
                "tell them apart with as: NAME"
            )
        for objective in self.objectives:
            if objective not in known:
                names = known_names(objective, plain_names(known), "psinas metrics")
                raise InputError(f"objectives: expected a score ({names}), got {objective!r}")
        sampler, settings = self.built_sampler()
        template = Trial(next(iter(space)), self.recipe, self.data, metrics, seed=self.seed)
        template = replace(template, repeats=self.repeats)
        if self.repeats > 1:
            if "repeat" in self.vary:
                raise InputError(
                    "repeats: expected 1 where vary.repeat is searched, got "
                    f"{self.repeats}: every trial is trained under so many seeds"
                )
            known += [name + DEVIATION for name in known if has_deviation(name)]
        plan = SearchPlan(
            space,
            template,
            varied_values(self.vary, self.recipe, self.data),
            self.objectives,
            sampler,
            settings,
            trials=self.trials,
            fixed=fixed_choices(space, self.fix),
        )
        if taken := set(plan.decisions) & {*RESERVED, *known}:
            raise InputError(f"space: expected other names of decisions than {sorted(taken)}")
        check_sampler(sampler, plan.decisions, settings)
        if plan.trials is None and sampler is not SAMPLERS["grid"]:
            raise InputError(
                "trials: expected a number, got null: only the grid sampler has an end"
            )
        shortest = min(plan.recipe_values("epochs"))
        if shortest == 0 and any(m.stage == "epoch1" for m in metrics):
            raise InputError("metrics: expected none of the first epoch where recipe.epochs is 0")
        if self.scheduler is not None and self.scheduler.grace_period > shortest:
            raise InputError(
                f"scheduler.grace_period: expected at most the {shortest} epochs of a trial, "
                f"got {self.scheduler.grace_period}"
            )
        if self.scheduler is not None and min(plan.recipe_values("selection_images")) == 0:
            raise InputError(
                "scheduler: expected recipe.selection_images >= 1 to judge epochs by, got 0"
            )
        return plan

    def built_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics; an L infinity attack without its own epsilon gets the recipe's."""
        epsilon = self.recipe.epsilon if self.recipe.norm == "linf" else None
        return tuple(build_metric(entry, epsilon) for entry in self.metrics)

    def flat(self) -> dict[str, Any]:
        """Return every key as it was written or by default, by dotted keys."""
        return flat(self.model_dump(mode="json"))

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, as YAML types."""
        document = self.model_dump(mode="json")
        space = self.built_space()
        document["space"] = {"name": self.space["name"], **plain(space.settings())}
        built = zip(self.metrics, self.built_metrics(), strict=True)
        document["metrics"] = [metric_settings(entry, metric) for entry, metric in built]
        return document

    def built_space(self) -> SearchSpace:
        """Return the search space."""
        name, settings = named(self.space, "space")
        try:
            kind = space_class(name)
        except ValueError as error:
            raise InputError(f"space.name: {error}") from error
        if name not in SEARCH_SPACES and "name" in vars(kind):
            raise InputError(
                f"space.name: expected {name} without a name of its own, got "
                f"{kind.name!r}: that is for spaces of psinas"
            )
        space: SearchSpace = build_value(kind, settings, "space")
        return space

    def built_sampler(self) -> tuple[SamplerFactory, dict[str, Any]]:
        """Return what makes the sampler, and its settings."""
        return build_sampler(self.sampler)


def load_config(source: str | Path, assignments: Iterable[str] = ()) -> Config:
    """Return the configuration of a preset or a YAML file, with ``key=value`` laid over it.

    Args:
        source: a preset's name, or the path of a YAML file.
        assignments: such as ``recipe.epochs=3`` or ``space.depth=[2,4]``; values are YAML.

    Raises:
        InputError: no such preset or file, unreadable YAML, or a key or value that is refused.
    """
    document = read_document(source)
    beside = Path(source).parent if Path(source).suffix in (".yaml", ".yml") else Path()
    saved = "made_with" in document  # a run's own, whose paths are whole
    if saved:
        admit(document, source)
    else:
        document = at_home(document, beside)
    for assignment in assignments:
        assign(document, assignment)
    if not saved:
        named = [os.path.abspath(place) for place in directories(document)]
        look_in([*named, beside])
        document["modules"] = list(dict.fromkeys([*named, *needed(document, beside)]))
    config = parse_config(document)
    refuse_several(config.resources)
    return config


def parse_config(document: Mapping[str, Any]) -> Config:
    """Return the configuration of a document, checked down to the last setting.

    Raises:
        InputError: with one line that says where, what was expected and what came.
    """
    config = unchecked_config(document)
    config.plan()
    check_kept(config.resolved())
    return config


def unchecked_config(document: Mapping[str, Any]) -> Config:
    """Return the configuration of a document whose keys and kinds of values are right.

    Raises:
        InputError: they are not.
    """
    known = {k: v for k, v in document.items() if k not in DIRECTORY_KEYS}
    if "made_with" in document and isinstance(known.get("retrain"), Mapping):
        known["retrain"] = {k: v for k, v in known["retrain"].items() if k not in RETIRED}
    if "made_with" in document and isinstance(known.get("resources"), Mapping):
        gpu = known["resources"].get("gpu")  # runs once reserved several GPUs, and used one
        if "processes" not in known["resources"] and isinstance(gpu, int | float) and gpu > 1:
            known["resources"] = {**known["resources"], "gpu": 1}
    config: Config = validated(TypeAdapter(Config), fractions(known), "", Config)
    return config


def within(key: str, parts: Iterable[str]) -> bool:
    """Whether a dotted key is one of ``parts`` or lies in one."""
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def deciding(config: Config) -> dict[str, Any]:
    """Return every key that decides scores with its value, by dotted keys."""
    found = {k: v for k, v in flat(config.resolved()).items() if not within(k, MAY_DIFFER)}
    return found | {"recipe.adversarial_share": share_of_all(config.recipe, config.vary)}


def differing_keys(old: Config, new: Config) -> list[str]:
    """Return the keys, of those that decide scores, in which two configurations differ.

    Where the ledger lies decides none.
    """
    differing = [k for k in different_values(deciding(old), deciding(new)) if k != "storage"]
    # The first objective names the winner, and a grid counts through decisions in their order.
    for key in ("objectives", "vary"):
        if not differing and list(getattr(old, key)) != list(getattr(new, key)):
            differing.append(f"{key} (their order)")
    return differing


def different_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, sorted."""
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
