"""Every reproduction on one page: what agrees, what failed, and that no text is taken for HTML."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from launch.papers.entries import entries
from launch.papers.every import every
from launch.papers.gallery import ALL, PICTURE, plain, shrunk, write_gallery
from launch.papers.outcomes import DONE, FAILED, outcome, read_outcomes, write_outcome
from launch.papers.page import write_page
from launch.papers.registry import REPRODUCTIONS
from launch.show.comparison import Comparison, less, more, number, span, tally
from launch.show.reporter import Reporter
from launch.show.view import View, write_view
from nas.errors import InputError

NAMES = ("sutton-theory", "peck-counterexamples")
EVIL = "<script>alert('ü')</script>"
TABLES = {
    "sutton-theory": pd.DataFrame(
        {
            "theorem": ["theorem 1", "theorem 1", EVIL],
            "side": ["at most", "at most", "at least"],
            "bound": [0.5, 0.2, 0.1],
            "exact": [0.4, 0.3, 0.3],  # the second bound is on the wrong side
            "sigmas": [1.0, 2.0, 6.0],
        }
    ),
    "peck-counterexamples": pd.DataFrame(
        {f"{mode}_refuted": [mode == "paper", False] for mode in ("paper", "certified", "tight")}
    ),
}


@pytest.fixture(autouse=True)
def two_alone(monkeypatch):
    """Look at two: a plan of each of the others takes a tenth of a second."""
    two = {name: REPRODUCTIONS[name] for name in NAMES}
    monkeypatch.setattr("launch.papers.entries.REPRODUCTIONS", two)


def carry(plan, report, *, address, reuse):
    """Leave what a reproduction leaves; the Peck paper's fails."""
    if plan.name.startswith("peck"):
        raise InputError(f"expected data, got none of {EVIL}")
    write_view(plan.directory, plan.name, View(TABLES[plan.name], [], Figure(figsize=(2, 1))))
    return True


def all_of(base, names=NAMES, carry=carry, **settings):
    said = []
    found = every(names, Reporter(say=said.append), quick=True, base=base, carry=carry, **settings)
    return found, said


# ------------------------------------------------------------------------------------ comparisons


def test_ratio_and_agreement_by_hand():
    near = number("a", 100.0, 140.0, factor=1.5)
    assert (near.ratio, near.agrees, near.rule) == (1.4, True, "x/÷ 1.5")
    assert not number("a", 100.0, 160.0, factor=1.5).agrees
    assert number("a", 100.0, 160.0, interval=(149.0, 171.0), factor=1.5).agrees
    assert number("a", -0.9, -0.8, margin=0.11).agrees
    assert number("a", -0.9, -1.0, margin=0.11).agrees
    assert not number("a", -0.9, -1.0, margin=0.09).agrees
    assert not number("a", -0.9, -0.8, margin=0.09).agrees
    assert number("a", -0.9, -0.45, factor=2.0).agrees
    assert number("a", 0, 0).agrees
    assert math.isnan(number("a", 0, 3).ratio)
    assert not number("a", 0, 3).agrees
    assert number("a", 1.0, math.nan).agrees is None
    assert number("a", 1.0, math.nan).measured == "not measured"


def test_ranges_by_hand():
    inside, above = (Comparison("b", (0.9, 1.3), ours) for ours in (1.1, 2.6))
    assert (inside.ratio, inside.agrees, inside.printed) == (1.0, True, "0.9 to 1.3")
    assert (above.ratio, above.agrees) == (2.0, False)
    assert more("c", 0.95, 0.99).agrees
    assert not more("c", 0.95, 0.9).agrees
    assert less("d", 0.0, -1.0).agrees
    assert not less("d", 0.0, 1.0).agrees
    assert more("c", 0.95, 0.99).printed == "more than 0.95"
    assert span("0.9 to 1.3") == (0.9, 1.3)
    assert span("1.1") == (1.1, 1.1)
    assert span("") is None


def test_tally():
    found = [number("a", 1, 1), number("a", 1, 2), number("a", 1, math.nan), number("a", 1, 1)]
    assert tally(found) == (2, 1, 1)


def test_numbers_of_the_psi_paper():
    table = pd.DataFrame({"depth": [18, 34], "psi": [781.2, 7.907], "psi_low": [700.0, 7.0],
                          "psi_high": [800.0, 8.0], "paper": [781.2, 790.7]})  # fmt: skip
    right, wrong = REPRODUCTIONS["psi-table1"].compare(table, "food101")
    assert (right.ratio, right.agrees) == (1.0, True)
    assert wrong.ratio == pytest.approx(0.01)
    assert not wrong.agrees
    rng = np.random.default_rng(0)
    psi = rng.normal(size=30)
    at = pd.DataFrame({"psi": psi, "accuracy_at_1.0e-02": -psi})
    (found,) = REPRODUCTIONS["psi-figure7"].compare(at, "digits")
    assert found.ours == pytest.approx(-1)


def test_numbers_of_sutton_are_of_their_data():
    row = {"part": "test", "accuracy": 95.8, "adversarial": 60.0, "random_2": 0.17, "random_5": 2.5}
    table = pd.DataFrame([row, {**row, "part": "train"}])
    found = REPRODUCTIONS["sutton-cifar10"].compare(table, "cifar10")
    by = {c.what: c for c in found}
    assert by["test, median of 9 pairs: accuracy, %"].agrees
    assert not by["test, median of 9 pairs: images with an attack, %"].agrees
    assert by["test, median of 9 pairs: broken by noise, δ = 10, %"].agrees is None
    assert REPRODUCTIONS["sutton-cifar10"].compare(table, "digits") == []


