"""Columns are as wide as what a terminal shows, and show what they are given."""

from __future__ import annotations

from rich.cells import cell_len

from launch.show.columns import aligned, beside


def test_cells_stand_under_their_names():
    lines = aligned({"name": ["a", "Ψ̂ of x"], "n": ["5", "1234"]}, right=["n"])
    assert lines == ["name       n", "a          5", "Ψ̂ of x  1234"]
    assert len({cell_len(line) for line in lines}) == 1


def test_what_looks_like_markup_stays():
    assert aligned({":x:": ["f.cpp:100: [red]bad[/red]"]}) == [":x:", "f.cpp:100: [red]bad[/red]"]


def test_rows_without_a_head():
    assert beside({"a": ("1", "x"), "long": ("22",)}) == ["a     1   x", "long  22"]
    assert beside({}) == []
