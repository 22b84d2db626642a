"""The trial table: the ledger as a DataFrame, one row a trial, failures with their reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nas.errors import InputError, first_line
from nas.files import write_whole
from nas.ledger.formats import column_of, csv_text, writable
from nas.ledger.records import Record, read_records, standing
from nas.ledger.results import MEMORY_STEPS, REUSED_FROM, RUN_ID, RUNGS, STUDY

ACCURACIES = ("accuracy", "accuracy_low", "accuracy_high")
LEADING = ("number", "status", "reason")
MEMORY = ("peak_memory_bytes", "micro_batch")  # columns where a trial has them


@dataclass(frozen=True)
class Legend:
    """What the columns of a trial table are.

    Attributes:
        objectives: score -> ``max`` or ``min``.
        decisions: all that was decided.
        told_apart: those of them that tell trials apart, or ``architecture``.
    """

    objectives: Mapping[str, str]
    decisions: Sequence[str]
    told_apart: Sequence[str]

    def direction(self, score: str) -> str:
        """Return ``max`` or ``min``: as the search has it, else ``max`` for accuracies alone.

        The ends of an accuracy's interval are accuracies.
        """
        return self.objectives.get(score, "max" if score.endswith(ACCURACIES) else "min")


def load_table(run: str | Path, *, repeats: bool = False) -> pd.DataFrame:
    """Return the trial table of a run directory, also while it is being searched.

    Args:
        run: the run directory.
        repeats: also show proposals of a known architecture, answered from the ledger.
            ``repeat_of`` then holds the number of the trial that they repeat, behind which they
            stand; ``number`` too, but in ledgers from before 2026-11-27, where they have their own.

    Raises:
        InputError: no ledger there, or it is another run's.
    """
    saved = Path(run) / "config.yaml"
    config = yaml.safe_load(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    storage = config.get("storage")
    name = config["name"] if storage else STUDY
    owner = config.get(RUN_ID)
    records = read_records(Path(run), storage=storage, name=name, run_id=owner)
    return table_of(records, repeats=repeats)


def table_of(records: Iterable[Record], *, repeats: bool = False) -> pd.DataFrame:
    """Return the trial table of records: number, status, reason, decisions, scores, cost.

    With a scheduler also ``rung``, the epoch after which it stopped a trial; of trials on a GPU
    ``peak_memory_bytes``, and ``micro_batch`` where one was trained in micro-batches;
    where memory ran out, ``memory_steps``, how those trials were tried. Where
    trials of other runs were reused also ``reused_from``, whose they are. Behind the scores stand
    those of later judges, ``judge_<score>``, with ``judge_<metric>_images`` and ``_passes``, what
    each may spend on an image; NaN of a trial that was not judged so.
    """
    rows = []
    decisions: dict[str, None] = {}
    scores: dict[str, None] = {}
    judged: dict[str, None] = {}
    scheduled = short = reused = False
    for record in standing(records):
        result = record.result or {"status": "running", "reason": ""}
        if result.get("repeat_of") is not None and not repeats:
            continue
        decisions.update(dict.fromkeys(record.params))
        scores.update(dict.fromkeys(result.get("scores", {})))
        judged.update(dict.fromkeys(record.judged))
        scheduled |= RUNGS in result or result["status"] == "stopped"
        short |= bool(result.get(MEMORY_STEPS))
        reused |= REUSED_FROM in result
        rows.append(_row(record.number, record.params, result, record.judged))
    scores |= judged
    rung = ["rung"] if scheduled else []
    memory = [name for name in MEMORY if any(row[name] is not None for row in rows)]
    columns = [*LEADING, *decisions, *scores, "epochs", *rung, "seconds", *memory, "architecture"]
    columns += [MEMORY_STEPS] if short else []
    columns += [REUSED_FROM] if reused else []
    columns += ["repeat_of"] if repeats else []
    table = pd.DataFrame(rows, columns=columns)
    for name in decisions:
        table[name] = column_of([row.get(name) for row in rows])
    for name in [*scores, *rung]:  # a failed trial has no scores
        table[name] = table[name].astype(float)
    integers = dict.fromkeys(("epochs", *memory), "Int64")
    return table.astype({"number": "int64", "seconds": float, **integers})


def read_csv(path: Path, what: str = "a CSV file") -> pd.DataFrame:
    """Return a table that somebody made.

    Raises:
        InputError: there is none, or it has no header; ``what`` says what was expected.
    """
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        why = first_line(error)
        raise InputError(f"expected {what} with a header, got {path}: {why}") from error


def save_table(table: pd.DataFrame, run: Path) -> None:
    """Write ``trials.parquet`` and ``trials.csv``, each whole or not at all."""
    text = csv_text(table).encode()
    write_whole(run / "trials.csv", lambda partial: partial.write_bytes(text))
    write_whole(run / "trials.parquet", lambda partial: table.to_parquet(partial, index=False))


def _row(
    number: int, params: dict[str, Any], result: dict[str, Any], judged: dict[str, float]
) -> dict[str, Any]:
    return {
        "number": number,
        "status": result["status"],
        "reason": writable(result["reason"]),
        **params,
        **result.get("scores", {}),
        **judged,
        "epochs": result.get("epochs"),
        "rung": result.get("epochs") if result["status"] == "stopped" else None,
        "seconds": result.get("seconds"),
        **{name: result.get(name) for name in MEMORY},
        "architecture": result.get("architecture", {}).get("hash"),
        MEMORY_STEPS: ", ".join(result.get(MEMORY_STEPS, ())),
        "repeat_of": result.get("repeat_of"),
        REUSED_FROM: result.get(REUSED_FROM, ""),
    }
