"""The front under attack for a report: numbers, what is kept of them, and what is said."""

from __future__ import annotations

import base64
import io
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import TINY, search_here
from PIL import Image
from safetensors.torch import load_file, save_file

from launch.report.contents import write_report
from launch.report.findings import gather
from launch.report.sections import cells, examples, robustness
from launch.runs import asked as module
from launch.runs.asked import CURVE
from launch.runs.attacked import Attacked, attacked
from launch.runs.pictured import MOST, Example, Examples, pictures, png
from launch.runs.run import Run
from metrics.robustness.accuracy import wilson
from nas.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", TINY)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "tiny")


def refuse(*_arguments, **_settings):
    raise AssertionError("attacked again")


def test_curves_begin_at_clean_accuracy_and_never_rise(run):
    found = attacked(Run(run), seconds=math.inf)
    table = Run(run).table().set_index("number")
    assert found.winner == Run(run).best().number == found.curves[0].number
    assert len(found.curves) > 1
    for curve in found.curves:
        assert curve.images == 60
        assert curve.epsilons[0] == 0
        assert curve.accuracies[0] == pytest.approx(table["clean_accuracy"][curve.number])
        assert list(curve.accuracies) == sorted(curve.accuracies, reverse=True)
        assert curve.intervals[0] == wilson(curve.accuracies[0], 60)
        at = curve.epsilons.index(0.1)  # of training: more steps break no fewer
        assert curve.accuracies[at] <= table["pgd_accuracy"][curve.number] + 2 / 60
    assert found.examples is not None
    assert found.examples.looked_at == 48 >= found.examples.right >= found.examples.broken
    fooled = [example.fools for example in found.examples.found]
    assert sum(fooled) == min(4, found.examples.broken)
    assert len(fooled) - sum(fooled) == min(2, found.examples.right - found.examples.broken)
    for example in found.examples.found:
        assert example.clean == example.label
        assert 0 < example.sure <= 1


def test_what_was_measured_is_read_unless_the_weights_changed(run, monkeypatch):
    first = attacked(Run(run), seconds=math.inf)
    monkeypatch.setattr(module, "accuracy_curve", refuse)
    assert attacked(Run(run), seconds=math.inf) == first
    weights = run / "trials" / str(first.winner) / "weights.safetensors"
    changed = {k: v + 0.25 if v.is_floating_point() else v for k, v in load_file(weights).items()}
    save_file(changed, weights)
    with pytest.raises(AssertionError, match="attacked again"):
        attacked(Run(run), seconds=math.inf)


def test_no_seconds_attack_nothing_and_say_so(run):
    found = attacked(Run(run), seconds=0)
    assert found.curves == ()
    assert found.examples is None
    assert all("--seconds gives more" in text for text in found.said)
    assert not list(run.glob(f"trials/*/{CURVE}"))


def test_fewer_seconds_attack_fewer_images_and_more_seconds_measure_again(run, monkeypatch):
    real, calls = module.accuracy_curve, []

    def slow(model, x, *rest, **settings):
        calls.append(len(x))
        if len(x) > module.FIRST:
            raise module.TimeUp(1.0)
        return real(model, x, *rest, **settings)

    monkeypatch.setattr(module, "accuracy_curve", slow)
    found = attacked(Run(run), seconds=1000)
    assert {curve.images for curve in found.curves} == {module.FIRST}
    monkeypatch.setattr(module, "accuracy_curve", real)
    assert attacked(Run(run), seconds=1000).curves == found.curves  # no more than before
    assert {c.images for c in attacked(Run(run), seconds=math.inf).curves} == {60}


def test_weights_that_are_gone_and_data_that_are_not_there_are_said(run, monkeypatch):
    winner = Run(run).best().number

    def gone(*_arguments, **_settings):
        raise InputError("expected the digits, got nothing")

    monkeypatch.setattr(module, "load_as_before", gone)
    found = attacked(Run(run), seconds=math.inf)
    assert found.curves == ()
    assert "not attacked: expected the digits, got nothing" in found.said[0]
    for file in run.glob("trials/*/weights.safetensors"):
        file.unlink()
    found = attacked(Run(run), seconds=math.inf)
    assert found.said[0].startswith("Weights of trial")
    assert f" {winner}" in found.said[0]
    assert "were not kept: `psinas replay" in found.said[0]


