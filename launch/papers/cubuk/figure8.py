"""Figures 8 and 15 of Cubuk et al. 2017: test images that fool a robust winner, and that do not.

The images are changed by FGSM at the epsilon of training, on the winner of Experiment 1, which was
searched for its accuracy under FGSM; the baseline is asked about the very same images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from launch.papers.cubuk.winners import Winner, retrained_winner
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics import FGSM, minimal_fgsm
from metrics.answers import logits_of
from metrics.robustness.accuracy import standard_error
from nas.data.arrays import chosen_test_indices
from nas.data.datasets import load_test_images
from nas.files import read_kept, write_whole
from nas.seeds import settings_hash

MEASURED = "examples.json"
AT_ONCE = 256
LIMIT, TOLERANCE = 100 / 255, 0.1 / 255  # of the smallest epsilon
FEW, MANY = (2, 5), (4, 10)  # rows of each kind, and pictures in one
FOOLED, WITHSTOOD = "fools", "does not fool"


@dataclass(frozen=True)
class Examples:
    """What a winner and a baseline answer to test images and to their adversarial versions.

    Attributes:
        winner, baseline: the nets.
        epsilon: of FGSM, by the winner's gradients.
        class_names: of the labels.
        table: one row an image, in the order of :meth:`Winner.test_images`: ``index`` among the
            dataset's test images, ``label``; of each net ``_clean`` and ``_adversarial``, its
            answers to the image and to its adversarial version, ``_confidence`` and
            ``_adversarial_confidence``, their probabilities, and ``_epsilon``, the smallest at
            which FGSM by its own gradients was seen to fool it: 0 where it is wrong already,
            infinity where none was found.
    """

    winner: Winner
    baseline: Winner
    epsilon: float
    class_names: tuple[str, ...]
    table: pd.DataFrame

    def kind(self) -> pd.Series:
        """Return of each image ``fools`` or ``does not fool``, ``""`` where it is wrong clean."""
        table = self.table
        right = table["winner_clean"] == table["label"]
        fooled = table["winner_adversarial"] != table["label"]
        return pd.Series(np.where(right, np.where(fooled, FOOLED, WITHSTOOD), ""), table.index)


def figure_8(runs: Sequence[Run], report: Reporter) -> View:
    """Return a few adversarial images that fool the winner of Experiment 1, and a few that do not.

    Args:
        runs: of the baseline, and of the experiment.
        report: unused.
    """
    return _view(examples(runs[1], runs[0]), FEW)


def figure_15(runs: Sequence[Run], report: Reporter) -> View:
    """Return many of the images of :func:`figure_8`."""
    return _view(examples(runs[1], runs[0]), MANY)


def examples(experiment: Run, baseline: Run) -> Examples:
    """Return what both retrained winners answer, kept in the directory of the experiment's.

    Raises:
        InputError: a winner that has not been retrained.
    """
    winner, other = retrained_winner(experiment), retrained_winner(baseline)
    epsilon, data = winner.trial.trial.recipe.epsilon, winner.trial.trial.data
    key = settings_hash(
        {
            "trial": winner.trial.trial.key,
            "baseline": other.trial.trial.key,
            "images": winner.row.images,
            "epsilon": epsilon,
            "limit": [LIMIT, TOLERANCE],
        }
    )
    images = load_test_images(data)
    kept = read_kept(winner.path / MEASURED, key)
    if kept is None:
        kept = {"key": key, "columns": _measure(winner, other, epsilon)}
        text = json.dumps(kept) + "\n"
        write_whole(
            winner.path / MEASURED, lambda partial: partial.write_text(text, encoding="utf-8")
        )
    index = chosen_test_indices(images, data)[: winner.row.images]
    columns = {
        name: [math.inf if value is None else value for value in values]
        for name, values in kept["columns"].items()
    }
    names = images.class_names
    chosen = names if data.classes is None else tuple(names[label] for label in data.classes)
    table = pd.DataFrame({"index": index, **columns})
    return Examples(winner, other, epsilon, chosen, table)


def _measure(winner: Winner, baseline: Winner, epsilon: float) -> dict[str, list[Any]]:
    images, labels = winner.test_images()
    models = {"winner": winner.model(), "baseline": baseline.model()}
    adversarial = _adversarial(models["winner"], images, labels, epsilon)
    columns = {"label": labels.tolist()}
    for name, model in models.items():
        for shown, end in ((images, ""), (adversarial, "adversarial_")):
            answers, confidences = _answers(model, shown)
            columns[f"{name}_{end or 'clean_'}".rstrip("_")] = answers.tolist()
            columns[f"{name}_{end}confidence"] = confidences.tolist()
        sizes = minimal_fgsm(model, images, labels, limit=LIMIT, tolerance=TOLERANCE).size
        columns[f"{name}_epsilon"] = [
            size if math.isfinite(size) else None for size in sizes.tolist()
        ]
    return columns


def _adversarial(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    attack = FGSM(epsilon=epsilon)
    parts = zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    return torch.cat([attack(model, x, y) for x, y in parts])


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` twice: the most probable classes, and their probabilities."""
    logits = torch.cat([logits_of(model, x) for x in images.split(AT_ONCE)])
    confidences, answers = logits.softmax(dim=1).max(dim=1)
    return answers, confidences


