"""Trials of other runs are taken over where they are equal, and only there."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import one_line, search_here

from launch.cluster.thrift import take_over
from launch.config.config import parse_config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.reuse import equal_trials, open_earlier
from launch.runs.run import Run
from launch.show.reporter import Reporter
from nas.ledger.table import load_table
from nas.search.reuse import fetch_weights
from nas.search.rungs import Rungs
from nas.search.sampling import Proposal
from nas.trial.files import drop_weights
from nas.trial.training import EPOCH_SCORES
from search_spaces import load

TIMINGS = ["train_seconds", "score_seconds", "seconds"]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Return a finished run: the four trials of the tiny search."""
    from helpers import TINY

    return search_here(tmp_path_factory.mktemp("runs") / "a", TINY)


@pytest.fixture
def search(psinas, tmp_path, in_process):
    """Return a function that searches with --reuse, by the command, without Ray."""

    def run(document, out, *arguments):
        config = tmp_path / f"{out}.yaml"
        config.write_text(yaml.safe_dump(document))
        return psinas("search", config, "--out", tmp_path / out, *arguments)

    return run


def state(directory):
    """Return what a directory holds: file -> content and the time of its last change."""
    files = (Path(place) / name for place, _, names in os.walk(directory) for name in names)
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_equal_trials_are_reused_with_their_scores_weights_and_origin(
    earlier, search, tiny, tmp_path, in_process
):
    before = state(earlier)
    code, out, err = search(tiny, "b", "--reuse", earlier)
    assert code == 0, err
    run = tmp_path / "b"
    assert f"--reuse {earlier}: 4 of its 4 finished trials have this search's seed" in out
    assert out.count(f"(reused from {earlier}:") == 4
    assert "4 trials in" in out
    assert "4 of them reused" in out
    table, whole = load_table(run), load_table(earlier)
    assert list(table["reused_from"]) == [f"{earlier}:{n}" for n in whole["number"]]
    assert table.drop(columns="reused_from").equals(whole)  # times too: they are of the other run
    winner = Run(run).best().number
    for name in ("weights.safetensors", "architecture.json", "epochs.csv"):
        path = Path("trials", str(winner), name)
        assert filecmp.cmp(run / path, earlier / path, shallow=False)
    exported = load(run / "best")
    with torch.no_grad():
        assert exported(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert state(earlier) == before
    assert in_process == []  # nothing was trained


def test_a_trial_that_is_not_there_is_trained_and_the_others_are_not(
    earlier, search, tiny, tmp_path, in_process
):
    wider = tiny | {"space": {**tiny["space"], "channels": [4, 6, 8]}}
    assert search(wider, "b", "--reuse", earlier)[0] == 0
    assert [trial.architecture["channels"] for trial in in_process] == [8, 8]
    reused = search_here(tmp_path / "alone", wider)
    a, b = (load_table(r).drop(columns=TIMINGS) for r in (tmp_path / "b", reused))
    assert (a["reused_from"] == "").sum() == 2
    assert a.drop(columns="reused_from").equals(b)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 1}, "its seed is 0, this search's is 1"),
        ({"recipe": {"epochs": 2, "batch_size": 64}}, "its recipe.epochs is 1, this search's is 2"),
        ({"repeats": 2}, "its repeats is 1, this search's is 2"),
        ({"metrics": ["clean", {"name": "pgd", "steps": 3}]}, "its metrics are others"),
        (
            {"data": {"name": "digits", "limit": {"train": 120, "validation": 60}}},
            "its data.limit.train is 128, this search's is 120",
        ),
    ],
)
def test_what_is_not_equal_is_not_reused_and_one_line_says_why(
    changes, why, earlier, tiny, tmp_path
):
    for key, value in changes.items():
        tiny[key] = {**tiny[key], **value} if isinstance(value, dict) else value
    config, said = parse_config(tiny), []
    own = tmp_path / "b"
    own.mkdir()
    (own / "config.yaml").write_text(yaml.safe_dump(config.resolved()))
    runs = open_earlier([earlier], own)
    assert equal_trials(runs, own, config, config.plan(), said.append) == {}
    assert len(said) == 1
    assert said[0].startswith(f"--reuse {earlier}: none of its 4 finished trials equals one of")
    assert why in said[0]


