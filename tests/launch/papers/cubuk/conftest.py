"""Three tiny searches whose winners were retrained, as Figure 7 has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from launch.papers.registry import REPRODUCTIONS
from launch.runs.run import Run

TRAININGS = {"vanilla": "none", "experiment1": "step-ll", "experiment2": "pgd"}
DOCUMENT = {
    "data": {"name": "digits", "classes": [7, 3, 8, 1], "limit": {"train": 200, "validation": 40}},
    "space": {"name": "depth-channels", "depth": [1, 2], "channels": [6], "stem": "small"},
    "recipe": {"epochs": 1, "batch_size": 32, "epsilon": 0.1, "steps": 2, "selection_images": 0},
    "metrics": ["clean", "fgsm"],
    "sampler": {"name": "grid"},
    "trials": None,
    "retrain": {
        "recipe": {"epochs": 8},
        "data": {"limit": {"train": 200}},
        "recipes": [{"learning_rate": 0.1}],
        "test_images": 60,
    },
}


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cubuk")


@pytest.fixture
def figure_7(place, psinas, in_process, monkeypatch):
    """Return a function that reproduces Figure 7 of the tiny searches, and returns its output."""
    sources = []
    for name, adversary in TRAININGS.items():
        recipe = {**DOCUMENT["recipe"], "adversary": adversary}
        score = "clean_accuracy" if adversary == "none" else "fgsm_accuracy"
        own = {"name": name, "recipe": recipe, "objectives": {score: "max"}}
        sources.append(str(place / f"{name}.yaml"))
        (place / f"{name}.yaml").write_text(yaml.safe_dump({**DOCUMENT, **own}))
    made = replace(REPRODUCTIONS["cubuk-figure7"], searches=tuple(sources), quick={})
    monkeypatch.setitem(REPRODUCTIONS, "cubuk-figure7", made)

    def reproduce():
        code, printed, err = psinas("reproduce", "cubuk-figure7", "--out", place / "runs")
        assert code == 0, err
        return printed

    return reproduce


@pytest.fixture
def runs(place, figure_7):
    """Return the runs, which the first test that asks for them searches and retrains."""
    if not (place / "runs" / "cubuk-figure7.csv").exists():
        figure_7()
    return [Run(place / "runs" / name) for name in TRAININGS]
