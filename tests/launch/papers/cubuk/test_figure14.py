"""Figure 14 of Cubuk et al.: the winners' cells, measured on their graphs and nets."""

from __future__ import annotations

import pytest
from helpers import one_line, search_here

from launch.papers.cubuk.figure14 import figure_14
from launch.papers.registry import REPRODUCTIONS
from launch.runs.run import Run
from launch.runs.subject import trial_model
from launch.show.reporter import Reporter
from search_spaces import NASNet, Task

DOCUMENT = {
    "data": {"name": "digits", "limit": {"train": 64, "validation": 20}},
    "space": {"name": "nasnet", "blocks": 3, "cells": 1, "filters": 2},
    "recipe": {"epochs": 0, "adversary": "none", "selection_images": 0},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "random"},
    "trials": 1,
    "retrain": {"scale": {"filters": 4}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return three searches of one untrained cell each."""
    place = tmp_path_factory.mktemp("cells")
    return [
        Run(search_here(place / name, {**DOCUMENT, "name": name, "seed": seed}))
        for seed, name in enumerate(["vanilla", "experiment1", "experiment2"])
    ]


@pytest.fixture(scope="module")
def view(runs):
    return figure_14(runs, Reporter())


def longest(cell, node):
    """Return the most blocks on a way from a source to a node, itself included."""
    before = [source for source, target, label in cell.edges if target == node and label]
    return 1 + max(longest(cell, source) for source in before) if before else 0


def test_length_and_width_are_those_of_the_drawn_graph(view, runs):
    for row, run in zip(view.table.to_dict("records"), runs, strict=True):
        architecture = run.trial(0).trial.architecture
        cell = NASNet(**dict(architecture.settings)).cell(architecture)
        end = len(cell.nodes) - 1
        ends = [source for source, target, _ in cell.edges if target == end]
        assert row["longest_path"] == max(longest(cell, source) for source in ends)
        assert row["width"] == len(ends)
        assert row["concat"] == cell.nodes.count("concat")
        assert {n: row[n] for n in dict(architecture.choices)} == dict(architecture.choices)


def test_parameters_are_counted_on_the_nets(view, runs):
    for row, run in zip(view.table.to_dict("records"), runs, strict=True):
        trial = run.trial(0)
        model = trial_model(run, trial)
        assert row["searched_parameters"] == sum(p.numel() for p in model.parameters())
        large = NASNet(**{**dict(trial.trial.architecture.settings), "filters": 4})
        grown = large.architecture(dict(trial.trial.architecture.choices))
        task = Task((1, 8, 8), 10, (0.5,), (0.5,))
        expected = sum(p.numel() for p in large.build(grown, task).parameters())
        assert row["parameters"] == expected > row["searched_parameters"]


def test_the_lines_compare_with_the_baseline_and_the_paper(view):
    baseline, *others = view.table.to_dict("records")
    for row in others:
        (line,) = [line for line in view.lines if line.startswith(f"{row['search']} against")]
        long, base = row["longest_path"], baseline["longest_path"]
        assert ("longer" in line, "shorter" in line) == (long > base, long < base)
        wide, base = row["width"], baseline["width"]
        assert ("narrower" in line, "wider" in line) == (wide < base, wide > base)
        assert f"; {row['parameters'] / baseline['parameters']:.2f} times" in line
    text = "\n".join(view.lines)
    for paper, row in zip(("4.9 M", "2.3 M", "3.5 M"), (baseline, *others), strict=True):
        (line,) = [line for line in view.lines if line.startswith(f"{row['search']}  ")]
        assert paper in line
    assert "longer and narrower than its baseline" in text


def test_every_cell_is_drawn_under_its_name(view, runs):
    assert len(view.figure.axes) == 3
    for axes, run in zip(view.figure.axes, runs, strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert texts[-1] == f"{run.config.name}, trial 0"
        assert texts.count("output") == 1


def test_a_space_without_such_cells_is_refused_before_the_search(psinas, tmp_path):
    assert not REPRODUCTIONS["cubuk-figure14"].retrained
    arguments = ("reproduce", "cubuk-figure14", "--quick", "--out", tmp_path / "runs")
    one_line(psinas(*arguments, "--set", "space={name: nasbench201}"), "block1_combine")
    assert not (tmp_path / "runs").exists()