def settled(document, own, **checksums):
    """Return a configuration, saved as that of a run with these checksums of its data."""
    config = parse_config(document)
    own.mkdir()
    saved = {**config.resolved(), "data_checksum": checksums}
    (own / "config.yaml").write_text(yaml.safe_dump(saved))
    return config


def test_other_images_under_the_same_name_are_not_equal(earlier, tiny, tmp_path):
    own, said = tmp_path / "b", []
    config = settled(tiny, own, digits={"train": "0" * 16})
    runs = open_earlier([earlier], own)
    assert equal_trials(runs, own, config, config.plan(), said.append) == {}
    assert "its digits had other images or labels" in said[0]


def test_failures_of_the_trial_itself_are_reused_and_those_of_a_machine_are_not(
    earlier, tiny, tmp_path
):
    copied = rewritten(
        earlier,
        tmp_path / "a",
        {0: "invalid", 1: "oom", 2: "error"},
    )
    own = tmp_path / "b"
    config = settled(tiny, own)
    known = equal_trials(open_earlier([copied], own), own, config, config.plan(), print)
    assert sorted(e.result["status"] for e in known.values()) == ["complete", "invalid"]
    known = equal_trials(
        open_earlier([copied], own), own, config, config.plan(), print, failures=False
    )
    assert [e.result["status"] for e in known.values()] == ["complete"]
    both = open_earlier([copied, earlier], own)
    known = equal_trials(both, own, config, config.plan(), print)
    assert [e.result["status"] for e in known.values()] == ["complete"] * 4
    assert sum(e.homes[0][0] == copied for e in known.values()) == 1


def rewritten(run, copy, statuses):
    """Return a copy of a run in whose ledger some trials failed."""
    import shutil

    shutil.copytree(run, copy)
    lines = []
    for line in (copy / "study.journal").read_text().splitlines():
        told = json.loads(line)
        result = told.get("user_attr", {}).get("psinas")
        if result is not None and (status := statuses.get(told["trial_id"])):
            result |= {"status": status, "reason": "as planted", "scores": {}}
        lines.append(json.dumps(told))
    (copy / "study.journal").write_text("\n".join(lines) + "\n")
    return copy


def test_an_objective_that_was_not_finite_there_may_be_none_here(
    earlier, tiny, tmp_path, search, in_process
):
    """A trial that trained to its end is judged by the objectives of the search that takes it."""
    copied = rewritten(earlier, tmp_path / "a", {})
    path = copied / "study.journal"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for told in lines:
        result = told.get("user_attr", {}).get("psinas")
        if result is not None and told["trial_id"] == 0:
            result |= {"status": "diverged", "reason": "as planted"}
            result["scores"]["psi"] = float("nan")
    path.write_text("".join(json.dumps(told) + "\n" for told in lines))
    assert search(tiny, "b", "--reuse", copied)[0] == 0
    assert list(load_table(tmp_path / "b")["status"]) == ["complete"] * 4
    other = tiny | {"objectives": {"psi": "min"}}
    assert search(other, "c", "--reuse", copied)[0] == 0
    statuses = load_table(tmp_path / "c")["status"]
    assert sorted(statuses) == ["complete"] * 3 + ["diverged"]
    assert in_process == []


def test_weights_that_lie_nowhere_are_said_and_a_replay_makes_them(
    earlier, tiny, tmp_path, search, psinas, in_process
):
    copied = rewritten(earlier, tmp_path / "a", {})
    drop_weights(copied, range(4))
    code, out, err = search(tiny, "b", "--reuse", copied)
    assert code == 0, err
    run = tmp_path / "b"
    number = Run(run).best().number
    assert f"reused from {copied}:{number}, which has no weights of it" in out
    assert f"`psinas replay {run} --trial {number}` trains them again" in out
    assert not (run / "best").exists()
    assert in_process == []
    assert psinas("replay", run, "--trial", number)[0] == 0
    assert (
        psinas("export", "--formats", "weights", run, "--trial", number, "--out", tmp_path / "out")[
            0
        ]
        == 0
    )


