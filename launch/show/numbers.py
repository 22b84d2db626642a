"""Why the numbers in an earlier run's table have gaps: there each proposal took one."""

from __future__ import annotations

from collections.abc import Sequence

from nas.ledger.records import Record


def gaps_line(records: Sequence[Record]) -> str | None:
    """Return how many numbers are proposals answered from the ledger; None where there are none.

    The numbers of trials are those of their directories and of ``--trial``. Since trials have
    places (``nas.search.places``) they are 0 to n - 1; in a ledger of before a repeated proposal
    has a number of its own, which the table leaves out.
    """
    repeats = [(r.result or {}).get("repeat_of") for r in records]
    answered = sum(
        of is not None and of != r.number for r, of in zip(records, repeats, strict=True)
    )
    if not answered:
        return None
    trials = "number belongs to a proposal" if answered == 1 else "numbers belong to proposals"
    return (
        f"trials are numbered 0 ... {max(r.number for r in records)}: {answered} {trials} of a "
        "known architecture, answered from the ledger (psinas trials --repeats shows them)"
    )
