"""Hashes that are in ledgers stay, though recipes and datasets have fields that came later."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nas.data.config import DataConfig
from nas.seeds import value_hash
from nas.trial.recipe import Recipe

WRITTEN = [  # before there was a loss, channels, and shuffled_labels
    (Recipe(), "be5c8ceaf2963206"),
    (Recipe(adversary="pgd", epsilon=0.1, epochs=3), "93546f442b8431de"),
    (DataConfig(), "7f705375a86bad55"),
    (DataConfig(name="mnist", classes=(0, 1)), "c9f2079a1f29f85c"),
]


@pytest.mark.parametrize(("value", "written"), WRITTEN, ids=str)
def test_what_was_written_before_is_found_again(value, written):
    assert value.hash == written


def test_the_new_fields_count_where_they_are_set():
    assert Recipe(loss="cross-entropy").hash == Recipe().hash
    assert DataConfig(shuffled_labels=False).hash == DataConfig().hash
    values = [
        Recipe(), Recipe(loss="mse"), Recipe(schedule="halving"), Recipe(adversary="noise-cube"),
        Recipe(adversary="noise-ball"), DataConfig(), DataConfig(channels=3),
        DataConfig(shuffled_labels=True),
    ]  # fmt: skip
    assert len({value.hash for value in values}) == len(values)


@dataclass
class Pair:
    a: int = 1
    b: int | None = None


def test_a_later_field_counts_unless_it_has_the_value_that_was_the_rule():
    @dataclass
    class Single:
        a: int = 1

    assert value_hash(Pair(), later={"b": None}) == value_hash(Single())
    assert value_hash(Pair(b=2), later={"b": None}) == value_hash(Pair(b=2))
    assert value_hash(Pair(), later={"b": 0}) == value_hash(Pair()) != value_hash(Single())