def test_what_the_entropy_term_adds():
    rows = [
        {"net": net, "training": training, "repeat": 0, "attack": "PGD-20",
         "gradients": "its own", "epsilon": 0.1, "accuracy": accuracy}
        for net, training, accuracy in (
            ("a", "plain", 0.2), ("a", "λ = 4.5", 0.5), ("b", "step-ll", 0.4),
            ("b", "step-ll, λ = 4.5", 0.5),
        )
    ]  # fmt: skip
    (found,) = REPRODUCTIONS["cubuk-figure5"].compare(pd.DataFrame(rows), "mnist")
    assert found.ours == pytest.approx(0.2)  # the median of .3 and .1
    assert found.agrees


# ------------------------------------------------------------------------------------------- page


def test_one_that_fails_is_on_the_page_with_its_reason(tmp_path):
    found, said = all_of(tmp_path)
    assert {name: o.state for name, o in found.items()} == {
        "sutton-theory": DONE,
        "peck-counterexamples": FAILED,
    }
    assert any(line.startswith("[2/2] peck-counterexamples: failed: InputError") for line in said)
    written = write_page(tmp_path, quick=True)
    text = written.path.read_text(encoding="utf-8")
    assert "expected data, got none of &lt;script&gt;" in text
    assert "<script" not in text
    assert "1 of 2 tables and figures are there; 1 failed: peck-counterexamples." in written.summary
    # theorem 1 has a bound on the wrong side, and a draw is off by more than 5 standard errors
    assert "1 agree, 2 differ and 0 were not measured" in written.summary
    assert "http" not in text.replace("http-equiv", "")


def test_what_is_done_is_left_and_what_failed_is_tried_again(tmp_path):
    all_of(tmp_path)
    seen = []

    def again(plan, report, **_settings):
        seen.append(plan.name)
        plan.directory.mkdir(exist_ok=True)
        write_view(plan.directory, plan.name, View(TABLES[plan.name], [], Figure(figsize=(2, 1))))
        return True

    found, said = all_of(tmp_path, carry=again)
    assert seen == ["peck-counterexamples"]
    assert said[0] == "[1/2] sutton-theory: there already"
    assert all(o.state == DONE for o in found.values())
    assert "2 of 2" in write_page(tmp_path, quick=True).summary


def test_a_stop_ends_all(tmp_path):
    found, _ = all_of(tmp_path, carry=lambda *_a, **_s: False)
    assert found is None
    assert read_outcomes(tmp_path) == {}


def test_settings_that_one_refuses_stop_all_before_anything(tmp_path):
    with pytest.raises(InputError, match="--set"):
        all_of(tmp_path, assignments=["seed=1"])
    assert list(tmp_path.iterdir()) == []


def test_outcomes_of_another_version_or_broken_are_not_known(tmp_path):
    write_outcome(tmp_path, "psi-table1", outcome(DONE, "", seconds=1, quick=True, key="a"))
    file = tmp_path / "reproduction.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    known["psi-table1"]["news"] = 1
    file.write_text(json.dumps(known), encoding="utf-8")
    assert read_outcomes(tmp_path)["psi-table1"].seconds == 1
    file.write_text("[", encoding="utf-8")
    assert read_outcomes(tmp_path) == {}


def test_a_table_that_is_broken_is_a_problem_of_its_own(tmp_path):
    all_of(tmp_path)
    (tmp_path / "sutton-theory" / "sutton-theory.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    found = {entry.name: entry for entry in entries(tmp_path, quick=True)}
    assert "theorem" in found["sutton-theory"].problem


def test_the_page_of_nothing_says_so(psinas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = psinas("reproduce", "--page")
    assert code == 0
    assert "0 of 2 tables and figures are there." in out
    assert (tmp_path / "runs" / "reproduction.html").exists()


def test_the_command_ends_with_1_where_one_failed(psinas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launch.commands.reproduce.REPRODUCTIONS", dict.fromkeys(NAMES))
    monkeypatch.setattr("launch.commands.reproduce.every",
                        lambda names, report, **s: every(names, report, carry=carry,
                            **{k: v for k, v in s.items() if k != "carry"}))  # fmt: skip
    code, out, _ = psinas("reproduce", "--all", "--quick")
    assert code == 1
    assert "1 failed:\n  peck-counterexamples: InputError" in out
    assert "page in runs/reproduction.html" in out


@pytest.mark.parametrize(
    "arguments",
    [("--all", "--page"), ("psi-table1", "--page"), (), ("--page", "--out", "x"),
     ("psi-table1", "--gallery", "x")],
)  # fmt: skip
def test_options_that_do_not_go_together(psinas, arguments):
    code, _, err = psinas("reproduce", *arguments)
    assert code == 2
    assert err.count("\n") == 1


# ---------------------------------------------------------------------------------------- gallery


def test_the_gallery_is_small_and_its_numbers_are_the_page_s(tmp_path):
    all_of(tmp_path / "runs")
    target = write_gallery(tmp_path / "runs", tmp_path / "gallery", quick=True)
    text = target.read_text(encoding="utf-8")
    assert "| theorem 1: bounds of 2 on the wrong side | 0 | 1 |  | no |" in text
    assert "<script" not in text
    assert "![" in text
    assert (tmp_path / "gallery" / "sutton-theory.png").stat().st_size <= PICTURE


def test_a_picture_is_shrunk_until_it_is_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    small = shrunk(tmp_path / "noise.png", most=2_000)
    assert len(small) <= 2_000 < (tmp_path / "noise.png").stat().st_size
    assert len(REPRODUCTIONS) * PICTURE > ALL  # so that all of them need a limit of their own


def test_plain_text():
    assert plain("a|b\n<i> `c` [d]") == r"a\|b &lt;i&gt; \`c\` \[d\]"
