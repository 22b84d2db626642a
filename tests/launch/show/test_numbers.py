"""A table whose numbers have gaps says why."""

from __future__ import annotations

from launch.show.numbers import gaps_line
from nas.ledger.records import Record


def records(*repeats):
    return [
        Record(n, result={"status": "complete", "repeat_of": of}) for n, of in enumerate(repeats)
    ]


def test_gaps_are_explained():
    assert gaps_line(records(None, None)) is None
    assert gaps_line([*records(None), Record(1)]) is None
    assert gaps_line([]) is None
    line = gaps_line(records(None, 0, None))
    assert line.startswith("trials are numbered 0 ... 2: 1 number belongs to a proposal of a known")
    assert "0 ... 4: 2 numbers belong" in gaps_line(records(None, 0, None, 2, None))


def test_repeats_without_a_number_of_their_own_leave_no_gap():
    repeat = Record(0, result={"status": "complete", "repeat_of": 0})
    assert gaps_line([*records(None), repeat, *records(None)]) is None
