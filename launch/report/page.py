"""A page of sections as one self-contained HTML file: nothing is loaded from a network.

Texts are escaped by the template, data by :func:`json_for_html`. The browser is told by a content
security policy to run the two scripts of the page and no others, and to fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from launch.report.charts import Chart
from nas.errors import InputError
from nas.files import write_whole

GENERATOR = "psinas report"
"""The content of the page's ``<meta name="generator">``, by which it is known again."""


@dataclass(frozen=True)
class Paragraph:
    """Sentences; ``kind`` is ``text``, ``note`` (small) or ``warning``."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: what it holds.
        columns: its heads.
        rows: cells as texts, as many as columns; the first of each heads its row.
        numeric: which columns are numbers, aligned right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Raw:
    """An SVG or HTML that is trusted: whoever makes it has escaped all texts in it."""

    markup: str
    caption: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away on a screen until a reader asks; print shows them."""

    summary: str
    blocks: Sequence[Chart | Table | Paragraph | Raw]


Block = Chart | Table | Paragraph | Raw | Details


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; ``id`` is of letters, digits and hyphens."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block] = ()


def write_page(
    path: Path, title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = ""
) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    text = page(title, sections, subtitle=subtitle, footer=footer)
    place = path.resolve()
    try:
        write_whole(place, lambda partial: partial.write_bytes(text.encode("utf-8", "replace")))
    except OSError as error:
        raise InputError(f"expected a file to write, got {path}: {error}") from error


def page(title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = "") -> str:
    """Return the page as HTML."""
    data = {c.name: c.figure for c in charts_of(sections) if c.figure is not None}
    choosers = {c.name: c.chooser for c in charts_of(sections) if c.chooser is not None}
    script = _file("report.js")
    plotly = plotly_script() if data or choosers else ""
    environment = Environment(
        loader=PackageLoader("launch.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_held_together,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["kind"] = lambda block: type(block).__name__.lower()
    hashes = " ".join(f"'sha256-{_hash(s)}'" for s in (plotly, script) if s)
    return environment.get_template("base.html").render(
        generator=GENERATOR,
        title=clean(title),
        subtitle=clean(subtitle),
        footer=clean(footer),
        sections=sections,
        style=Markup(_file("style.css")),
        plotly=Markup(plotly),
        script=Markup(script),
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        data=Markup(json_for_html({"figures": data, "choosers": choosers})),
    )


def charts_of(sections: Sequence[Section]) -> list[Chart]:
    """Return every chart of the sections, folded ones too."""
    found: list[Chart] = []
    for section in sections:
        for block in section.blocks:
            inner = block.blocks if isinstance(block, Details) else [block]
            found += [b for b in inner if isinstance(b, Chart)]
    return found


def json_for_html(value: Any) -> str:
    """Return JSON that no parser of HTML reads as anything else; what is not finite is null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def clean(text: str) -> str:
    """Return a text that HTML may hold: without NUL, half surrogates and control characters."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c in "\n\t " else "�" for c in text)


def is_page(path: Path) -> bool:
    """Whether a file is a page of ours, by the meta tag near its beginning."""
    try:
        with path.open("rb") as file:
            return f'<meta name="generator" content="{GENERATOR}">'.encode() in file.read(4096)
    except OSError:
        return False


@cache
def plotly_script() -> str:
    """Return plotly's script of this installation, 4.8 MB."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _held_together(value: Any) -> Any:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


def _file(name: str) -> str:
    return files("launch.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(k)): _finite(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_finite(v) for v in value]
    return value
