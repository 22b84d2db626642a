"""``docs/training.md`` has every key of a recipe with its default, and its searches are plans."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import yaml

from launch.config.config import parse_config
from launch.config.values import fractions, plain
from nas.trial.recipe import Recipe

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
CONDITIONAL = {"adversarial_share"}  # its default hangs on the loss


def test_every_key_is_there_once_with_its_default():
    shown = {row[0].strip("`"): row[1] for row in ROWS}
    assert len(shown) == len(ROWS)
    defaults = {f.name: f.default for f in fields(Recipe)}
    assert set(shown) == set(defaults)
    for key in defaults.keys() - CONDITIONAL:
        assert shown[key].startswith("`"), key
        assert fractions(yaml.safe_load(shown[key].strip("`"))) == plain(defaults[key]), key
    assert all(len(row) == 4 and row[2] for row in ROWS)


def test_its_searches_are_plans():
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    sizes = [parse_config(yaml.safe_load(block)).plan().size for block in blocks]
    assert sizes[0] == 4
    assert sizes[1] > 1000
    assert sizes[2] == 3 * 2 * 3


def test_sources_are_listed():
    """Everything cited by name and year stands in the list at the end."""
    text, _, listed = PAGE.partition("## Sources")
    cited = set(re.findall(r"([A-Z]\w+)(?: et al\.| & [A-Z]\w+) (\d{4})", text))
    assert len(cited) > 15
    listed = " ".join(listed.split())
    for name, year in sorted(cited):
        entry = rf"{name}(?: et al\.| & \w+) (?:\d{{4}} \(\S+ and )?{year}"
        assert re.search(entry, listed), f"{name} {year}"
