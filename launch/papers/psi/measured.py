"""The trained nets of a run, measured on the test images that all of them get right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from launch.runs.run import Run
from launch.runs.subject import trial_model
from launch.show.reporter import Reporter
from nas.analysis.common_correct import CommonCorrect, common_correct, measure, recorded_common
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images
from nas.device import choose_device
from nas.errors import InputError
from nas.trial.files import WEIGHTS, trial_directory

MEASURED = (
    "psi", "psi_low", "psi_high", "psi_saturated", "psi_limit", "radius_mean", "radius_min",
    "doubtful",
)  # fmt: skip
INPUTS = 100  # common-correct images that Ψ̂ is the mean of


@dataclass(frozen=True)
class Trained:
    """The trained models of a run, measured on the inputs that all of them get right.

    Attributes:
        table: one row a model: decisions, test accuracy, Ψ̂ and its interval, limit.
        radii: of the ladder.
        psi_at, accuracy_at: ``(models, radii)``: Ψ̂ and post-attack accuracy.
        common: the inputs.
        decisions: what tells the models apart.
    """

    table: pd.DataFrame
    radii: list[float]
    psi_at: np.ndarray
    accuracy_at: np.ndarray
    common: CommonCorrect
    decisions: list[str]

    def about(self) -> list[str]:
        """Say what the models were compared on."""
        used, found = len(self.common.indices), self.common
        lines = [
            f"{len(found.models)} models on {used} of the {found.correct} test images (of "
            f"{found.images}) that all of them get right"
        ]
        for number, accuracy in found.left_out.items():
            lines.append(
                f"trial {number} left out: its test accuracy of {accuracy:.3g} is hardly better "
                "than guessing"
            )
        for number, count in zip(self.table["number"], self.table["doubtful"], strict=True):
            if count:
                lines.append(
                    f"trial {number}: {count} of {used * len(self.radii)} ψ are 0, not finite, or "
                    "lost in rounding"
                )
        return lines


def trained_models(run: Run, report: Reporter) -> Trained:
    """Measure every trained model of a run on the common-correct test images.

    Raises:
        InputError: weights that were not kept, or no common inputs.
    """
    device, config, path = choose_device(), run.config, run.path
    table = run.table()
    table = table[table["status"] == "complete"]
    rows = {int(n): run.trial(int(n)) for n in table["number"]}
    if gone := [str(n) for n in rows if not (trial_directory(path, n) / WEIGHTS).exists()]:
        raise InputError(
            f"expected the weights of every trial in {path}, got none of {', '.join(gone)}: "
            f"`psinas replay {path} --trial N` trains one again"
        )
    models = {n: trial_model(run, row).to(device) for n, row in rows.items()}
    test = prepare_test(load_test_images(config.data), config.data, device)
    images = test.images()
    key = "-".join([config.data.hash, str(INPUTS), *(row.trial.key for row in rows.values())])
    common = recorded_common(
        path, models, key, lambda: common_correct(models, images, test.labels, INPUTS)
    )
    chosen = images[list(common.indices)]
    measured = {}
    for place, number in enumerate(common.models, start=1):
        measured[number] = measure(path, number, models[number], chosen, common.hash)
        report.say(
            f"[{place}/{len(common.models)}] trial {number}: Ψ̂ {measured[number]['psi']:.4g} on "
            f"{len(chosen)} common images"
        )
    decisions = list(run.legend.decisions)
    found = table[table["number"].isin(list(measured))][["number", *decisions]].copy()
    found["test_accuracy"] = [common.models[n] for n in found["number"]]
    for name in MEASURED:
        found[name] = [measured[n][name] for n in found["number"]]
    psi_at, accuracy_at = (
        np.array([measured[n][name] for n in found["number"]]) for name in ("psi_at", "accuracy_at")
    )
    radii = next(iter(measured.values()))["radii"]
    return Trained(found, radii, psi_at, accuracy_at, common, decisions)
