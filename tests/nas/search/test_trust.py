"""A trial with a suspicion flag is marked wherever it is shown, and does not win in silence."""

from __future__ import annotations

import json
import math

import pytest
from helpers import TINY, one_line, search_here

from launch.config.config import parse_config
from launch.show.progress import Progress
from launch.show.scored import flag_lines
from launch.show.tables import front_of
from metrics.robustness.flags import FLAGS, HARMLESS, Flag
from metrics.robustness.scores import Suspicion
from nas.export.export import model_card
from nas.ledger.table import load_table
from nas.search import trust
from nas.search.trust import ADVICE, advice, suspicions
from nas.search.winners import best, overruled, worth_keeping

MASKING = {
    **TINY,
    "name": "masking",
    "space": {"name": "faulty_spaces:Masking"},
    "data": {"name": "digits", "limit": {"train": 400, "validation": 200}},
    "recipe": {"epochs": 4, "batch_size": 64, "epsilon": 0.1, "adversary": "none"},
    "metrics": ["clean", {"name": "pgd", "steps": 5}, "cost", "suspicion"],
    "sampler": {"name": "grid"},
}


@pytest.fixture(scope="module")
def masking(tmp_path_factory):
    """Return a finished search in which the two nets that mask gradients score best."""
    return search_here(tmp_path_factory.mktemp("runs") / "masking", MASKING)


@pytest.fixture(scope="module")
def table(masking):
    found = load_table(masking)
    masked = found[found["masks"]]["pgd_accuracy"].min()
    assert masked > found[~found["masks"]]["pgd_accuracy"].max() + 0.1
    return found


def test_the_row_holds_values_thresholds_and_flags(table):
    assert (table["suspicious"] > 0).tolist() == table["masks"].tolist()
    flag = "suspicion_zero_gradient"
    assert (table[f"{flag}_raised"] == (table[flag] > table[f"{flag}_threshold"])).all()
    assert (table[f"{flag}_raised"] == table["masks"]).all()


def test_the_winner_is_the_best_that_is_believed(masking, table, psinas, tmp_path):
    legend = parse_config(MASKING).plan().legend
    honest = table[~table["masks"]]
    expected = honest.loc[honest["pgd_accuracy"].idxmax(), "number"]
    code, out, err = psinas(
        "export", "--formats", "weights", masking, "--best", "pgd_accuracy", "--out", tmp_path / "e"
    )
    assert code == 0, err
    assert f"trial {expected} exported" in out
    for number in table[table["masks"]]["number"]:
        assert f"trial {number} has pgd_accuracy" in out
    assert out.count("left out") == 2
    assert out.count(f"  zero_gradient: {ADVICE['zero_gradient']}\n") == 1
    assert "No sign of masked gradients" in (tmp_path / "e" / "README.md").read_text()
    assert "No sign of masked gradients" in (masking / "best" / "README.md").read_text()
    assert front_of(table, legend, trust=True).numbers == {expected}
    assert expected not in front_of(table, legend).numbers


def test_tables_mark_it_and_trust_leaves_it_out(masking, table, psinas):
    masked = table[table["masks"]].sort_values("pgd_accuracy")["number"].tolist()
    _, out, _ = psinas("trials", masking)
    assert f"{masked[-1]}*!" in out
    for number in masked:
        assert f"! trial {number} is suspicious: " in out
    assert "suspicion_" not in out.splitlines()[0]
    _, front, _ = psinas("trials", masking, "--trust", "--pareto", "pgd_accuracy")
    assert "!" not in front
    _, text, _ = psinas("trials", masking, "--trust", "--sort", "pgd_accuracy", "--top", 1,
                        "--format", "json")  # fmt: skip
    assert [row["masks"] for row in json.loads(text)] == [False]
    _, out, _ = psinas("trials", masking, "--trust")
    assert f"{masked[-1]}*!" not in out
    assert f"{masked[-1]}!" in out
    assert out.count(f"  zero_gradient: {ADVICE['zero_gradient']}\n") == 1


def test_trust_needs_the_metric(psinas, tmp_path):
    one_line(psinas("trials", search_here(tmp_path / "tiny", TINY), "--trust"), "suspicion")


def test_where_every_trial_is_suspicious_one_wins_aloud(masking, psinas, tmp_path):
    results = [
        {"number": i, "status": "complete",
         "scores": {"a": float(i), "suspicion_zero_gradient_raised": 1.0}}
        for i in range(3)
    ]  # fmt: skip
    winner = best(results, "a", "max")
    assert winner["number"] == 2
    assert overruled(results, winner, "a", "max") == []
    results[0]["scores"]["suspicion_zero_gradient_raised"] = 0.0
    assert best(results, "a", "max")["number"] == 0
    assert [r["number"] for r in overruled(results, results[0], "a", "max")] == [1, 2]
    assert overruled(results, results[0], "a", "min") == []


def test_an_export_of_a_suspicious_trial_says_so(masking, table, psinas, tmp_path):
    number = table[table["masks"]]["number"].iloc[0]
    code, out, err = psinas(
        "export", "--formats", "weights", masking, "--trial", number, "--out", tmp_path / "e"
    )
    assert code == 0, err
    assert "is suspicious: " in out
    assert "**Suspicious: " in (tmp_path / "e" / "README.md").read_text()


def test_the_live_display_marks_it(capsys):
    from types import SimpleNamespace

    from rich.console import Console

    scores = {"pgd_accuracy": 0.5, "suspicion_zero_gradient_raised": 1.0}
    outcome = {"status": "complete", "scores": scores, "seconds": 1.0, "reason": "",
               "architecture": {"choices": {"depth": 2}, "hash": "ab"}}  # fmt: skip
    plan = SimpleNamespace(objectives={"pgd_accuracy": "max"}, budget=4, told_apart=["depth"])
    search = SimpleNamespace(
        plan=plan, finished=1, running={}, results=list, params=lambda number: {"depth": 2}
    )
    Progress(Console(width=200)).finished(7, outcome, search)
    assert "! suspicious: zero_gradient" in capsys.readouterr().out


