"""Scores of a finished model on test images: an export, a trial, or anybody's callable."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from launch.config.config import Config, parse_config
from launch.config.metrics import Entry, metric_settings, without_epsilon
from launch.runs.run import FinishedTrial, Run
from metrics.metric import Metric
from metrics.robustness.scores import Suspicion
from nas.data.arrays import Split, prepare, prepare_test
from nas.data.config import DataConfig
from nas.data.datasets import load_images, load_test_images
from nas.errors import InputError, first_line
from nas.export.export import MODEL
from nas.names import find
from nas.seeds import derive_seed
from nas.trial.files import WEIGHTS, trial_directory
from nas.trial.scoring import metric_key, score
from search_spaces import Task, load, space_of


@dataclass(frozen=True)
class Scored:
    """Scores, and what they are of.

    Attributes:
        scores: of the model.
        of: ``model``, ``dataset``, ``split``, ``images`` (how many), ``seed``, and ``metrics``:
            each one's name, settings and ``images``.
    """

    scores: dict[str, float]
    of: dict[str, Any]

    def to_json(self) -> str:
        """Return scores, and ``of``, as strict JSON: a number that is not finite is null."""
        finite = {k: v if math.isfinite(v) else None for k, v in self.scores.items()}
        return json.dumps({**finite, "of": self.of}, indent=2, allow_nan=False)


def score_model(
    target: str,
    *,
    data: str | None,
    metrics: str | None,
    epsilon: str | None,
    test: bool,
    limit: int | None,
    seed: int,
    suspicion: bool = False,
) -> Scored:
    """Return the scores of a model.

    Args:
        target: an export's directory, ``RUN:TRIAL`` or ``pkg.module:callable``, which returns a
            module that maps images in [0, 1] to logits.
        data: dataset; None is what the model was trained on.
        metrics: comma-separated names, or a YAML list; None is what the search measured.
        epsilon: L infinity radius of attacks that name none; None is the recipe's. An attack in L2
            names its own.
        test: use test images, else the validation images of the search.
        limit: at most so many images.
        seed: of random starts.
        suspicion: also score the suspicion flags.

    Raises:
        InputError: no such model, dataset or metric, or images that do not fit the model.
    """
    model, task, known = _model(target)
    document: dict[str, Any] = {"objectives": {"train_seconds": "min"}, **known}
    if data is not None:
        same = known.get("data", {}).get("name") == data
        document["data"] = {**(known["data"] if same else {}), "name": data}
    elif "data" not in known:
        raise InputError("--data: expected a dataset, got none: this model names none")
    if metrics is not None:
        document["metrics"] = _metrics(metrics)
    elif epsilon is not None:  # the metrics that the search measured carry its epsilon
        document["metrics"] = [
            without_epsilon(metric) for metric in known.get("metrics", ())
        ] or Config().metrics
    if epsilon is not None:
        document["recipe"] = {"epsilon": epsilon}
    config = parse_config(document)
    if suspicion and not any(isinstance(m, Suspicion) for m in config.built_metrics()):
        config = parse_config({**document, "metrics": [*config.metrics, "suspicion"]})
    split, classes = _images(config.data, test)
    images, labels = split.images(slice(limit)), split.labels[:limit]
    _check_fit(model, task, images, classes, config.data.name)
    named = _of_finished_models(config, asked=metrics is not None)
    seeds = {metric_key(m): derive_seed(seed, metric_key(m)) for _, m in named}
    n = len(labels)
    of = {
        "model": target,
        "dataset": config.data.name,
        "split": "test" if test else "validation",
        "images": n,
        "seed": seed,
        "metrics": [{**metric_settings(e, m), "images": min(n, m.limit or n)} for e, m in named],
    }
    return Scored(score(model, images, labels, tuple(m for _, m in named), seeds), of)


def _model(target: str) -> tuple[nn.Module, Task | None, dict[str, Any]]:
    """Return the model, its task, and what is known of its data, recipe and metrics."""
    directory = Path(target)
    if (directory / MODEL).exists():
        description = json.loads((directory / "architecture.json").read_text())
        known = {k: description["trial"][k] for k in ("data", "recipe", "metrics")}
        return load(directory), Task.from_dict(description["task"]), known
    place, _, number = target.rpartition(":")
    if place and number.isdigit():
        return _trial_model(Run(place), int(number))
    if not place:
        raise InputError(f"expected EXPORT_DIR, RUN:TRIAL or pkg.module:callable, got {target!r}")
    found: Any = find(target, {}, "model")
    model = found() if callable(found) and not isinstance(found, nn.Module) else found
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{target}: expected a callable that returns a torch module, got {model!r}"
        )
    return model.eval(), None, {}


def _trial_model(run: Run, number: int) -> tuple[nn.Module, Task, dict[str, Any]]:
    row = run.trial(number)
    model = trial_model(run, row)
    return (
        model,
        _task(run, row),
        {
            "data": asdict(row.trial.data),
            "recipe": asdict(row.trial.recipe),
            "metrics": run.config.resolved()["metrics"],
        },
    )


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
    model = space.build(row.trial.architecture, _task(run, row))
    model.load_state_dict(load_file(directory / WEIGHTS))
    return model.eval()


def _task(run: Run, row: FinishedTrial) -> Task:
    description = trial_directory(run.path, row.number) / "architecture.json"
    return Task.from_dict(json.loads(description.read_text())["task"])


def _metrics(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [name.strip() for name in text.split(",")]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--metrics: expected a YAML list, got {text!r}") from error


def _of_finished_models(config: Config, *, asked: bool) -> Sequence[tuple[Entry, Metric]]:
    """Return entries and metrics, none of an earlier stage of training; refuse asked-for ones."""
    built = list(zip(config.metrics, config.built_metrics(), strict=True))
    early = [m.prefix for _, m in built if m.stage != "end"]
    if asked and early:
        raise InputError(
            f"--metrics: expected metrics of a finished model, got {', '.join(early)}, measured "
            "before or during training"
        )
    if not (finished := [(entry, m) for entry, m in built if m.stage == "end"]):
        raise InputError(
            f"expected metrics of a finished model, got only {', '.join(early)}: name some with "
            "--metrics"
        )
    return finished


def _images(config: DataConfig, test: bool) -> tuple[Split, int]:
    """Return the images of a part, and the number of classes."""
    found = load_test_images(config) if test else load_images(config)
    split = prepare_test(found, config) if test else prepare(found, config).validation
    return split, len(config.classes or found.class_names)


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
