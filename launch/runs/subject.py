"""A finished model, of an export, a trial or anybody's callable, and images to ask it about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.config import Config, parse_config
from launch.config.trust import admit
from launch.runs.outside import Wrapping, own_model
from launch.runs.run import FinishedTrial, Run
from nas.data.arrays import Split, prepare, prepare_test
from nas.data.checksum import DATA_CHECKSUM
from nas.data.config import DataConfig
from nas.data.datasets import load_as_before, part_checksum
from nas.errors import InputError, first_line
from nas.export.place import MODEL
from nas.trial.files import WEIGHTS, trial_directory
from search_spaces import Task, load, space_of

UNWRAPPED = Wrapping()


@dataclass(frozen=True)
class Subject:
    """A finished model, and what it was trained on and for.

    Attributes:
        name: as it was asked for.
        model: in ``eval()``.
        task: what it was trained for; None of somebody's own.
        known: of its configuration: ``data``, ``recipe``, ``metrics``, where it has them.
        checksums: dataset -> part -> checksum of what the search saw.
        made: of somebody's own: its weights, normalisation and size.
    """

    name: str
    model: nn.Module
    task: Task | None
    known: Mapping[str, Any]
    checksums: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def document(self, data: str | None) -> dict[str, Any]:
        """Return what a configuration says of it, on its own data or another dataset.

        Raises:
            InputError: no dataset is known.
        """
        document: dict[str, Any] = {"objectives": {"train_seconds": "min"}, **self.known}
        if data is not None:
            same = self.known.get("data", {}).get("name") == data
            document["data"] = {**(self.known["data"] if same else {}), "name": data}
        elif "data" not in self.known:
            raise InputError("--data: expected a dataset, got none: this model names none")
        return document

    def config(self, data: str | None) -> Config:
        """Return :meth:`document` read."""
        return parse_config(self.document(data))

    def images(self, data: DataConfig, *, test: bool, limit: int | None) -> tuple[Tensor, Tensor]:
        """Return images ``(N, C, H, W)`` and labels of a part of a dataset that the model fits.

        Raises:
            InputError: a model for other images or classes, or images that have changed since it
                was trained.
        """
        return self.part(data, test=test, limit=limit)[:2]

    def part(
        self, data: DataConfig, *, test: bool, limit: int | None
    ) -> tuple[Tensor, Tensor, str]:
        """Return :meth:`images`, and the checksum of the whole part that they are of."""
        split, classes, checksum = _images(data, self.checksums, test)
        images, labels = split.images(slice(limit)), split.labels[:limit]
        _check_fit(self.model, self.task, images, classes, data.name)
        return images, labels, checksum


def subject(target: str, wrapping: Wrapping = UNWRAPPED) -> Subject:
    """Return the model called ``target``: EXPORT_DIR, RUN:TRIAL or somebody's own.

    Args:
        target: a directory, a trial, or as of :func:`launch.runs.outside.own_model`.
        wrapping: of somebody's own.

    Raises:
        InputError: no such model, or a wrapping of one that psinas trained.
    """
    directory = Path(target)
    place, _, number = target.rpartition(":")
    trained = (directory / MODEL).exists() or (place and number.isdigit())
    if trained and wrapping:
        raise InputError(
            f"--weights, --mean, --std, --size: expected a model of your own, got {target}, which "
            "psinas trained with all that it needs"
        )
    if (directory / MODEL).exists():
        description = read_description(directory)
        known = {k: description["trial"][k] for k in ("data", "recipe", "metrics")}
        checksums = {known["data"]["name"]: description["trial"].get(DATA_CHECKSUM, {})}
        task = Task.from_dict(description["task"])
        return Subject(target, load(directory), task, known, checksums)
    if place and number.isdigit():
        return _of_trial(target, Run(place), int(number))
    if not place:
        raise InputError(
            "expected EXPORT_DIR, RUN:TRIAL, torchvision:NAME or pkg.module:callable, "
            f"got {target!r}"
        )
    model, made = own_model(target, wrapping)
    return Subject(target, model, None, {}, made=made)


def read_description(directory: Path) -> dict[str, Any]:
    """Return ``architecture.json`` of an export, whose code the user has said yes to.

    Raises:
        InputError: it is no description, or names code that is new here.
    """
    path = directory / "architecture.json"
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        modules = description.get("trial", {}).get("modules")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected the description of an export, got {error!r}") from error
    admit({**description, "modules": modules}, directory)
    return description


def _of_trial(target: str, run: Run, number: int) -> Subject:
    row = run.trial(number)
    known = {
        "data": asdict(row.trial.data),
        "recipe": asdict(row.trial.recipe),
        "metrics": run.config.resolved()["metrics"],
    }
    return Subject(target, trial_model(run, row), trial_task(run, row), known, run.checksums)


def trained_trials(run: Run) -> list[FinishedTrial]:
    """Return the complete trials of a run, the weights of all of which are there.

    Raises:
        InputError: no complete trial, or one whose weights are gone.
    """
    table = run.table()
    numbers = [int(n) for n in table[table["status"] == "complete"]["number"]]
    if not numbers:
        raise InputError(f"expected complete trials in {run.path}, got none")
    if gone := [str(n) for n in numbers if not (trial_directory(run.path, n) / WEIGHTS).exists()]:
        raise InputError(
            f"expected the weights of every trial in {run.path}, got none of {', '.join(gone)}: "
            f"`psinas replay {run.path} --trial N` trains one again"
        )
    return [run.trial(number) for number in numbers]


def trial_model(run: Run, row: FinishedTrial) -> nn.Module:
    """Return the trained model of a trial, in ``eval()``.

    Raises:
        InputError: its weights were not kept.
    """
    from safetensors.torch import load_file

    directory = trial_directory(run.path, row.number)
    if not (directory / WEIGHTS).exists():
        raise InputError(
            f"trial {row.number}: expected weights in {directory}, got none: "
            f"`psinas replay {run.path} --trial {row.number}` trains them again"
        )
    space = space_of(row.trial.architecture).without_files()
    model = space.build(row.trial.architecture, trial_task(run, row))
    model.load_state_dict(load_file(directory / WEIGHTS))
    return model.eval()


def trial_task(run: Run, row: FinishedTrial) -> Task:
    """Return the images and classes that a trial was trained for."""
    description = trial_directory(run.path, row.number) / "architecture.json"
    return Task.from_dict(json.loads(description.read_text(encoding="utf-8"))["task"])


def _images(
    config: DataConfig, known: Mapping[str, Mapping[str, str]], test: bool
) -> tuple[Split, int, str]:
    """Return the images of a part, the number of classes, and the part's checksum."""
    found = load_as_before(config, known, test=test)
    split = prepare_test(found, config) if test else prepare(found, config).validation
    checksum = part_checksum(config, found, test=test)
    return split, len(config.classes or found.class_names), checksum


def _check_fit(
    model: nn.Module, task: Task | None, images: torch.Tensor, classes: int, dataset: str
) -> None:
    shape = tuple(images.shape[1:])
    if task is not None and (task.shape, task.classes) != (shape, classes):
        raise InputError(
            f"expected images {task.shape} of {task.classes} classes, for which the model was "
            f"trained, got {dataset}: images {shape} of {classes} classes"
        )
    try:
        with torch.no_grad():
            logits = model(images[:2])
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise InputError(f"the model does not take images {shape}: {first_line(error)}") from error
    got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != (len(images[:2]), classes):
        raise InputError(
            f"expected {classes} logits an image, one for each class of {dataset}, got {got} for "
            f"{len(images[:2])} images"
        )
