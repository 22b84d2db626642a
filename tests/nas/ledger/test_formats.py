"""Tables that come back: what is read again from CSV, parquet and JSON is what was written."""

from __future__ import annotations

import csv
import io
import json
import math
import struct

import pandas as pd
import pytest

from nas.ledger.formats import csv_text, json_text
from nas.ledger.records import Record
from nas.ledger.table import save_table, table_of

NUMBERS = [0.1 + 0.2, 1e-12, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 123456789.123456789,
           math.inf, -math.inf, math.nan]  # fmt: skip
REASONS = ["", "a\nb", "a\r\nb", 'RuntimeError: 10%\r100%, "done"\tx;', "ends in \\", "NULL",
           "\U0001f600 Ψ̂ é", " padded ", "'=1+1", "a,b;c\td"]  # fmt: skip


def record(number, params, scores, reason=""):
    status = "error" if reason else "complete"
    result = {"status": status, "reason": reason, "scores": scores, "epochs": 1, "seconds": 0.5,
              "repeat_of": None, "architecture": {"hash": "abc"}}  # fmt: skip
    return Record(number, params, {}, result)


def bits(value):
    """Return a double's bits, which tell -0.0 from 0.0; NaN has but one here."""
    return "nan" if math.isnan(value) else struct.pack("<d", value)


@pytest.fixture
def table():
    rows = zip(NUMBERS, REASONS, strict=True)
    return table_of([record(n, {"a": 1}, {"x": x}, r) for n, (x, r) in enumerate(rows)])


def test_every_double_and_text_comes_back_from_json(table):
    text = json_text(table)
    text.encode("ascii")
    rows = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [r["reason"] for r in rows] == REASONS
    known = [r["x"] if r["x"] is not None else math.nan for r in rows]
    assert [bits(float(x)) for x in known] == [bits(x) for x in NUMBERS]
    assert [list(row) for row in rows] == [list(table.columns)] * len(rows)


def test_every_double_and_text_comes_back_from_files(table, tmp_path):
    save_table(table, tmp_path)
    parquet = pd.read_parquet(tmp_path / "trials.parquet")
    assert parquet["reason"].tolist() == REASONS
    assert [bits(x) for x in parquet["x"]] == [bits(x) for x in NUMBERS]
    read = pd.read_csv(tmp_path / "trials.csv", keep_default_na=False)
    assert read["reason"].tolist() == REASONS
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["reason"] for r in rows] == REASONS
    assert [bits(float(r["x"] or "nan")) for r in rows] == [bits(x) for x in NUMBERS]
    assert not list(tmp_path.glob(".*"))


ANSWERS = {
    "text": ["a", "b", None],
    "text like numbers": ["1", "01", "1e3"],
    "booleans": [True, False, True],
    "booleans and none": [True, None, False],
    "integers": [1, 2, 3],
    "integers and none": [1, None, 3],
    "large and none": [2**62 + 1, None, 3],
    "numbers": [1, 2.5, -0.0],
    "none": [None, None, None],
    "mixed": [1, "a", None],
    "bool and number": [True, 2, None],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_come_back(name, tmp_path):
    answers = ANSWERS[name]
    table = table_of([record(n, {"a": a}, {"x": 0.5}) for n, a in enumerate(answers)])
    save_table(table, tmp_path)
    mixed = len({type(a) for a in answers if a is not None} - {int, float}) > 0 and (
        len({type(a) for a in answers if a is not None}) > 1
    )
    expected = [json.dumps(a) if mixed and a is not None else a for a in answers]
    from_json = [row["a"] for row in json.loads(json_text(table))]
    column = pd.read_parquet(tmp_path / "trials.parquet")["a"]
    from_parquet = [None if pd.isna(value) else value for value in column]
    assert from_json == from_parquet == expected
    same = [
        isinstance(a, bool) == isinstance(b, bool) for a, b in zip(from_json, answers, strict=True)
    ]
    assert mixed or all(same)
    csv_read = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [row["a"] == "" for row in csv_read] == [a is None for a in answers]


def test_a_reason_that_no_file_can_hold_is_escaped(tmp_path):
    table = table_of([record(0, {"a": 1}, {}, "half \ud800 and \0 end")])
    save_table(table, tmp_path)
    for read in (
        pd.read_csv(tmp_path / "trials.csv"),
        pd.read_parquet(tmp_path / "trials.parquet"),
    ):
        assert read["reason"].tolist() == ["half \\ud800 and \\x00 end"]


def test_tables_of_nothing_are_written(tmp_path):
    for records in ([], [Record(0), Record(1)]):
        table = table_of(records)
        save_table(table, tmp_path)
        assert len(json.loads(json_text(table))) == len(records)
        assert len(pd.read_parquet(tmp_path / "trials.parquet")) == len(records)
        read = pd.read_csv(tmp_path / "trials.csv")
        assert (list(read.columns), len(read)) == (list(table.columns), len(records))


def test_a_csv_without_carriage_returns_quotes_what_it_must():
    table = table_of([record(0, {"kind": "a"}, {"x": 0.5}, "one, two")])
    assert csv_text(table).splitlines()[1].startswith('0,error,"one, two",a,0.5,')
