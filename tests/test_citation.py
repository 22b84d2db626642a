"""CITATION.cff says what a citation needs, and agrees with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_has_what_version_1_2_0_of_the_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(CITATION)
    assert CITATION["type"] == "software"
    for work in (CITATION, *CITATION["references"]):
        assert work["authors"]
        assert all(
            set(author) <= {"family-names", "given-names", "name"} for author in work["authors"]
        )


def test_it_agrees_with_the_package():
    assert CITATION["title"] == PROJECT["name"]
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]


def test_the_papers_are_referred_to():
    papers = CITATION["references"]
    assert len(papers) == 4
    for paper in papers:
        assert paper["type"] in {"article", "conference-paper"}
        for identifier in paper.get("identifiers", []):
            assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier["value"])
