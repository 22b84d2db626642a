"""How the search was configured, with which versions, on which data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.report.findings import Findings, Searched
from launch.report.page import Block, Details, Section, Table
from nas.ledger.address import scrubbed

APART = ("made_with", "data_checksum", "run_id")
LONGEST = 400  # letters of a value


def make(found: Findings) -> Section:
    """Return versions, checksums and settings of each run."""
    blocks: list[Block] = []
    for searched in found.runs:
        own = f" of {searched.label}" if len(found.runs) > 1 else ""
        blocks.append(Table(f"Versions and data{own}.", ["what", "value"], made_with(searched)))
        settings = [
            [key, value] for key, value in flat(searched.document) if not key.startswith(APART)
        ]
        table = Table(f"The resolved configuration{own}.", ["key", "value"], settings)
        blocks.append(Details(f"Configuration{own}: {len(settings)} settings", [table]))
    lead = "What is needed to run it again: config.yaml of the run directory holds all of it."
    return Section("configuration", "Configuration, versions and data", lead, blocks)


def made_with(searched: Searched) -> list[list[str]]:
    """Return rows of versions, environments of the trials, and checksums of the data."""
    document = searched.document
    rows = [[name, _text(value)] for name, value in (document.get("made_with") or {}).items()]
    rows += [["run id", _text(document["run_id"])]] if document.get("run_id") else []
    for data, parts in (document.get("data_checksum") or {}).items():
        rows += [[f"checksum of {data}, {part}", _text(value)] for part, value in parts.items()]
    environments = Counter(
        ", ".join(f"{k} {v}" for k, v in sorted((r.get("environment") or {}).items()))
        for r in searched.results
    )
    for text, count in environments.most_common(5):
        if text:
            rows.append([f"trained in ({count:,} trials)", text])
    return rows


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and texts of a document; passwords are left out."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(isinstance(inner, Mapping) for inner in value)
    ):
        for place, inner in enumerate(value):
            yield from flat(inner, f"{key}.{place}")
    else:
        yield key, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        text = ", ".join("null" if v is None else str(v) for v in value)
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = "null" if value is None else str(value)
    text = scrubbed(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
