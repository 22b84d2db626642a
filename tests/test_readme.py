"""Every command that README shows is run, on searches made small, and its Python too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml

import launch.config.config as configuration
from launch.config.documents import read_document

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.S | re.M)
SHOWN = [
    shlex.split(line, comments=True)[1:]
    for kind, text in BLOCKS
    for line in text.splitlines()
    if kind == "bash" and line.startswith("psinas ")
]
IN_PROSE = re.findall(r"`psinas ([^`]*)`", README)
DIGITS = {"name": "digits", "limit": {"train": 96, "validation": 40, "test": 40}}
PSI = {
    "space": {"name": "depth-channels", "depth": [2, 3], "channels": [8, 16], "stem": "small"},
    "recipe": {"epochs": 6, "batch_size": 32, "adversary": "none"},
    "data": {"name": "digits", "limit": {"train": 700, "validation": 60, "test": 120}},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
}

SUTTON = {
    "space": {"name": "vgg-lite", "blocks": [2], "filters": [4], "units": [8], "dropout": [0.4]},
    "recipe": {"epochs": 2, "batch_size": 16, "adversary": "none", "selection_images": 0},
    "data": DIGITS,
    "vary": {"data.classes": [[0, 1], [1, 2]]},
    "metrics": ["clean", {"name": "stability", "limit": 8, "draws": 4, "scalings": 16}],
    "objectives": {"clean_accuracy": "max"},
}

PECK = {
    "space": {"name": "depth-channels", "depth": [1], "channels": [4], "stem": "small"},
    "recipe": {"epochs": 2, "batch_size": 32, "adversary": "none", "selection_images": 0},
    "data": DIGITS,
    "metrics": ["clean", {"name": "bracket", "limit": 4, "budget": 20}],
    "objectives": {"clean_accuracy": "max"},
}

METRICS = [
    "clean", "fgsm", {"name": "pgd", "steps": 2}, "step-ll", {"name": "psi", "limit": 4}, "cost",
    {"name": "suspicion", "limit": 8, "queries": 5, "draws": 2},
]  # fmt: skip


def small(source):
    """Return a preset or file in small: a handful of trials of a tenth of a second."""
    document = read_document(source)
    if "made_with" in document:
        return document
    if document["name"].startswith("psi-"):
        return {**document, **PSI}
    if document["name"].startswith("sutton-"):
        return {**document, **SUTTON}
    if document["name"].startswith("peck-"):
        return {**document, **PECK}
    recipe = {"epochs": 1, "steps": 1, "batch_size": 32, "selection_images": 16}
    document["data"] = {**DIGITS}
    document["recipe"] = {**document.get("recipe", {}), **recipe}
    document["trials"] = 4
    document["metrics"] = METRICS
    document.pop("vary", None)
    if document["space"]["name"] == "nasnet":
        document["space"] = {"name": "nasnet", "blocks": 2, "cells": 1, "filters": 4}
        document["sampler"] = {"name": "random"}
        document["metrics"] = ["clean", "fgsm", {"name": "pgd", "steps": 1}, "cost"]
    if document.get("retrain"):
        few = {"recipe": {"epochs": 1}, "recipes": [{"learning_rate": 0.1}], "test_images": 20}
        some = {"limit": {"train": 64, "validation": 6}}
        document["retrain"] = {**few, "scale": {"filters": 6}, "data": some}
    return document


@pytest.fixture
def in_small(monkeypatch, in_process, tmp_path):
    """Let every configuration be small, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "read_document", small)
    monkeypatch.setattr(
        "launch.runs.retrain.default_recipes", lambda recipe: [{"learning_rate": 0.1}]
    )
    text = next(text for kind, text in BLOCKS if kind == "yaml")
    (tmp_path / "my-search.yaml").write_text(text)
    cell = "|nor_conv_3x3~0|+|{}~0|none~1|+|skip_connect~0|none~1|none~2|"
    names = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")
    table = pd.DataFrame({"cell": map(cell.format, names), "COLUMN": [0.1, 0.2, 0.3, 0.4, 0.5]})
    table.to_csv("TABLE.csv", index=False)
    return tmp_path


def test_every_command_that_readme_shows_runs(in_small, psinas):
    assert len(SHOWN) >= 19
    for arguments in SHOWN:
        if "--address" in arguments:
            continue  # needs a cluster
        if "table-search" in arguments:
            arguments = [*arguments, "--samplers", "random", "--seeds", "1", "--workers", "1"]
        wanted = [a for a in arguments if a != "recipe.epochs=20"]
        code, out, err = psinas(*_paired(wanted))
        assert code == 0, (arguments, out[-500:], err)


def _paired(arguments):
    """Drop a --set whose value was dropped."""
    kept = []
    for place, argument in enumerate(arguments):
        following = arguments[place + 1] if place + 1 < len(arguments) else "--"
        if argument == "--set" and following.startswith("--"):
            continue
        kept.append(argument)
    return kept


@pytest.mark.parametrize(
    "page", sorted((Path(__file__).parents[1] / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_configurations_on_other_pages_are_accepted(page):
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        configuration.parse_config(yaml.safe_load(block))


def test_commands_in_its_text_are_there():
    from launch.cli import COMMANDS

    named = {text.split()[0] for text in IN_PROSE if not text.startswith("-")}
    listed = {name for text in IN_PROSE if "|" in text for name in text.split(" | ")}
    assert named | {name.split()[0] for name in listed} <= set(COMMANDS)


def test_its_configuration_is_one(tmp_path):
    text = next(text for kind, text in BLOCKS if kind == "yaml")
    document = yaml.safe_load(text)
    document["data"].pop("limit")
    assert configuration.parse_config(document).plan().size > 1


def test_its_python_runs(in_small, psinas):
    assert psinas("search", "digits")[0] == 0
    code = "\n".join(text for kind, text in BLOCKS if kind == "python")
    given = """
import torch
from search_spaces import SEARCH_SPACES, Task
space = SEARCH_SPACES["depth-channels"](depth=(2,), channels=(4,), stem="small")
given = space.build(next(iter(space)), Task.plain((1, 8, 8), 4)).eval()
images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 4
model = given
"""
    code = code.replace('model = load("runs/digits/best")', 'load("runs/digits/best")')
    exec(given + code.replace("steps=100", "steps=3").replace("steps=20", "steps=2"), {})