def test_a_reused_trial_is_reused_again_with_the_weights_of_whoever_has_them(
    earlier, tiny, tmp_path, search, psinas, in_process
):
    assert search(tiny, "b", "--reuse", earlier)[0] == 0
    middle = tmp_path / "b"
    drop_weights(middle, range(4))
    assert search(tiny, "c", "--reuse", middle)[0] == 0
    run = tmp_path / "c"
    winner = Run(run).best()
    assert winner.result["reused_from"] == f"{earlier}:{winner.number}"
    path = Path("trials", str(winner.number), "weights.safetensors")
    assert filecmp.cmp(run / path, earlier / path, shallow=False)
    drop_weights(run, range(4))
    out = tmp_path / "out"
    assert (
        psinas("export", "--formats", "weights", run, "--trial", winner.number, "--out", out)[0]
        == 0
    )
    assert (out / "model.safetensors").exists()
    assert in_process == []


@pytest.mark.parametrize("kind", ["missing", "empty", "broken", "itself"])
def test_a_run_that_cannot_be_read_is_refused_before_anything_begins(
    kind, earlier, tiny, tmp_path, search
):
    named = tmp_path / "named"
    expected = "--reuse: expected a run directory"
    if kind == "empty":
        named.mkdir()
    elif kind == "broken":
        copied = rewritten(earlier, named, {})
        journal = copied / "study.journal"
        lines = journal.read_text().splitlines()
        journal.write_text("\n".join([lines[0], "{broken", *lines[1:]]) + "\n")
        expected = "--reuse: "
    elif kind == "itself":
        rewritten(earlier, tmp_path / "b", {})
        named, expected = tmp_path / "b", "--reuse: expected other runs than the search's own"
    before = state(tmp_path)
    one_line(search(tiny, "b", "--reuse", named, "--resume"), expected, str(named))
    after = state(tmp_path)
    assert {p: after[p] for p in before if p in after} == {
        p: v for p, v in before.items() if p.name != "b.yaml"
    } | {p: after[p] for p in before if p.name == "b.yaml"}
    assert (tmp_path / "b").exists() == (kind == "itself")


def test_a_resume_takes_over_what_is_left(earlier, tiny, tmp_path, search, in_process):
    """The first half was trained here; --reuse answers the rest."""
    half = search_here(tmp_path / "b", tiny | {"trials": 2})
    code, out, err = search(tiny, "b", "--resume", "--trials", 4, "--reuse", earlier)
    assert code == 0, err
    table = load_table(half)
    assert in_process == []
    assert list(table["reused_from"] != "") == [False, False, True, True]
    columns = ["pgd_accuracy", "clean_accuracy", "psi"]
    whole = load_table(earlier)
    assert np.array_equal(table[columns].to_numpy(), whole[columns].to_numpy())


def test_a_driver_that_died_leaves_trials_that_are_reused(earlier, tiny, tmp_path, search):
    """Whoever takes over a running trial asks the other runs first."""
    run = search_here(tmp_path / "b", tiny | {"trials": 1})
    config = parse_config(yaml.safe_load((run / "config.yaml").read_text()) | {"trials": 4})
    going = open_search(run, config)
    number = going.propose().number  # and dies
    code, out, err = search(tiny, "b", "--resume", "--trials", 4, "--reuse", earlier)
    assert code == 0, err
    assert f"trial {number}: " in out
    assert load_table(run)["reused_from"][number] == f"{earlier}:{number}"


def test_a_scheduler_counts_a_reused_trial_at_every_rung_that_it_reached(tiny, tmp_path):
    """As its worker reported them; of one whose epochs nobody knows nothing is taken."""
    longer = tiny | {"recipe": {**tiny["recipe"], "epochs": 3}, "trials": 2}
    run, own = search_here(tmp_path / "a", longer), tmp_path / "b"
    config = settled(longer, own)
    plan = config.plan()
    known = equal_trials(open_earlier([run], own), own, config, plan, print)
    for number in range(2):
        trial = Run(run).trial(number).trial
        rungs = Rungs((1, 2, 3), {"robust_accuracy": "max"}, 2)
        outcome = take_over(own, Proposal(7 + number, trial, {}), known, rungs)
        saved = json.loads((run / "trials" / str(number) / "outcome.json").read_text())
        expected = {
            str(r["epoch"]): {name: r[name] for name in EPOCH_SCORES} for r in saved["reports"][:2]
        }
        assert rungs.reached(7 + number) == expected
        assert outcome["scores"] == saved["outcome"]["scores"]
        assert not {"number", "key", "order", "architecture"} & outcome.keys()
        (run / "trials" / str(number) / "epochs.csv").unlink()
        assert take_over(own, Proposal(20, trial, {}), known, rungs) is None
        assert rungs.reached(20) == {}
        assert take_over(own, Proposal(20, trial, {}), {}, None) is None


