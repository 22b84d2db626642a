"""Odd choices are searched, or refused in one line before the first trial; so are edited spaces."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import yaml
from helpers import search_here
from odd_spaces import ODD_SETTINGS, Odd

from launch.config.config import parse_config
from launch.runs.begin import open_search
from launch.runs.run import Run
from nas.errors import InputError
from nas.ledger.records import read_records
from nas.ledger.table import load_table
from nas.search.spaces import check_space


def document(**more):
    return {
        "name": "odd",
        "data": {"name": "digits", "limit": {"train": 64, "validation": 40}},
        "space": {"name": "odd_spaces:Odd"},
        "recipe": {"epochs": 0, "batch_size": 64, "adversary": "none"},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "sampler": {"name": "random"},
        "trials": 2,
        **more,
    }


def raises(message):
    raise RuntimeError(message)


calls = itertools.count()

REFUSED = {
    "equal": ({"a": (1, True, 2)}, "space: a: expected different choices, got 1 and True"),
    "equal floats": ({"a": (1, 1.0)}, "space: a: expected different choices, got 1 and 1.0"),
    "twice": ({"a": ("x", "y", "x")}, "space: a: expected different choices, got 'x' and 'x'"),
    "zeros": ({"a": (0.0, -0.0)}, "space: a: expected different choices, got 0.0 and -0.0"),
    "numpy": ({"a": tuple(np.arange(3))}, "space: a: expected choices of text, int, float, "),
    "numpy float": ({"a": (np.float64(0.5), 1.0)}, "space: a: expected choices of text, int, "),
    "nan": ({"a": (float("nan"), 1.0)}, "space: a: expected finite numbers, got nan"),
    "inf": ({"a": (float("inf"), 1.0)}, "space: a: expected finite numbers, got inf"),
    "none": ({"b": (1, 2), "a": ()}, "space: a: expected one or more choices, got none"),
    "lists": ({"a": ([3, 3], [5, 5])}, "space: a: expected choices of text, int, float, bool or"),
    "tuples": ({"a": ((3, 3), (5, 5))}, "space: a: expected choices of text, int, float, bool or"),
    "huge": ({"a": (2**70, 1)}, "space: a: expected integers of 64 bits, got 11805916207174"),
    "surrogate": ({"a": ("\ud800", "b")}, "space: a: expected text that UTF-8 can write"),
    "nul": ({"a": ("a\0", "b")}, "space: a: expected text that UTF-8 can write"),
    "integer name": ({1: (1, 2)}, "space: expected names of decisions as text, got 1"),
    "empty name": ({"": (1, 2)}, "space: expected names of decisions as text, got ''"),
    "two lines": ({"a\nb": (1, 2)}, "space: expected names of decisions as text, got 'a\\nb'"),
    "text": ({"a": "xyz"}, "space: a: expected a tuple of choices, got a str"),
    "set": ({"a": {1, 2}}, "space: a: expected a tuple of choices, got a set"),
    "pairs": ([("a", (1, 2))], "space: expected decisions as a mapping of choices, got a list"),
    "raises": (lambda: raises("no"), "space: its decisions cannot be read: RuntimeError: no"),
    "changing": (lambda: {"a": (1, next(calls) + 2)}, "space: expected the same decisions at each"),
    "column": ({"status": (1, 2)}, "space: expected other names of decisions than ['status']"),
    "score": ({"clean_accuracy": (1, 2)}, "space: expected other names of decisions than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_searched_is_refused_in_one_line(name, monkeypatch):
    asked, line = REFUSED[name]
    asked = staticmethod(asked) if callable(asked) else asked
    monkeypatch.setattr(Odd, "asked", asked)
    with pytest.raises(InputError) as caught:
        parse_config(document())
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_decision_called_as_what_is_varied_is_refused(monkeypatch):
    monkeypatch.setattr(Odd, "asked", {"repeat": ("x", "y")})
    with pytest.raises(InputError, match=r"^space: expected another name .* than vary's 'repeat'"):
        parse_config(document(vary={"repeat": [0, 1]}))
    monkeypatch.setattr(Odd, "asked", {"clean_accuracy_std": (1, 2)})
    with pytest.raises(InputError, match=r"clean_accuracy_std"):
        parse_config(document(repeats=2))


MIXED = {"a": (1, "a", 2.5, None, "1", "NA", ""), "flag": (True, False), "one": ("x",)}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "evolution", "predictor", "local-search"])
def test_choices_of_several_types_are_searched(sampler, monkeypatch, tmp_path):
    monkeypatch.setattr(Odd, "asked", MIXED)
    small = {"tpe": {"startup_trials": 3}, "nsga2": {"population_size": 3},
             "evolution": {"population_size": 3, "tournament_size": 2},
             "predictor": {"initial": 3}, "local-search": {"initial": 2}}[sampler]  # fmt: skip
    check_space(Odd())
    run = search_here(tmp_path / "run", document(trials=9, sampler={"name": sampler, **small}))
    table = load_table(run)
    assert len(table) == table["architecture"].nunique() == 9
    assert (table["status"] == "complete").all()


def test_a_space_without_decisions_is_one_architecture(monkeypatch, tmp_path):
    monkeypatch.setattr(Odd, "asked", {})
    run = search_here(tmp_path / "run", document())
    assert len(load_table(run)) == 1


# -------------------------------------------------------------------------------- edited on the way

EDITED = {
    "added choice": ({"kind": ("a", "b", "c")}, "space: kind: expected the choices 'a', 'b', got"),
    "removed choice": ({"kind": ("b",)}, "space: kind: expected the choices 'a', 'b', got 'b'"),
    "other order": ({"kind": ("b", "a")}, "space: kind: expected the choices 'a', 'b', got 'b', "),
    "other type": ({"kind": ("a", 1)}, "space: kind: expected the choices 'a', 'b', got 'a', 1"),
    "added decision": ({"kind": ("a", "b"), "more": (1, 2)}, "space: expected no decision more, "),
    "removed decision": ({"other": ("a", "b")}, "space: expected the decision kind, got none"),
}


@pytest.mark.parametrize("edit", EDITED)
def test_a_space_that_was_edited_is_refused_before_any_trial(edit, monkeypatch, tmp_path):
    asked, line = EDITED[edit]
    monkeypatch.setattr(Odd, "asked", {"kind": ("a", "b")})
    run = search_here(tmp_path / "run", document())
    before = read_records(run)
    monkeypatch.setattr(Odd, "asked", asked)
    with pytest.raises(InputError) as caught:
        open_search(run, Run(run).config)
    assert str(caught.value).startswith(line)
    assert "began; --out begins another search" in str(caught.value)
    assert read_records(run) == before


def test_a_grid_counts_through_decisions_in_their_order(monkeypatch, tmp_path):
    asked = {"a": (1, 2), "b": (1, 2)}
    for sampler in ("grid", "random"):
        monkeypatch.setattr(Odd, "asked", asked)
        run = search_here(tmp_path / sampler, document(sampler={"name": sampler}))
        open_search(run, Run(run).config)
        monkeypatch.setattr(Odd, "asked", dict(reversed(asked.items())))
        if sampler == "grid":
            with pytest.raises(InputError, match="in the order a, b, got b, a"):
                open_search(run, Run(run).config)
        else:
            open_search(run, Run(run).config)


def test_a_driver_that_died_while_it_asked_is_gone_on_with(monkeypatch, tmp_path):
    """Its only trial has one of two answers, which says nothing of the other decision."""
    monkeypatch.setattr(Odd, "asked", {"a": (1, 2), "b": (1, 2)})
    run = search_here(tmp_path / "run", document(trials=1))
    lines = (run / "study.journal").read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"params"' in line)
    begun = json.loads(lines[place])
    for part in ("params", "distributions"):
        del begun[part]["b"]
    (run / "study.journal").write_text("".join([*lines[:place], json.dumps(begun) + "\n"]))
    assert open_search(run, Run(run).config).propose().number == 0


# ------------------------------------------------------------------------------------ settings kept


@pytest.mark.parametrize("name", ODD_SETTINGS)
def test_a_setting_that_yaml_cannot_keep_is_refused(name):
    with pytest.raises(InputError) as caught:
        parse_config(document(space={"name": "odd_spaces:Odd", "setting": ODD_SETTINGS[name]}))
    assert str(caught.value).startswith("space.setting")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [1e-7, float("inf"), -0.0, 2**80, "no", "1e3", "null", "~", " x ", "a: b", "", "é\n\r\t",
     True, None, [1, [2.5, "x"]], {"a": {"b": [1]}}, "2026-01-01", "0x10", "1_000", "=", "<<"],
    ids=repr,
)  # fmt: skip
def test_other_settings_come_back(value):
    config = parse_config(document(space={"name": "odd_spaces:Odd", "setting": value}))
    text = yaml.safe_dump(config.resolved(), sort_keys=False, default_flow_style=None, width=100)
    again = parse_config(yaml.safe_load(text))
    assert repr(again.built_space().setting) == repr(config.built_space().setting) == repr(value)
