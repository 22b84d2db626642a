from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from launch.papers.cubuk.figure10 import PREDICTORS, SCORES, figure_10, robust_correlations
from launch.papers.registry import reproduction
from nas.errors import InputError


def random_nets(count=60):
    """Return a trial table whose PGD accuracy falls with A and does not know of B."""
    rng = np.random.default_rng(0)
    amplitude = rng.uniform(1, 5, count)
    exponent = rng.normal(1.1, 0.05, count)
    table = pd.DataFrame(
        {
            "number": range(count),
            "status": "complete",
            "kind": np.where(np.arange(count) % 3 == 0, "conv", "dense"),
            "clean_accuracy": np.where(np.arange(count) < 50, 0.9, 0.7),
            "pgd_accuracy": 0.9 - amplitude / 10 + rng.normal(0, 0.01, count),
            "error_exponent": exponent,
            "error_exponent_low": exponent - 0.1,
            "error_exponent_high": exponent + 0.1,
            "error_line": exponent + 0.2,
            "error_amplitude": amplitude,
            "logits_12_exponent": rng.normal(0, 0.1, count),
            "logits_12_density": rng.random(count),
            "logits_12_nearness": rng.random(count),
            "linear_epsilon": 1 / amplitude,
            "psi": rng.random(count),
        }
    )
    for epsilon in (0.01, 0.03, 0.1):
        table[f"error_at_{epsilon:.3g}"] = (amplitude * epsilon**exponent).clip(max=0.9)
    return table


def of(table):
    return [SimpleNamespace(path=Path("runs/nets"), table=lambda: table)]


def test_accurate_nets_are_counted_and_their_exponents_told():
    table = random_nets()
    view = figure_10(of(table), report=None)
    text = "\n".join(view.lines)
    accurate = table[:50]
    assert "60 nets, 50 of them above 80% clean accuracy" in text
    row = next(line for line in view.lines if line.startswith("all "))
    median, low, high = accurate["error_exponent"].quantile([0.5, 0.05, 0.95])
    assert row.split()[1:8] == [
        "50", "of", "50", f"{median:.2f}", f"{low:.2f}", "to", f"{high:.2f}",
    ]  # fmt: skip
    holds = ((accurate["error_exponent"] - 1).abs() <= 0.1).mean()
    assert f"{holds:.0%}" in row
    assert len(view.table) == 60


def test_correlations_are_those_of_scipy():
    table = random_nets()[:50]
    found = robust_correlations(table)
    for name, score in PREDICTORS.items():
        if score == "clean_accuracy":
            assert np.isnan(found[name].value)  # all the same here
            continue
        rho = stats.spearmanr(table[score], table["pgd_accuracy"]).statistic
        assert found[name].value == pytest.approx(rho)
        assert found[name].low < rho < found[name].high
    assert found["A"].value < -0.9
    assert found["B"].low < 0 < found["B"].high


def test_a_score_that_was_not_there_for_some_leaves_these_out():
    table = random_nets()
    table.loc[:9, "error_exponent"] = np.nan
    view = figure_10(of(table), report=None)
    assert any("40 of 50" in line for line in view.lines)
    assert any("all (40 to 50 nets)" in line for line in view.lines)


def test_a_search_without_accurate_nets_is_refused():
    table = random_nets()
    table["clean_accuracy"] = 0.5
    with pytest.raises(InputError, match="expected nets above 80% clean accuracy in runs/nets"):
        figure_10(of(table), report=None)


@pytest.mark.parametrize("quick", [True, False])
def test_the_presets_have_what_the_view_reads(quick):
    asked = reproduction("cubuk-figure10")
    (config,) = asked.configs(asked.sources(quick=quick, data=None), [])
    names = {n for m in config.built_metrics() for n in m.score_names}
    assert set(SCORES) <= names
    assert config.trials >= 300