def test_a_second_search_knows_nothing_of_the_first_ones_best():
    from types import SimpleNamespace

    from rich.console import Console

    def of(results):
        plan = SimpleNamespace(objectives={"a": "max"}, budget=4, told_apart=["d"])
        return SimpleNamespace(
            plan=plan, finished=len(results), running={}, results=lambda: results
        )

    progress = Progress(Console(width=200, quiet=True))
    progress.begin(of([{"number": 7, "status": "complete", "scores": {"a": 0.9}}]), 1)
    assert "best a 0.9 (trial 7)" in progress._told(of([]))
    progress.begin(of([]), 1)
    assert "best" not in progress._told(of([]))


def test_score_prints_the_flags(masking, table, psinas, tmp_path):
    masked, honest = (table[table["masks"] == m]["number"].iloc[0] for m in (True, False))
    psinas(
        "export", "--formats", "weights", masking, "--trial", masked, "--out", tmp_path / "masked"
    )
    for target, wanted in ((tmp_path / "masked", True), (f"{masking}:{honest}", False)):
        code, out, err = psinas("score", target, "--metrics", "clean", "--suspicion")
        assert code == 0, err
        lines = [line for line in out.splitlines() if line.startswith("suspicion_")]
        assert len(lines) == 14
        assert all("threshold" in line for line in lines)
        zero = next(line for line in lines if line.startswith("suspicion_zero_gradient"))
        assert zero.endswith("RAISED") == wanted
        told = [line for line in out.splitlines() if line.startswith("! ")]
        assert (f"! zero_gradient: {ADVICE['zero_gradient']}" in told) == wanted
        assert len(told) == sum(line.endswith("RAISED") for line in lines)


def test_every_flag_has_one_line_of_advice():
    assert FLAGS.keys() == ADVICE.keys()
    assert HARMLESS == trust.HARMLESS <= FLAGS.keys()
    assert all(text and text.strip(" .") == text and "\n" not in text for text in ADVICE.values())


def test_advice_is_given_once_for_what_is_raised():
    assert advice(["zero_gradient", "not_converged", "zero_gradient", "of_somebody"]) == [
        f"{flag}: {ADVICE[flag]}" for flag in ("zero_gradient", "not_converged")
    ]
    assert advice([]) == []


def test_a_check_that_could_not_run_is_said_to_be_none():
    scores = {"suspicion_a": math.nan, "suspicion_a_threshold": 0.5, "suspicion_a_raised": math.nan,
              "suspicion_not_converged": 0.9, "suspicion_not_converged_threshold": 0.5,
              "suspicion_not_converged_raised": 1.0}  # fmt: skip
    not_checked, raised, told = flag_lines(scores)
    assert not_checked.split() == ["suspicion_a", "nan", "threshold", "0.5", "not", "checked"]
    assert raised.endswith("RAISED")
    assert told == f"! not_converged: {ADVICE['not_converged']}"
    assert suspicions(scores) == ["not_converged"]


def test_a_check_that_could_not_run_is_not_counted(monkeypatch, digits_net, digits):
    found = [Flag("a", math.nan, 0.5, "it could not run"), Flag("b", 1.0, 0.5), Flag("c", 0.0, 0.5)]
    found += [Flag(name, 0.0, 1.0) for name in list(FLAGS)[3:]]
    monkeypatch.setattr("metrics.robustness.scores.suspicion", lambda *_, **__: tuple(found))
    x, y = digits.validation.images(slice(10)), digits.validation.labels[:10]
    values = list(Suspicion()(digits_net, x, y).values())
    assert values[0] == 1.0
    assert [str(value) for value in values[3::3]][:3] == ["nan", "1.0", "0.0"]


def test_a_card_without_the_metric_says_so():
    description = {
        "architecture": {"space": "s", "choices": {}, "hash": "h"},
        "task": {"shape": (1, 8, 8), "classes": 10},
        "trial": {"number": 0, "seed": 0, "scores": {"clean_accuracy": 0.5}, "recipe": {},
                  "environment": {}, "data": {"name": "digits"}},
    }  # fmt: skip
    assert "did not look for masked gradients" in model_card(description)


def test_names_of_raised_flags():
    scores = {"suspicion_a_raised": 1.0, "suspicion_b_raised": 0.0, "suspicion_a": 1.0,
              "mine_suspicion_c_raised": 1.0, "raised": 1.0}  # fmt: skip
    assert suspicions(scores) == ["a", "c"]


def test_weights_of_the_best_that_is_believed_are_kept():
    """Also where suspicious trials fill the front and the top."""
    results = [
        {"number": i, "status": "complete",
         "scores": {"a": float(i), "suspicion_zero_gradient_raised": float(i > 2)}}
        for i in range(8)
    ]  # fmt: skip
    kept = [r["number"] for r in worth_keeping(results, {"a": "max"}, top=2)]
    assert kept == [1, 2, 6, 7]
    assert best(results, "a", "max")["number"] in kept
    one_by_one: list = []
    for result in results:  # a search only passes what it kept and the newest
        one_by_one = worth_keeping([*one_by_one, result], {"a": "max"}, top=2)
    assert [r["number"] for r in one_by_one] == kept


def test_saturated_logits_are_told_and_raise_no_doubt():
    scores = {"suspicion_saturated_logits_raised": 1.0, "suspicion_zero_gradient_raised": 1.0}
    assert suspicions(scores) == ["zero_gradient"]
