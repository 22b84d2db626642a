"""Parts of a configuration that are about running a search and what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nas.disk import in_bytes
from nas.errors import InputError
from nas.trial.training import EPOCH_SCORES, EpochScore


class Strict(BaseModel):
    """Refuses unknown keys; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scheduler(Strict):
    """Stops bad trials early.

    asha: of the trials that reached a rung, after ``grace_period * reduction_factor ** k`` epochs,
    the best ``1/reduction_factor`` go on: best by ``metric``, or by non-dominated sorting where
    that is a list. See ``nas.search.rungs``.
    """

    name: Literal["asha"] = "asha"
    metric: EpochScore | list[EpochScore] = "robust_accuracy"
    grace_period: int = Field(default=1, ge=1)
    reduction_factor: float = Field(default=3, gt=1)

    @property
    def metrics(self) -> tuple[EpochScore, ...]:
        """What decides, the first of which is told to Optuna."""
        return tuple(self.metric) if isinstance(self.metric, list) else (self.metric,)

    @field_validator("metric", mode="before")
    @classmethod
    def _names(cls, metric: Any) -> Any:
        names = metric if isinstance(metric, list) else [metric]
        known = all(name in EPOCH_SCORES for name in names)
        if not (names and known and len(set(names)) == len(names)):
            raise ValueError(
                f"expected one of {', '.join(EPOCH_SCORES)}, or a list of different ones, "
                f"got {metric!r}"
            )
        return names[0] if len(names) == 1 else names


class Keep(Strict):
    """Whose weights stay on disk, beside the Pareto front's: the ``top`` on each objective.

    disk_bytes: what the run directory may take, a number or text such as ``20 GB``; null: as much
    as it takes. reserve_bytes: so much stays free on its file system, or the search stops.
    checkpoint_seconds: a trial that is cut off goes on from an epoch's end that lies at least so
    long after its beginning, or the checkpoint before; 0: from every one; null: it begins anew.
    """

    top: int = Field(default=3, ge=1)
    disk_bytes: int | None = Field(default=None, gt=0)
    reserve_bytes: int = Field(default=2**30, ge=0)
    checkpoint_seconds: float | None = Field(default=60, ge=0, allow_inf_nan=False)

    @field_validator("disk_bytes", "reserve_bytes", mode="before")
    @classmethod
    def _sizes(cls, size: Any) -> Any:
        return None if size is None else in_bytes(size)


class Resources(Strict):
    """What one trial takes.

    cpu: cores of each of its processes, also torch's threads there. processes: that train it, on
    one node, each with a GPU of its own where trials run on GPUs; more than one in ``retrain``
    alone. gpu: ``auto`` takes a share of a GPU where there is one, or one for each process; 2 or
    more are a process for each. trials_per_gpu: that share; ``auto`` finds one for
    each trial, by the memory that it is expected to hold and ``memory_margin`` of that more, and by
    what pays (``docs/packing.md``). device: ``cpu`` runs models on the
    CPU whatever is reserved, so that a cluster can be tried with GPUs that are only counted.
    workers: at most so many trials at a time; null: all that fit. wait_seconds: how long a search
    on a cluster waits while no node can take a trial.
    time_limit_seconds: a trial, with all its repeats, is given up once it passes this, in training
    or while it is scored.
    hanging_after: a trial that has told of no epoch for so many times the median time of one (and
    for 30 s) is said to hang; null: never.
    """

    cpu: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)
    gpu: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"
    trials_per_gpu: int | Literal["auto"] = 4
    memory_margin: float = Field(default=0.25, ge=0, allow_inf_nan=False)
    device: Literal["auto", "cpu"] = "auto"
    workers: int | None = Field(default=None, ge=1)
    wait_seconds: float = Field(default=900, ge=0, allow_inf_nan=False)
    time_limit_seconds: float | None = Field(default=None, gt=0)
    hanging_after: float | None = Field(default=10, gt=1, allow_inf_nan=False)

    @field_validator("trials_per_gpu", mode="before")
    @classmethod
    def _count_or_auto(cls, count: Any) -> Any:
        if count != "auto" and (type(count) is not int or count < 1):
            raise ValueError(f"expected auto or a whole number >= 1, got {count!r}")
        return count

    @model_validator(mode="before")
    @classmethod
    def _a_process_a_gpu(cls, given: Any) -> Any:
        gpu = given.get("gpu") if isinstance(given, Mapping) else None
        if isinstance(gpu, int | float) and gpu > 1 and gpu == gpu // 1:
            if given.get("processes", 1) == 1:
                return {**given, "processes": int(gpu)}
        return given

    @field_validator("gpu")
    @classmethod
    def _one_a_process(cls, gpu: float | str, info: ValidationInfo) -> float | str:
        processes = info.data.get("processes", 1)
        if isinstance(gpu, float) and processes > 1 and gpu not in (0, processes):
            raise ValueError(
                f"expected auto, 0 or {processes}, a GPU for each of processes, got {gpu:g}"
            )
        if isinstance(gpu, float) and gpu > max(1, processes):
            raise ValueError(
                f"expected auto or a share of one GPU, on which a process trains, got {gpu:g}"
            )
        return gpu

    @property
    def cores(self) -> int:
        """Cores of a trial, of all its processes."""
        return self.cpu * self.processes

    def for_one(self) -> Resources:
        """Return what work of one process takes, such as attacking test images."""
        gpu = 1.0 if isinstance(self.gpu, float) and self.gpu > 1 else self.gpu
        return self.model_copy(update={"processes": 1, "gpu": gpu})


def refuse_several(resources: Resources) -> None:
    """Refuse several processes a trial in a search: as many trials come to more.

    Raises:
        InputError: there are.
    """
    why = "to train one trial on several GPUs or processes is for retrain.resources"
    if resources.gpu != "auto" and resources.gpu > 1:
        raise InputError(
            "resources.gpu: expected auto or a share of one GPU in a search, got "
            f"{resources.gpu:g}: {why}"
        )
    if resources.processes > 1:
        raise InputError(
            f"resources.processes: expected 1 in a search, got {resources.processes}: {why}"
        )


class Retrain(Strict):
    """What comes after the search: the winner, enlarged, trained on all that is not held out.

    scale: settings of the space laid over the search's, such as ``{cells: 4, filters: 32}``.
    recipe, data: keys laid over the winner's; the search's limits on images are lifted first.
    recipes: sets of recipe keys of which the best on held-out images is reported; null: twelve.
    held_out: share of the training images that choose among them.
    test_images: at most so many test images; null: all.
    resources: keys laid over the search's, whose time limit is lifted first.
    """

    scale: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    data: dict[str, Any] = {}
    recipes: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    test_images: int | None = Field(default=None, ge=1)
    resources: dict[str, Any] = {}
