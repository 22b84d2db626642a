"""Front and volume of a table against brute force, with ties, NaN and failed rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nas.analysis import hypervolume, pareto, reference_point
from nas.analysis.front import volume
from nas.errors import InputError
from nas.ledger.fronts import hypervolume as sliced

WAYS = {"a": "max", "b": "min", "c": "max", "d": "min"}


def random_table(rng, n, columns, levels=5):
    """Return a table of few different values, with NaN, failures and repeats among them."""
    table = pd.DataFrame({"number": range(n)})
    table["status"] = rng.choice(["complete", "complete", "complete", "oom", "running"], size=n)
    for name in list(WAYS)[:columns]:
        table[name] = rng.integers(levels, size=n).astype(float)
        table.loc[rng.random(n) < 0.1, name] = np.nan
    table["repeat_of"] = np.where(rng.random(n) < 0.1, 0.0, np.nan)
    table.attrs["objectives"] = dict(list(WAYS.items())[:columns])
    return table


def taking_part(table, names):
    rows = table[(table["status"] == "complete") & table["repeat_of"].isna()]
    return rows.dropna(subset=names)


def beats(x, y, ways):
    signs = [1 if way == "max" else -1 for way in ways.values()]
    better = [s * x[n] >= s * y[n] for s, n in zip(signs, ways, strict=True)]
    return all(better) and any(x[n] != y[n] for n in ways)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_brute_force(columns, seed):
    table = random_table(np.random.default_rng(seed), 40, columns)
    ways = table.attrs["objectives"]
    rows = taking_part(table, list(ways))
    expected = [
        row["number"]
        for _, row in rows.iterrows()
        if not any(beats(other, row, ways) for _, other in rows.iterrows())
    ]
    assert pareto(table)["number"].tolist() == expected
    assert pareto(table, list(ways))["number"].tolist() == expected
    turned = {name: {"max": "min", "min": "max"}[way] for name, way in ways.items()}
    mirrored = table.assign(**{name: -table[name] for name in ways})
    assert pareto(mirrored, turned)["number"].tolist() == expected


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_volume_is_the_share_of_cells_that_some_trial_dominates(columns, seed):
    table = random_table(np.random.default_rng(seed), 25, columns)
    ways = table.attrs["objectives"]
    rows = taking_part(table, list(ways))
    reference = {name: 1.0 if way == "max" else 3.0 for name, way in ways.items()}
    # values are whole numbers: the volume is a count of unit cells, each given by its far corner
    signs = np.array([1 if way == "max" else -1 for way in ways.values()])
    gains = (rows[list(ways)].to_numpy() - np.array(list(reference.values()))) * signs
    gains = gains[(gains > 0).all(axis=1)]
    cells = np.stack(np.meshgrid(*[np.arange(1, 6)] * columns), axis=-1).reshape(-1, columns)
    expected = sum(bool((gains >= cell).all(axis=1).any()) for cell in cells)
    assert hypervolume(table, reference=reference) == pytest.approx(expected)
    assert hypervolume(table, list(ways), list(reference.values())) == pytest.approx(expected)


def test_without_a_reference_the_worst_of_the_complete_trials_is_it():
    table = random_table(np.random.default_rng(3), 60, 3)
    point = reference_point(table)
    rows = taking_part(table, ["a", "b", "c"])
    assert point == {"a": rows["a"].min(), "b": rows["b"].max(), "c": rows["c"].min()}
    assert hypervolume(table) == hypervolume(table, reference=point) > 0


@pytest.mark.parametrize("columns", [3, 4])
def test_the_sweep_agrees_with_chance(columns):
    rng = np.random.default_rng(columns)
    points = rng.random((50, columns))
    thrown = rng.random((20_000, columns))
    share = (thrown[:, None, :] <= points[None]).all(axis=2).any(axis=1).mean()
    assert volume(points) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))


def test_the_sweep_agrees_with_slices_and_takes_many_points():
    rng = np.random.default_rng(0)
    points = np.abs(rng.normal(size=(20_000, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # each is on the front
    assert volume(points[:300]) == pytest.approx(sliced(points[:300]), rel=1e-12)
    assert 0.97 * np.pi / 6 < volume(points) < np.pi / 6  # by slices this takes half an hour


def test_infinite_scores_are_on_the_front_and_in_no_volume():
    table = pd.DataFrame({"status": ["complete"] * 3, "a": [1.0, np.inf, 0.0]})
    assert pareto(table, {"a": "max"}).index.tolist() == [1]
    assert hypervolume(table, {"a": "max"}) == 1.0


def test_ties_are_on_the_front_together():
    table = pd.DataFrame({"status": ["complete"] * 3, "a": [1.0, 1.0, 0.0], "b": [2.0, 2.0, 2.0]})
    assert pareto(table, {"a": "max", "b": "max"}).index.tolist() == [0, 1]


def test_a_raised_flag_keeps_a_trial_out_where_asked():
    table = pd.DataFrame(
        {"status": ["complete"] * 2, "a": [1.0, 2.0], "suspicion_zero_gradient_raised": [0.0, 1.0]}
    )
    assert pareto(table, {"a": "max"}).index.tolist() == [1]
    assert pareto(table, {"a": "max"}, trusted=True).index.tolist() == [0]
    with pytest.raises(InputError, match="suspicion"):
        pareto(table[["status", "a"]], {"a": "max"}, trusted=True)


def test_of_nothing_there_is_no_front_and_no_volume():
    table = random_table(np.random.default_rng(0), 10, 2).assign(status="oom")
    assert pareto(table).empty
    assert hypervolume(table) == 0.0
    with pytest.raises(InputError, match="complete trial"):
        reference_point(table)


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ("pgd_acuracy", "pgd_accuracy"),
        (["a", "a"], "different"),
        ([], "none"),
        ({"a": "up"}, "max or min"),
    ],
)
def test_bad_scores_are_one_line(scores, line):
    table = pd.DataFrame({"status": ["complete"], "a": [1.0], "pgd_accuracy": [0.5]})
    with pytest.raises(InputError, match=line):
        pareto(table, scores)
    with pytest.raises(InputError, match="reference"):
        hypervolume(table, {"a": "max"}, [1.0, 2.0])
    with pytest.raises(InputError, match="objectives"):
        pareto(table)