def test_code_that_was_not_trusted_is_not_run(run, monkeypatch):
    def new(*_arguments):
        raise InputError("names code that you have not searched with")

    monkeypatch.setattr("launch.config.trust.admit", new)
    found = attacked(Run(run), seconds=math.inf)
    assert found == Attacked(
        said=("No model was asked: names code that you have not searched with.",)
    )


def test_pictures_are_what_was_attacked():
    grey = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]])
    image, added, worst = (
        np.array(Image.open(io.BytesIO(base64.b64decode(text))))
        for text in pictures(grey, grey + torch.tensor([[[0.02, 0.0], [-0.06, 0.01]]]))
    )
    assert image.tolist() == [[0, 128], [255, 64]]
    assert added.tolist() == [[178, 128], [0, 153]]  # 255 (.5 + 10 d), cut at 0
    assert worst.tolist() == [[5, 128], [240, 66]]
    colour = np.array(Image.open(io.BytesIO(base64.b64decode(png(torch.rand(3, 4, 5))))))
    assert colour.shape == (4, 5, 3)
    large = Image.open(io.BytesIO(base64.b64decode(png(torch.rand(1, 300, 600)))))
    assert large.size == (MOST, MOST // 2)


def test_sections_of_a_run_and_of_none(run):
    found = gather([run], seconds=1000)
    assert robustness.make(found).id == "robustness"
    assert cells.make(found).blocks[0].blocks[0].columns[0] == "layer"
    for section in (robustness, cells, examples):
        assert section.make(gather([run])) is None
    write_report([run], seconds=1000)
    with_models = (run / "report.html").read_text(encoding="utf-8")
    write_report([run])
    without = (run / "report.html").read_text(encoding="utf-8")
    assert "ten times the perturbation" in with_models
    assert "ten times the perturbation" not in without


def test_names_of_classes_are_no_markup(run):
    found = gather([run], seconds=0)
    evil = "<img src=x onerror=alert(1)>\"'"
    example = Example(evil, evil, evil, 0.9, 0.5, ("AA", "AA", "AA"), (8, 8))
    attack = Examples(0, "PGD", 0.1, (example,), 1, 1, 1)
    found.__dict__["attacked"] = {"tiny": Attacked(0, (), attack)}
    (_, raw) = examples.make(found).blocks
    assert "<img src=x" not in raw.markup
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;" in raw.markup


def test_cells_of_the_front_are_drawn_once_and_told_by_trial(tmp_path):
    document = {
        **TINY,
        "name": "cells",
        "space": {"name": "nasbench201", "filters": 4, "cells": 1},
        "objectives": {"pgd_accuracy": "max", "parameters": "min"},
        "metrics": ["clean", {"name": "pgd", "steps": 1}, "cost"],
        "sampler": {"name": "random"},
        "trials": 3,
    }
    run = search_here(tmp_path / "cells", document)
    found = gather([run], seconds=0)
    table = found.complete
    beaten = [
        any(
            other.pgd_accuracy >= row.pgd_accuracy
            and other.parameters <= row.parameters
            and (other.pgd_accuracy, other.parameters) != (row.pgd_accuracy, row.parameters)
            for other in table.itertuples()
        )
        for row in table.itertuples()
    ]
    on = {("cells", int(n)) for n, worse in zip(table["number"], beaten, strict=True) if not worse}
    assert set(found.drawn) == on
    assert all(s.startswith("data:image/svg+xml;base64,") for s in found.drawn.values())
    section = cells.make(found)
    assert [block.markup.count("<img") for block in section.blocks] == [1] * len(on)
    assert "the winner" in section.blocks[0].caption