# ------------------------------------------------------------------------------------------ a view


def _view(found: Examples, shape: tuple[int, int]) -> View:
    kind = found.kind()
    rows, across = shape
    shown = {k: list(kind.index[kind == k][: rows * across]) for k in (FOOLED, WITHSTOOD)}
    everywhere = [place for places in shown.values() for place in places]
    table = found.table.assign(kind=kind, shown=found.table.index.isin(everywhere))
    return View(table, _lines(found, kind, shown), _picture(found, shown, across))


def _lines(found: Examples, kind: pd.Series, shown: Mapping[str, Sequence[int]]) -> list[str]:
    table, n, size = found.table, len(found.table), 255 * found.epsilon
    fooled, held = (int((kind == k).sum()) for k in (FOOLED, WITHSTOOD))
    lines = [
        f"Adversarial: FGSM of epsilon {size:.3g}/255 by the gradients of {found.winner.name}; the "
        "baseline is asked about the same images.",
        f"{found.winner.name} is right on {fooled + held} of {n} test images; of these an "
        f"adversarial version fools it on {fooled} and does not on {held}.",
        f"The picture has {len(shown[FOOLED])} that fool it, and below {len(shown[WITHSTOOD])} "
        "that do not, the first of each kind; the table has all. The paper's choice is not known.",
    ]
    right = table["label"]
    for title, rows in (("that fool it", kind == FOOLED), ("that do not", kind == WITHSTOOD)):
        if not (count := int(rows.sum())):
            continue
        share = float((table["baseline_adversarial"] == right)[rows].mean())
        error = standard_error(share, count)
        same = (table["baseline_adversarial"] == table["winner_adversarial"])[rows]
        sure = table["winner_adversarial_confidence"][rows].mean()
        lines.append(
            f"Of the {count} {title}: the mean probability of the winner's answer is {sure:.2f}; "
            f"{found.baseline.name} is right on {100 * share:.1f} ± {100 * error:.1f} %, and gives "
            f"the same answer on {100 * same.mean():.1f} %."
        )
    for name, net in (("winner", found.winner), ("baseline", found.baseline)):
        sizes = table[f"{name}_epsilon"][table[f"{name}_clean"] == right]
        lines.append(
            f"Smallest epsilon of FGSM that was seen to fool {net.name}, median over the "
            f"{len(sizes)} images that it gets right: {255 * sizes.median():.3g}/255."
        )
    return lines


def _picture(found: Examples, shown: Mapping[str, Sequence[int]], across: int) -> Figure:
    """Return adversarial images in rows: those that fool the winner, then those that do not."""
    groups = [
        places[i : i + across] for places in shown.values() for i in range(0, len(places), across)
    ]
    figure = Figure(figsize=(1.7 * across, 2.3 * max(len(groups), 1)), layout="constrained")
    grid = figure.subplots(max(len(groups), 1), across, squeeze=False)
    every = [place for places in groups for place in places]
    records = found.table.to_dict("records")
    if every:
        images, labels = found.winner.test_images()
        model = found.winner.model()
        pixels = _adversarial(model, images[every], labels[every], found.epsilon).cpu()
    for axes in grid.flat:
        axes.set_axis_off()
    for line, places in zip(grid, groups, strict=False):
        for axes, place in zip(line, places, strict=False):
            _example(axes, found, pixels[every.index(place)], records[place])
    return figure


def _example(axes: Axes, found: Examples, pixels: Tensor, row: Mapping[Any, Any]) -> None:
    """Draw one image ``(C, H, W)`` under its class and what the nets say to it."""
    names = found.class_names
    picture = pixels.permute(1, 2, 0).numpy()
    axes.imshow(
        picture[..., 0] if picture.shape[-1] == 1 else picture[..., :3], "gray", vmin=0, vmax=1
    )
    said = [f"{row['index']}: {names[row['label']]}"]
    for name in ("winner", "baseline"):
        answer = names[row[f"{name}_adversarial"]]
        said.append(f"{name} {answer} {100 * row[f'{name}_adversarial_confidence']:.0f} %")
    wrong = row["winner_adversarial"] != row["label"]
    axes.set_title("\n".join(said), fontsize=7, color="#a02020" if wrong else "black")
