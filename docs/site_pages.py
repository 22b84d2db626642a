"""Pages of the site that lie elsewhere in the repository: README is home, DESIGN a page, and so on.

A link is written for a reader of the repository: ``docs/bounds.md`` in the README, ``../DESIGN.md``
in a page. This hook of mkdocs lets the same links lead to the right pages of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "DESIGN.md": "design.md",
    "CHANGELOG.md": "changelog.md",
}
"""File of the repository's root -> page of the site."""

ALSO = ("CITATION.cff",)
"""Files of the root that pages link to and that are handed out as they are."""

FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.S | re.M)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages, and the files they link to, that lie in the repository's root."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, "")))
    for name in ALSO:
        files.append(
            File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8"))
        )
    return files


def on_page_markdown(markdown: str, *, page: Any, **others: Any) -> str:
    """Lead the links of a page in ``docs/`` to the site's pages."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return relinked(markdown, "docs/")


def relinked(text: str, folder: str) -> str:
    """Return a page's text with its links led from the repository's files to the site's pages.

    Code is left alone.

    Args:
        text: Markdown.
        folder: where the page lies in the repository, ``""`` or ``"docs/"``.
    """
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [_links(text[end : fence.start()], folder), fence[0]]
        end = fence.end()
    return "".join([*parts, _links(text[end:], folder)])


def _links(text: str, folder: str) -> str:
    return LINK.sub(lambda found: found[1] + _target(found[2], folder) + found[3], text)


def _target(link: str, folder: str) -> str:
    path, mark, anchor = link.partition("#")
    if folder:
        name = path.removeprefix("../")
        return PAGES[name] + mark + anchor if path != name and name in PAGES else link
    return (PAGES.get(path) or path.removeprefix("docs/")) + mark + anchor