def test_drivers_of_a_database_give_their_trials_and_take_over_others(
    earlier, tiny, tmp_path, search, in_process
):
    """Of each the weights lie in its own directory, and both have reused some."""
    shared = tiny | {"storage": f"sqlite:///{tmp_path / 'ledger.db'}"}
    assert search(shared | {"trials": 2}, "one", "--reuse", earlier)[0] == 0
    code, out, err = search(shared | {"trials": 4}, "two", "--join", "--reuse", earlier)
    assert code == 0, err
    assert in_process == []
    assert out.count("(reused from ") == 2
    whole = load_table(earlier)
    assert load_table(tmp_path / "two").drop(columns="reused_from").equals(whole)
    drop_weights(tmp_path / "two", range(4))
    code, out, err = search(tiny, "c", "--reuse", tmp_path / "two")
    assert code == 0, err
    assert in_process == []
    run = tmp_path / "c"
    origins = Run(run).table()["reused_from"]
    assert origins[0] == f"{tmp_path / 'one'}:0"  # of two drivers whose files they are
    assert load_table(run).drop(columns="reused_from").equals(whole)


def test_a_run_of_an_earlier_version_is_a_source(tmp_path):
    """It has no checksums, no places and fewer keys in its configuration."""
    old = Path(__file__).with_name("old-run")
    own = tmp_path / "b"
    own.mkdir()
    config = Run(old).config.model_copy(update={"scheduler": None, "trials": 100})
    (own / "config.yaml").write_text(yaml.safe_dump(config.resolved()))
    known = equal_trials(open_earlier([old], own), own, config, config.plan(), print)
    ended = {r["key"]: r["scores"] for r in Run(old).results if r["status"] == "complete"}
    assert len(ended) > 0
    assert {key: earlier.result["scores"] for key, earlier in known.items()} == ended
    row = known[next(k for k, e in known.items() if e.result["number"] == 4)]
    number, outcome = 0, row.outcome()
    row.copy_files(own, number)
    fetch_weights(own, [{"number": number, **outcome}])
    for name in ("architecture.json", "weights.safetensors"):
        copied = own / "trials" / "0" / name
        assert filecmp.cmp(copied, old / "trials" / "4" / name, shallow=False)


def asked_by_tune(earlier, document, own):
    """Return what Tune asks for trials, which takes over those of another run, and its search."""
    from searchers import searcher_over  # ray, which is no matter of the other tests

    make_directory(own)
    config = settle_config(own, parse_config(document), resume=False, keep_trials=False)
    search = open_search(own, config)
    known = equal_trials(open_earlier([earlier], own), own, config, search.plan, print)
    progress = Reporter().progress
    asks = searcher_over(search, config, own, progress, cores=1, earlier=known)
    return asks, search


def test_a_bound_on_disk_ends_the_taking_over_too(earlier, tiny, tmp_path):
    tiny["keep"] = {"disk_bytes": "32 kB"}
    asks, search = asked_by_tune(earlier, tiny, tmp_path / "b")
    assert asks.suggest("first") == asks.FINISHED
    assert asks.thrift.halted is not None
    assert 0 < search.finished < 4


@pytest.mark.parametrize(("seconds", "asked"), [(1000.0, 1), (0.0, 4)])
def test_tune_hears_of_its_own_trials_while_many_are_taken_over(
    seconds, asked, earlier, tiny, tmp_path, monkeypatch
):
    from launch.cluster import searcher

    monkeypatch.setattr(searcher, "TAKE_SECONDS", seconds)
    asks, search = asked_by_tune(earlier, tiny, tmp_path / "b")
    answers = [asks.suggest(str(number)) for number in range(asked)]
    assert answers[:-1] == [None] * (asked - 1)
    assert asks.failure is None
    assert search.finished == 4
    assert asks.suggest("last") == searcher.StudySearcher.FINISHED
