"""The trained nets of a run, measured on training and test images: equations 6 to 8, once a net."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trained_trials, trial_model
from launch.show.reporter import Reporter
from metrics import correct
from metrics.stability import Share
from metrics.stability.scores import StabilityShares
from nas.data.arrays import Images, Split, prepare, prepare_test
from nas.data.datasets import load_images, load_test_images
from nas.device import choose_device
from nas.errors import InputError
from nas.files import read_kept, write_whole
from nas.seeds import settings_hash
from nas.trial.files import trial_directory

MEASURED = "stability.json"
PARTS = ("train", "test")


@dataclass(frozen=True)
class Measured:
    """One net on one part of its data.

    Attributes:
        number: of the trial.
        decisions: of the trial.
        problem: the names of its classes.
        part: ``train`` or ``test``.
        accuracy: right images, of all of the part.
        adversarial: equation 7, of as many images as the search's metric looks at.
        random: δ -> equation 8.
        sizes: the L2 lengths of the smallest attacks that were found.
        norms: mean and standard deviation of their L1, L2 and L infinity norms.
        pixels: n.
        draws: of the shared set.
        zero_gradients: right images whose gradient says nothing.
    """

    number: int
    decisions: Mapping[str, Any]
    problem: str
    part: str
    accuracy: Share
    adversarial: Share
    random: Mapping[float, Share]
    sizes: tuple[float, ...]
    norms: tuple[tuple[float, float], ...]
    pixels: int
    draws: int
    zero_gradients: int


def metric_of(run: Run) -> StabilityShares:
    """Return the run's stability metric, whose settings are those of the measurement.

    Raises:
        InputError: it has none.
    """
    for metric in run.config.built_metrics():
        if isinstance(metric, StabilityShares):
            return metric
    raise InputError(f"expected a metric stability in {run.path}, got none")


def measured(run: Run, report: Reporter) -> list[Measured]:
    """Return what was measured of every complete trial, on training and on test images.

    What has been measured under the same settings is read from the trial's directory.

    Raises:
        InputError: no complete trial, or one whose weights are gone.
    """
    metric, table = metric_of(run), run.table()
    rows = trained_trials(run)
    sources: dict[Any, tuple[Images, Images]] = {}
    found = []
    for place, row in enumerate(rows, start=1):
        data = row.trial.data
        key = settings_hash(
            {"trial": row.trial.key, "test": data.limit.test, "metric": metric.settings()}
        )
        path = trial_directory(run.path, row.number) / MEASURED
        kept = read_kept(path, key)
        if kept is None:
            if data.source not in sources:
                sources = {data.source: (load_images(data), load_test_images(data))}
            kept = _measure(run, row, metric, *sources[data.source])
            text = json.dumps({"key": key, **kept}) + "\n"
            write_whole(path, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        decisions = {name: table.loc[table["number"] == row.number, name].iloc[0]
                     for name in run.legend.decisions}  # fmt: skip
        both = [_read(row.number, decisions, part, kept, metric) for part in PARTS]
        found += both
        report.say(f"[{place}/{len(rows)}] trial {row.number}: " + _brief(both[1]))
    return found


def _measure(
    run: Run, row: FinishedTrial, metric: StabilityShares, train: Images, test: Images
) -> dict[str, Any]:
    device = choose_device()
    data, model = row.trial.data, trial_model(run, row).to(device)
    names = train.class_names if data.classes is None else [
        train.class_names[label] for label in data.classes
    ]  # fmt: skip
    parts = {
        "train": prepare(train, data, device).train,
        "test": prepare_test(test, data, device),
    }
    found = {name: _of_part(model, split, metric) for name, split in parts.items()}
    return {"problem": " / ".join(names), **found}


def _of_part(model: nn.Module, split: Split, metric: StabilityShares) -> dict[str, Any]:
    images = split.images()
    stable = metric.found(model, images, split.labels)
    right = correct(model, images, split.labels)
    return {
        "accuracy": [int(right.sum()), len(right)],
        "adversarial": [stable.adversarial.count, stable.adversarial.of],
        "random": [[share.count, share.of] for share in stable.random],
        "sizes": stable.size[stable.attacked].tolist(),
        "norms": [[_plain(v) for v in pair] for pair in stable.norms()],
        "pixels": stable.pixels,
        "zero_gradients": stable.zero_gradients,
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _read(
    number: int,
    decisions: Mapping[str, Any],
    part: str,
    kept: Mapping[str, Any],
    metric: StabilityShares,
) -> Measured:
    own = kept[part]
    norms = tuple(tuple(math.nan if v is None else v for v in pair) for pair in own["norms"])
    return Measured(
        number,
        decisions,
        kept["problem"],
        part,
        Share(*own["accuracy"]),
        Share(*own["adversarial"]),
        {d: Share(*s) for d, s in zip(metric.deltas, own["random"], strict=True)},
        tuple(own["sizes"]),
        norms,  # type: ignore[arg-type]
        own["pixels"],
        metric.draws,
        own["zero_gradients"],
    )


def _brief(found: Measured) -> str:
    random = ", ".join(f"δ={d:g}: {_percent(s.value)}" for d, s in found.random.items())
    return (
        f"{found.problem}, test: accuracy {_percent(found.accuracy.value)}, adversarial "
        f"{_percent(found.adversarial.value)}, random {random}"
    )


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.4g} %"


def medians(found: Sequence[Measured]) -> dict[str, float]:
    """Return the medians over nets of the shares (in percent) and of the mean L2 norms.

    Shares of nothing play no part.
    """
    columns = [row_of(row) for row in found]
    return {name: _median([column[name] for column in columns]) for name in columns[0]}


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def row_of(found: Measured) -> dict[str, float]:
    """Return one net's numbers by column: shares in percent."""
    return {
        "accuracy": 100 * found.accuracy.value,
        "adversarial": 100 * found.adversarial.value,
        **{f"random_{d:g}": 100 * share.value for d, share in found.random.items()},
        **{
            f"{norm}_{part}": value
            for norm, pair in zip(("l1", "l2", "linf"), found.norms, strict=True)
            for part, value in zip(("mean", "sd"), pair, strict=True)
        },
    }
