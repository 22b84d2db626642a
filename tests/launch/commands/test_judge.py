"""The best before a stronger judge: new scores of the same rows, resumable, old ones untouched."""

from __future__ import annotations

import shutil

import pytest
import torch
from helpers import TINY, one_line, search_here

import launch.runs.judge
from launch.runs.chosen import choose
from launch.runs.run import Run
from launch.runs.subject import trial_model
from metrics import APGD, robust_accuracy
from nas.analysis import judge
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.ledger.lock import OWNER, RunLock
from nas.ledger.table import load_table
from nas.seeds import derive_seed

STRONG = "{name: apgd, steps: 5}"


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return a finished search of four trials with their weights, which no test writes to."""
    document = {**TINY, "keep": {"top": 4}}
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", document)


@pytest.fixture
def run(tmp_path, searched):
    """Return a copy of the search."""
    return shutil.copytree(searched, tmp_path / "runs" / "tiny")


@pytest.fixture
def asked(monkeypatch):
    """Return what the judges were asked: labels, as they come."""
    labels = []
    before = launch.runs.judge.judged_scores

    def counted(*arguments, **settings):
        labels.append(arguments[3].prefix)
        return before(*arguments, **settings)

    monkeypatch.setattr(launch.runs.judge, "judged_scores", counted)
    return labels


def judged(psinas, run, *options):
    return psinas("judge", run, "--workers", 1, *options)


def test_the_new_scores_are_those_of_the_attack_and_the_old_ones_stay(run, psinas):
    before = load_table(run)
    code, out, err = judged(psinas, run, "--top", 2, "--attack", STRONG, "--images", 40)
    assert code == 0, err
    after = load_table(run)
    assert after[before.columns].equals(before)
    best = before.sort_values("pgd_accuracy", ascending=False, kind="stable")["number"][:2]
    row = after.set_index("number").loc[best.iloc[0]]
    found = Run(run)
    trial = found.trial(int(best.iloc[0]))
    data = prepare(load_images(trial.trial.data), trial.trial.data).validation
    generator = torch.Generator().manual_seed(derive_seed(0, "judge", "apgd"))
    attack = APGD(epsilon=0.1, steps=5)
    x, y = data.images(slice(40)), data.labels[:40]
    model = trial_model(found, trial)
    expected = robust_accuracy(model, x, y, attack, generator=generator).accuracy
    assert row["judge_apgd_accuracy"] == expected
    assert row["judge_apgd_accuracy_low"] < expected < row["judge_apgd_accuracy_high"]
    assert (row["judge_apgd_images"], row["judge_apgd_passes"]) == (40, 10)
    assert set(after[after["judge_apgd_accuracy"].notna()]["number"]) == set(best)
    verdict = judge(after)
    assert f"Trial {verdict.winner} has the best lower end" in out
    assert "judge_apgd_accuracy" in (run / "trials.csv").read_text().splitlines()[0]
    assert "judge_apgd_accuracy" in psinas("trials", run)[1]


def test_what_is_known_is_not_asked_again(run, psinas, asked):
    judged(psinas, run, "--trials", "0", "--attack", STRONG)
    code, out, _ = judged(psinas, run, "--trials", "0,1", "--attack", STRONG, "--attack", "fgsm")
    assert code == 0
    assert asked == ["apgd", "fgsm", "apgd", "fgsm"]
    assert "3 judgements added, 1 were known" in out
    code, out, _ = judged(psinas, run, "--trials", "0,1", "--attack", STRONG, "--attack", "fgsm")
    assert len(asked) == 4
    assert "0 judgements added, 4 were known" in out


def test_whoever_is_killed_loses_only_what_ran(run, psinas, asked, monkeypatch):
    before = launch.runs.judge.judged_scores

    def killed(*arguments, **settings):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return before(*arguments, **settings)

    monkeypatch.setattr(launch.runs.judge, "judged_scores", killed)
    assert judged(psinas, run, "--top", 4, "--attack", STRONG)[0] == 130
    assert load_table(run)["judge_apgd_accuracy"].notna().sum() == 2
    monkeypatch.setattr(launch.runs.judge, "judged_scores", before)
    code, out, _ = judged(psinas, run, "--top", 4, "--attack", STRONG)
    assert code == 0
    assert "2 judgements added, 2 were known" in out
    assert len(asked) == 4


def test_trials_without_weights_are_named_with_the_remedy(run, psinas):
    shutil.rmtree(run / "trials" / "1")
    code, out, _ = judged(psinas, run, "--trials", "0,1", "--attack", STRONG)
    assert code == 0
    assert f"trial 1 has no weights: `psinas replay {run} --trial 1`" in out
    assert "Not judged, without weights: 1" in out
    code, out, _ = judged(psinas, run, "--trials", "1", "--attack", STRONG)
    assert code == 1
    assert "no candidate was judged" in out


def test_an_attack_that_fails_is_told_and_the_others_go_on(run, psinas, monkeypatch):
    before = launch.runs.judge.judged_scores

    def faulty(*arguments, **settings):
        if arguments[3].prefix == "fgsm":
            raise RuntimeError("no luck")
        return before(*arguments, **settings)

    monkeypatch.setattr(launch.runs.judge, "judged_scores", faulty)
    code, out, _ = judged(psinas, run, "--trials", "0", "--attack", "fgsm", "--attack", STRONG)
    assert code == 1
    assert "trial 0: fgsm failed: RuntimeError: no luck" in out
    assert load_table(run)["judge_apgd_accuracy"].notna().sum() == 1


def test_another_judge_of_the_same_name_is_refused_and_named_otherwise_heard(run, psinas):
    judged(psinas, run, "--trials", "0", "--attack", STRONG)
    other = "{name: apgd, steps: 6}"
    one_line(judged(psinas, run, "--trials", "0", "--attack", other), "as: NAME", "steps 5")
    code, out, _ = judged(
        psinas, run, "--trials", "0", "--attack", "{name: apgd, steps: 6, as: six}"
    )
    assert code == 0
    assert load_table(run).set_index("number").loc[0, "judge_six_passes"] == 12
    assert "six (12 passes an image" in out


def test_flags_that_a_judge_raises_bar_from_winning_and_a_judges_score_chooses(run, psinas):
    flags = "{name: suspicion, limit: 8, queries: 5, draws: 2}"
    code, out, _ = judged(psinas, run, "--trials", "0,1", "--attack", "fgsm", "--attack", flags)
    assert code == 0
    table = load_table(run).set_index("number")
    assert "judge_suspicion_not_converged_raised" in table
    assert table.loc[0, "judge_suspicion_images"] == 8
    assert "trial 0: suspicion: " in out
    better = table["judge_fgsm_accuracy"].idxmax()
    assert Run(run).best("judge_fgsm_accuracy").number in (0, 1)
    assert choose(Run(run), top=4, score="judge_fgsm_accuracy").numbers
    verdict = judge(table.reset_index().assign(suspicion_not_converged_raised=0.0))
    raised = [n for n in (0, 1) if table.loc[n, "judge_suspicious"] > 0]
    assert sorted(verdict.flagged) == raised
    assert raised or verdict.winner == better


def test_what_cannot_judge_is_one_line(run, psinas):
    one_line(judged(psinas, run, "--attack", "psi"), "--attack: expected one that gives")
    one_line(judged(psinas, run, "--attack", "nothing"), "metrics", "'nothing'")
    one_line(judged(psinas, run, "--attack", "[1]"), "--attack: expected a name")
    one_line(judged(psinas, run, "--attack", "fgsm", "--attack", "fgsm"), "twice", "as: NAME")
    with RunLock(run):
        one_line(judged(psinas, run, "--attack", "fgsm"), "another driver")


def test_the_trace_of_a_driver_that_was_killed_stays(run, psinas):
    (run / OWNER).write_text("pid 1 on nowhere", encoding="utf-8")
    assert judged(psinas, run, "--trials", "0", "--attack", "fgsm")[0] == 0
    assert (run / OWNER).read_text(encoding="utf-8") == "pid 1 on nowhere"


def test_scores_in_a_database_are_found_again(tmp_path, psinas):
    document = {**TINY, "storage": f"sqlite:///{tmp_path}/all.db", "fix": {"depth": 1}}
    run = search_here(tmp_path / "shared", document)
    assert judged(psinas, run, "--trials", "0", "--attack", "fgsm")[0] == 0
    table = load_table(run)
    assert table["judge_fgsm_accuracy"].notna().tolist() == [True, False]
    code, out, _ = judged(psinas, run, "--trials", "0", "--attack", "fgsm")
    assert "0 judgements added, 1 were known" in out
