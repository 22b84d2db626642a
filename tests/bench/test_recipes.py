"""``bench/recipes.py``: intervals and paired differences by hand, and one set of images for all."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from metrics.attacks import PGD
from metrics.robustness.accuracy import correct, robust_accuracy
from nas.trial.training import drain, train

SCRIPT = Path(__file__).parents[2] / "bench" / "recipes.py"


@pytest.fixture(scope="module")
def bench():
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("recipes_bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "recipes_bench", module)
        spec.loader.exec_module(module)
        yield module


def test_intervals_are_students(bench):
    """Of 1 ... 5 the deviation is sqrt(2.5), and t at 0.975 with 4 degrees of freedom 2.776."""
    mean, half = bench.interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert half == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    assert bench.interval([7.0])[0] == 7
    assert math.isnan(bench.interval([7.0])[1])


def row(recipe, seed, plain, averaged):
    """Return a training's row in which all accuracies of some weights are one number."""
    found = {"recipe": recipe, "seed": seed}
    for weights, value in (("plain", plain), ("averaged", averaged)):
        for when, less in (("best", 0.0), ("last", 0.1)):
            found |= {f"{weights} {when} {a}": value - less for a in ("clean", "PGD-20", "APGD")}
    return found


def test_differences_are_paired_by_seed(bench):
    """TRADES is 2 points better under every seed, however much seeds differ."""
    rows = [row("PGD", s, 0.3 + 0.1 * s, 0.5) for s in range(3)]
    rows += [row("TRADES", s, 0.32 + 0.1 * s, 0.5) for s in reversed(range(3))]
    rows += [{"recipe": "MART", "seed": 0, "diverged": "the loss is nan"}, row("MART", 1, 0.5, 0.5)]
    lines = {line.split(" | ")[0]: line.split(" | ") for line in bench.table(rows, "best")}
    half = 4.303 * 0.1 / math.sqrt(3) * 100
    assert lines["| PGD, plain"][2:] == [f"40.0 ± {half:.1f}"] * 3 + ["", " |"]
    assert lines["| TRADES, plain"][2:] == [f"42.0 ± {half:.1f}"] * 3 + [
        "+2.0 ± 0.0",
        "+2.0 ± 0.0 |",
    ]
    assert lines["| MART, plain"][1:4] == ["1", "50.0 ± nan", "50.0 ± nan"]
    assert lines["| MART, averaged"][5] == "+10.0 ± nan"
    assert "32.0" in next(line for line in bench.table(rows, "last") if "TRADES, plain" in line)


def test_each_loss_has_its_own_best_rate(bench):
    best = {"PGD": 0.1, "TRADES": 0.3, "MART": 0.03}
    rows = [
        {"recipe": loss, "rate": rate, "validation": 0.5 if rate == best[loss] else 0.4}
        for loss in best
        for rate in bench.RATES
    ]
    assert bench.best_rates(rows) == best
    without = [{**r, "diverged": "nan"} for r in rows if r["recipe"] != "PGD"]
    lost = [{"recipe": "PGD", "rate": rate, "diverged": "nan"} for rate in bench.RATES]
    with pytest.raises(ValueError, match=r"none for \['PGD'\]"):
        bench.best_rates(without + lost)


def test_recipes_differ_in_what_their_names_say(bench):
    study = bench.Study("digits", 0.1, 20, 20, 2, 4, 2, 0.9)
    plain, awp, mart = (
        study.recipe(name, epochs=3, rate=0.1) for name in ("PGD", "PGD + AWP", "MART")
    )
    assert (plain.loss, plain.awp, plain.weight_average) == ("cross-entropy", 0.0, 0.9)
    assert (awp.loss, awp.awp) == ("cross-entropy", 0.01)
    assert (mart.loss, mart.beta, mart.epochs) == ("mart", 5.0, 3)


@pytest.mark.slow
def test_every_attack_sees_the_same_images(bench):
    """A net is trained, so that Auto-PGD breaks more than PGD-20, and not all."""
    study = bench.Study("digits", 0.1, 300, 100, 2, 8, 3, 0.9)
    model, data, generator = bench.begun(study, 0)
    recipe = study.recipe("PGD", epochs=15, rate=0.1)
    drain(train(model, data, recipe, recipe.attack(), generator))
    _, x, y = bench.images_of(study)
    found = bench.attacked(study, model.eval())
    assert len(x) == 100
    assert found["clean"] == correct(model, x, y).double().mean().item()
    pgd = robust_accuracy(
        model, x, y, PGD(epsilon=0.1, steps=20), generator=torch.Generator().manual_seed(0)
    )
    assert found["PGD-20"] == pgd.accuracy
    assert 0 < found["APGD"] < found["PGD-20"] < found["clean"]
