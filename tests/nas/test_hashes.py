"""Hashes that are in ledgers stay, though recipes and datasets have fields that came later."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest

from metrics.registry import METRICS
from nas.data.config import DataConfig, Limit
from nas.seeds import rule_before, value_hash
from nas.trial.recipe import Recipe
from nas.trial.scoring import metric_key

RECORDED = json.loads((Path(__file__).parent / "hashes.json").read_text())
WRITTEN = [  # before there was a loss, channels, and shuffled_labels
    (Recipe(), "be5c8ceaf2963206"),
    (Recipe(adversary="pgd", epsilon=0.1, epochs=3), "93546f442b8431de"),
    (DataConfig(), "7f705375a86bad55"),
    (DataConfig(name="mnist", classes=(0, 1)), "c9f2079a1f29f85c"),
]


@pytest.mark.parametrize(("value", "written"), WRITTEN, ids=str)
def test_what_was_written_before_is_found_again(value, written):
    assert value.hash == written


@pytest.mark.parametrize("kind", [Recipe, DataConfig, Limit])
def test_a_field_that_came_later_keeps_the_rule_that_was_before_it(kind):
    """A new field fails here once: record its default, if that is what psinas did without it."""
    later = {f.name: rule_before(f) for f in fields(kind) if f.name not in kind.first_fields}
    assert json.loads(json.dumps(later)) == RECORDED["later"][kind.__name__]
    assert set(kind.first_fields) <= {f.name for f in fields(kind)}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_draw_from_the_seeds_that_they_drew_from(name):
    """A setting that is added to a metric or an attack fails here: leave its default out of
    ``identity``, or trials that are there are replayed to other numbers."""
    assert metric_key(METRICS[name]()) == RECORDED["metrics"][name]


@dataclass(frozen=True, kw_only=True)
class RecipeOfTheFuture(Recipe):
    warm_up: int = 0
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class LimitOfTheFuture(Limit):
    seed: int | None = None


@dataclass(frozen=True)
class DataOfTheFuture(DataConfig):
    mirrored: bool = False


def test_a_release_that_adds_a_field_knows_old_trials():
    recipe, data = Recipe(epochs=3), DataConfig(name="mnist", limit=Limit(train=5))
    assert RecipeOfTheFuture(epochs=3).hash == recipe.hash
    assert DataOfTheFuture("mnist", limit=Limit(train=5)).hash == data.hash
    assert DataConfig("mnist", limit=LimitOfTheFuture(train=5)).hash == data.hash
    others = [
        RecipeOfTheFuture(epochs=3, warm_up=1), RecipeOfTheFuture(epochs=3, layers=(1,)),
        DataOfTheFuture("mnist", limit=Limit(train=5), mirrored=True),
        DataConfig("mnist", limit=LimitOfTheFuture(train=5, seed=0)), recipe, data,
    ]  # fmt: skip
    assert len({value.hash for value in others}) == len(others)


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


def test_every_field_counts_where_none_came_later():
    assert len({value_hash(p) for p in (Pair(), Pair(a=2), Pair(b=2), Pair(a=2, b=2))}) == 4


def test_a_later_field_needs_a_default():
    @dataclass
    class Wrong:
        a: int
        first_fields: ClassVar[tuple[str, ...]] = ()

    with pytest.raises(TypeError, match="a: expected a default"):
        value_hash(Wrong(1))
