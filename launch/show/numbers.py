"""Why the numbers of a table have gaps: each proposal of a sampler takes one, known or new."""

from __future__ import annotations

from collections.abc import Sequence

from nas.ledger.records import Record


def gaps_line(records: Sequence[Record]) -> str | None:
    """Return how many numbers are proposals answered from the ledger; None where there are none.

    The numbers of trials are those of their directories and of ``--trial``, from 0; a repeated
    proposal has one of its own, which the table leaves out.
    """
    answered = sum((r.result or {}).get("repeat_of") is not None for r in records)
    if not answered:
        return None
    trials = "number belongs to a proposal" if answered == 1 else "numbers belong to proposals"
    return (
        f"trials are numbered 0 ... {len(records) - 1}: {answered} {trials} of a known "
        "architecture, answered from the ledger (psinas trials --repeats shows them)"
    )
