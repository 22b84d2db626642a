"""Figure 1 of Cubuk et al.: errors of nets under FGSM, and the part that the paper fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import search_here
from torch.nn import functional

from launch.papers.cubuk.figure1 import STEPS, figure_1, small
from launch.papers.cubuk.nets import Measured, nets
from launch.runs.run import Run
from launch.show.reporter import Reporter
from metrics.universality import fit_counts

DOCUMENT = {
    "name": "published",
    "data": {"name": "digits", "limit": {"train": 300, "validation": 40, "test": 200}},
    "space": {"name": "feedforward", "kinds": ["dense"], "hidden_layers": [1], "units": [30]},
    "recipe": {"epochs": 8, "batch_size": 32, "adversary": "none", "selection_images": 0},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
    "keep": {"top": 9},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(search_here(tmp_path_factory.mktemp("published") / "run", DOCUMENT))


def test_errors_are_those_of_one_step(run):
    table = figure_1([run], Reporter()).table
    (net,) = nets(run)
    split, model = net.images("test"), net.model()
    x, y = split.images(slice(None)).clone().requires_grad_(), split.labels
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(x), y, reduction="sum"), x)
    right = model(x).argmax(1) == y
    assert table["epsilon"].tolist() == pytest.approx([step / 255 for step in STEPS])
    for row in table.to_dict("records"):
        moved = (x + row["epsilon"] * gradient.sign()).clamp(0, 1)
        broken = (right & (model(moved).argmax(1) != y)).double().mean().item()
        assert row["adversarial_error"] == pytest.approx(broken, abs=0.006)
    assert table["adversarial_error"].max() > 0.4


def test_the_papers_range_ends_at_a_fifth_of_a_255th():
    edges = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8]) / 255
    below = (np.diff(edges[:5], prepend=0) * 255 * 1000).round().astype(int).tolist()
    law = fit_counts(edges[:5], below, 1000)
    curves = [
        Measured(None, "FGSM", "test", 1.0, tuple(edges), (1.0,) * 7, (*below, *more), 1000, law)
        for more in ((100, 400), (0, 700), (20, 0))
    ]
    laws = [small(curve) for curve in curves]
    assert laws[0] == laws[1] == laws[2]
    assert laws[0].line == pytest.approx(1, abs=0.01)
    assert laws[0].events == 200
    assert small(replace(curves[0], clean=0.5)).events == 150  # at most a third of the plateau


@pytest.mark.parametrize(("epochs", "said"), [(8, "trained here, 8 epochs"), (0, "random")])
def test_what_the_weights_are_is_said(run, tmp_path, epochs, said):
    document = {**DOCUMENT, "recipe": {**DOCUMENT["recipe"], "epochs": epochs}}
    own = run if epochs else Run(search_here(tmp_path / "run", document))
    lines = figure_1([own], Reporter()).lines
    assert any(f"Weights are {said}" in line for line in lines)
    assert any("0.9 to 1.1" in line and "dense 30" in line for line in lines)
