"""The site has every page, and a link leads somewhere in the repository and in the site."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
SITE = ("index.md", "contributing.md", "design.md", "changelog.md")
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("*.md")]


def pages_of(nav):
    """Return the pages that a navigation names, in order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


@pytest.fixture(scope="module")
def site_pages():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_once():
    written = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages_of(CONFIG["nav"])) == sorted([*SITE, *written])


def test_nothing_is_loaded_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    assert "extra_javascript" not in CONFIG
    for style in CONFIG["extra_css"]:
        assert "url(" not in (ROOT / "docs" / style).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_in_the_repository(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|#", link):
            continue
        target = page.parent / link.partition("#")[0]
        assert target.exists(), link


@pytest.mark.parametrize(
    ("folder", "link", "expected"),
    [
        ("", "docs/bounds.md#costs", "bounds.md#costs"),
        ("", "CONTRIBUTING.md", "contributing.md"),
        ("docs/", "../DESIGN.md", "design.md"),
        ("docs/", "faults.md", "faults.md"),
        ("docs/", "https://arxiv.org/abs/1711.02846", "https://arxiv.org/abs/1711.02846"),
    ],
)
def test_links_of_the_repository_lead_to_pages_of_the_site(site_pages, folder, link, expected):
    assert site_pages.relinked(f"see [it]({link}).", folder) == f"see [it]({expected})."


def test_code_keeps_its_links(site_pages):
    code = "```\n[x](docs/bounds.md)\n```\n"
    assert site_pages.relinked(code + "[x](docs/bounds.md)", "") == code + "[x](bounds.md)"


@pytest.mark.slow
def test_it_is_built_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    pytest.importorskip("mkdocstrings")
    answer = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "api" / "metrics.html").read_text(encoding="utf-8").count("FGSM") > 5
