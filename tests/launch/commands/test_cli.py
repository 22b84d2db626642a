"""What a user types: exit codes, one line for a mistake, and files that are what they say."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import platform
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import TINY, one_line, search_here

from launch.config.config import parse_config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.run import Run
from nas.data.arrays import prepare, prepare_test
from nas.data.datasets import load_images, load_test_images, part_checksum
from nas.device import choose_device
from nas.errors import InputError
from nas.ledger.lock import RunLock
from nas.ledger.table import load_table
from nas.search.books import failure
from nas.trial.evaluation import evaluate
from nas.trial.files import drop_weights
from search_spaces import load, space_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", TINY)


def test_mistakes_are_one_line_and_exit_code_2(psinas, tmp_path, finished):
    out = ["--out", tmp_path / "run"]
    one_line(psinas("search", "moon", *out), "digits", "'moon'")
    one_line(psinas("search", "--set", "recipe.epsilom=1", *out), "recipe.epsilom: unknown key")
    one_line(psinas("search", "--set", "recipe.epsilon=8", *out), "8/255")
    one_line(psinas("search", "--set", "data.name=moon", *out), "data.name: expected one of digits")
    one_line(psinas("search", "--set", "sampler.name=moon", *out), "tpe")
    one_line(psinas("search", "--set", "space.name=moon", *out), "depth-channels")
    one_line(psinas("search", "--trials", "0", *out), "trials")
    assert not (tmp_path / "run").exists()  # nothing was begun
    (tmp_path / "file").write_text("mine")
    one_line(psinas("search", "--out", tmp_path / "file"), "--out: expected a directory to write")
    one_line(psinas("search", "--out", tmp_path / "file" / "run"), "--out: expected a directory")
    one_line(psinas("search", "--out", tmp_path), "with other files")
    assert (tmp_path / "file").read_text() == "mine"
    for command in ("trials", "export", "replay"):
        extra = {"export": ["--trial", 0, "--out", tmp_path / "x"], "replay": ["--trial", 0]}
        one_line(psinas(command, tmp_path / "none", *extra.get(command, [])), "config.yaml")
    one_line(psinas("trials", finished, "--sort", "moon"), "pgd_accuracy", "'moon'")
    one_line(psinas("trials", finished, "--pareto", "pgd_accuracy:up"), "SCORE:max")
    one_line(psinas("trials", finished, "--format", "parquet"), "--out FILE")
    one_line(psinas("trials", finished, "--out", "/none/x", "--format", "csv"), "/none/x")
    one_line(psinas("export", finished, "--out", tmp_path / "x"), "--trial N or --best SCORE")
    one_line(psinas("export", finished, "--best", "moon", "--out", tmp_path / "x"), "pgd_accuracy")
    one_line(psinas("export", finished, "--trial", 99, "--out", tmp_path / "x"), "0 ... 3", "99")
    one_line(psinas("export", finished, "--trial", 0, "--out", tmp_path), "--out: expected a new")
    one_line(psinas("replay", finished, "--trial", -1), "0 ... 3")
    one_line(psinas("score", "nothing"), "EXPORT_DIR")
    one_line(psinas("score", "no.such:thing", "--data", "digits"), "cannot be imported")
    one_line(psinas("score", f"{finished}:0", "--metrics", "moon"), "moon")
    one_line(psinas("score", f"{finished}:0", "--epsilon", "8"), "8/255")
    assert psinas("search", "--no-such-option")[0] == 2
    assert psinas("moon")[0] == 2


def test_debug_shows_the_traceback(psinas):
    with pytest.raises(ValueError, match="digits"):
        psinas("search", "moon", "--debug")


@pytest.mark.parametrize(
    "command",
    ["search", "trials", "export", "replay", "score", "presets", "spaces", "metrics", "samplers",
     "datasets", "doctor"],
)  # fmt: skip
def test_every_command_has_help_with_an_example(command, psinas):
    code, out, _ = psinas(command, "--help")
    assert code == 0
    assert f"Example: psinas {command}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("command", "name"),
    [("presets", "fashion-mnist-grid"), ("spaces", "depth-channels"), ("metrics", "pgd_accuracy"),
     ("samplers", "nsga2"), ("datasets", "npz:PATH"), ("doctor", "torch")],
)  # fmt: skip
def test_lists(command, name, psinas):
    code, out, _ = psinas(command)
    assert code == 0
    assert name in out


def test_a_search_that_is_there_is_not_touched(psinas, finished, tmp_path):
    def contents():
        return {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}

    before = contents()
    config = tmp_path / "tiny.yaml"
    document = yaml.safe_load((finished / "config.yaml").read_text())
    config.write_text(yaml.safe_dump(document))
    one_line(psinas("search", config, "--out", finished), "--resume goes on with it")
    one_line(
        psinas("search", config, "--set", "recipe.epochs=2", "--out", finished, "--resume"),
        "another configuration", "recipe.epochs",
    )  # fmt: skip
    with RunLock(finished):
        one_line(psinas("search", config, "--out", finished, "--resume"), "another driver (pid ")
    after = contents()
    after.pop(finished / "driver.lock", None), before.pop(finished / "driver.lock", None)
    assert after == before


def test_a_refused_start_is_no_obstacle(psinas, tmp_path):
    """Nothing listens at the address; the corrected command is not told of a search there."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"data": {"name": "npz:/nowhere.npz"}}))
    out = ["--out", tmp_path / "run"]
    one_line(psinas("search", config, *out), "/nowhere.npz")
    config.write_text(yaml.safe_dump({"objectives": {"psi": "min", "pgd_accuracy": "max"}}))
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "moon"):
        one_line(psinas("search", config, *out, "--address", address), "--address: expected")


def test_resuming_a_finished_search_says_so(psinas, finished):
    code, out, err = psinas("search", "--resume", "--out", finished)
    assert code == 0, err
    assert "4 trials" in out
    assert "exported" in out


def test_trials_formats_agree(psinas, finished, tmp_path):
    code, table, _ = psinas("trials", finished)
    assert code == 0
    assert "pgd_accuracy" in table
    csv = pd.read_csv(finished / "trials.csv")
    assert len(csv) == 4
    _, text, _ = psinas("trials", finished, "--format", "json")
    assert [row["number"] for row in json.loads(text)] == [0, 1, 2, 3]
    psinas("trials", finished, "--format", "parquet", "--out", tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"),
                                  pd.read_parquet(finished / "trials.parquet"))  # fmt: skip
    _, text, _ = psinas("trials", finished, "--format", "csv", "--sort", "pgd_accuracy", "--top", 2)
    (tmp_path / "sorted.csv").write_text(text)
    top = pd.read_csv(tmp_path / "sorted.csv")["pgd_accuracy"].tolist()
    assert top == sorted(csv["pgd_accuracy"], reverse=True)[:2]
    _, text, _ = psinas(
        "trials", finished, "--format", "json", "--pareto", "pgd_accuracy,parameters"
    )
    for row in json.loads(text):
        better = (csv["pgd_accuracy"] >= row["pgd_accuracy"]) & (
            csv["parameters"] < row["parameters"]
        )
        assert not better.any()


def test_export_gives_the_model_back(psinas, finished, tmp_path):
    out = tmp_path / "winner"
    code, _, err = psinas(
        "export", "--formats", "weights", finished, "--best", "pgd_accuracy", "--out", out
    )
    assert code == 0, err
    assert {p.name for p in out.iterdir()} == {
        "architecture.json",
        "model.safetensors",
        "README.md",
        "manifest.json",
    }
    model = load(out)
    config = parse_config(yaml.safe_load((finished / "config.yaml").read_text()))
    data = prepare(load_images(config.data), config.data)
    description = json.loads((out / "architecture.json").read_text())
    stored = description["trial"]["scores"]
    logits = model(data.validation.images())
    row = Run(finished).trial(description["trial"]["number"])
    evaluated = evaluate(row.trial)  # the weights before they were written and read
    trained = space_of(row.trial.architecture).build(row.trial.architecture, data.task)
    trained.load_state_dict(evaluated.weights)
    assert torch.equal(trained.eval()(data.validation.images()), logits)
    right = (logits.argmax(1) == data.validation.labels).double()
    assert right.mean().item() == stored["clean_accuracy"]
    card = (out / "README.md").read_text()
    assert f"{stored['pgd_accuracy']:.6g}" in card
    assert "search_spaces import load" in card
    psinas(
        "export",
        "--formats",
        "weights",
        finished,
        "--trial",
        description["trial"]["number"],
        "--out",
        out,
    )  # again
    assert load(out)(data.validation.images()).equal(model(data.validation.images()))


def test_an_export_never_replaces_a_trial(psinas, finished, tmp_path):
    number = json.loads((finished / "best" / "architecture.json").read_text())["trial"]["number"]
    there = finished / "trials" / str(number)
    before = sorted(p.name for p in there.iterdir())
    one_line(psinas("export", finished, "--trial", number, "--out", there), "--out: expected a new")
    assert sorted(p.name for p in there.iterdir()) == before


def test_a_directory_left_by_a_kill_before_the_configuration_is_used(tmp_path):
    (tmp_path / "driver.lock").write_text("pid 1 on nowhere")
    (tmp_path / ".config.yaml.partial").write_text("na")
    make_directory(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="with other files"):
        make_directory(tmp_path)


def test_a_storage_belongs_to_one_run(tmp_path):
    document = {**TINY, "storage": f"sqlite:///{tmp_path / 'ledger.db'}"}
    opened = []
    for name in ("a", "b"):
        run = tmp_path / name
        make_directory(run)
        config = settle_config(run, parse_config(document), resume=False, keep_trials=False)
        if name == "b":
            with pytest.raises(InputError, match="belongs to another run"):
                open_search(run, config)
        else:
            opened.append(open_search(run, config))
            opened[0].propose()
    assert len(load_table(tmp_path / "a")) == 1
    gc.collect()


def test_score_uses_what_the_trial_varied(psinas, tmp_path):
    document = {
        **TINY,
        "vary": {"data.classes": [[0, 1], [2, 3, 4]]},
        "objectives": {"clean_accuracy": "max"},
    }
    run = search_here(tmp_path / "run", {**document, "space": {**TINY["space"], "depth": [2]}})
    table = pd.read_csv(run / "trials.csv")
    assert set(table["data.classes"]) == {"[0, 1]", "[2, 3, 4]"}
    for number in table["number"]:
        code, out, err = psinas(
            "score", f"{run}:{number}", "--split", "validation", "--metrics", "clean"
        )
        assert code == 0, err
        scored = float(out.split("clean_accuracy ")[1].split()[0])
        assert scored == pytest.approx(table["clean_accuracy"][number], rel=1e-4)


def test_score_takes_the_epsilon_it_is_given(psinas, finished):
    outputs = [psinas("score", finished / "best", "--epsilon", e)[1] for e in ("0", "0.9")]
    accuracies = [float(o.split("pgd_accuracy ")[1].split()[0]) for o in outputs]
    assert accuracies[0] > accuracies[1]


def test_replay_refuses_what_never_ran_to_its_end(psinas, tmp_path):
    run = tmp_path / "run"
    make_directory(run)
    config = settle_config(run, parse_config(TINY), resume=False, keep_trials=False)
    search = open_search(run, config)
    search.finish(search.propose().number, failure("stopped", "asha after epoch 1"))
    one_line(psinas("replay", run, "--trial", 0), "asha after epoch 1")


def test_replay_gives_the_numbers_again_and_the_weights_back(psinas, finished, tmp_path):
    drop_weights(finished, {0})
    one_line(psinas("export", finished, "--trial", 0, "--out", tmp_path / "e"), "psinas replay")
    code, out, _ = psinas("replay", finished, "--trial", 0)
    assert code == 0, out
    assert "equal to the last digit" in out
    assert (
        psinas("export", "--formats", "weights", finished, "--trial", 0, "--out", tmp_path / "e")[0]
        == 0
    )


def test_replay_finds_a_number_that_differs(psinas, finished, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    journal = copy / "study.journal"
    text = journal.read_text()
    stored = json.loads((finished / "best" / "architecture.json").read_text())["trial"]
    value = stored["scores"]["clean_accuracy_stderr"]
    journal.write_text(text.replace(repr(value), repr(value + 1e-9)))
    code, out, _ = psinas("replay", copy, "--trial", stored["number"])
    assert code == 1
    assert "clean_accuracy_stderr" in out


def test_score_uses_test_images(psinas, finished, tmp_path):
    path = tmp_path / "scores.json"
    code, _, err = psinas("score", finished / "best", "--metrics", "clean,pgd", "--out", path)
    assert code == 0, err
    scores = json.loads(path.read_text())
    config = parse_config(yaml.safe_load((finished / "config.yaml").read_text())).data
    test = prepare_test(load_test_images(config), config)
    right = load(finished / "best")(test.images()).argmax(1) == test.labels
    assert scores["clean_accuracy"] == right.double().mean().item()
    assert len(test) == 359
    of = scores.pop("of")
    assert all(type(value) is float for value in scores.values())
    clean, pgd = of.pop("metrics")
    versions, name, seconds = (of.pop(k) for k in ("versions", "device_name", "seconds"))
    assert of == {
        "model": str(finished / "best"), "dataset": "digits", "split": "test", "images": 359,
        "seed": 0, "device": choose_device(), "checksum": part_checksum(config, test=True),
    }  # fmt: skip
    assert {"psinas", "sources", "torch", "torchvision", "numpy", "python"} <= set(versions)
    assert versions["python"] == platform.python_version()
    assert type(name) is str
    assert seconds > 0
    assert clean == {"name": "clean", "limit": None, "images": 359}
    assert (pgd["name"], pgd["epsilon"], pgd["steps"], pgd["images"]) == ("pgd", 0.1, 7, 359)
    number = json.loads((finished / "best" / "architecture.json").read_text())["trial"]["number"]
    _, again, _ = psinas("score", f"{finished}:{number}", "--metrics", "clean,pgd")
    assert f"{scores['pgd_accuracy']:.6g}" in again


def test_score_anybodys_model(psinas, monkeypatch):
    import types

    module = types.ModuleType("somebodys")
    module.make = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    monkeypatch.setitem(sys.modules, "somebodys", module)
    one_line(psinas("score", "somebodys:make"), "--data")
    code, out, err = psinas(
        "score", "somebodys:make", "--data", "digits", "--metrics", "clean", "--limit", 50
    )
    assert code == 0, err
    assert "clean_accuracy" in out
    module.make = lambda: torch.nn.Linear(3, 2)
    one_line(
        psinas("score", "somebodys:make", "--data", "digits"), "does not take images (1, 8, 8)"
    )

    class Picky(torch.nn.Module):
        def forward(self, x):
            raise AssertionError("Wrong image height! Expected 224 but got 8!")

    module.make = Picky
    one_line(
        psinas("score", "somebodys:make", "--data", "digits"),
        "does not take images (1, 8, 8): Wrong image height!",
    )
    for logits in (9, 11, 1000):
        module.make = lambda n=logits: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, n)
        )
        one_line(
            psinas("score", "somebodys:make", "--data", "digits"),
            f"expected 10 logits an image, one for each class of digits, got (2, {logits})",
        )


@pytest.fixture
def grey(tmp_path):
    """Data sets of noise: images as digits' in ten classes, larger ones, and three classes."""
    rng = np.random.default_rng(0)
    paths = {}
    for name, side, classes in (("same", 8, 10), ("larger", 12, 10), ("three", 8, 3)):
        arrays = {
            key: rng.integers(0, 256, (30, side, side), dtype=np.uint8)
            for key in ("x_train", "x_test")
        }
        labels = np.arange(30) % classes
        np.savez(tmp_path / f"{name}.npz", **arrays, y_train=labels, y_test=labels)
        paths[name] = f"npz:{tmp_path / name}.npz"
    return paths


def test_score_refuses_data_that_a_model_was_not_made_for(psinas, finished, grey):
    number = json.loads((finished / "best" / "architecture.json").read_text())["trial"]["number"]
    for model in (finished / "best", f"{finished}:{number}"):
        for name, got in (("larger", "(1, 12, 12) of 10"), ("three", "(1, 8, 8) of 3")):
            one_line(
                psinas("score", model, "--data", grey[name], "--metrics", "clean"),
                "expected images (1, 8, 8) of 10 classes, for which the model was trained, got",
                f"images {got} classes",
            )
        code, out, err = psinas("score", model, "--data", grey["same"], "--metrics", "clean")
        assert code == 0, err
        assert f"dataset  {grey['same']}" in out


def test_score_says_what_it_scored(psinas, finished):
    metrics = (
        "[clean, pgd, {name: pgd, norm: l2, epsilon: 0.5, steps: 3, restarts: 2, as: pgd_l2},"
        " {name: cascade, attacks: [fgsm, {name: noise, region: ball, epsilon: 1}], limit: 20}]"
    )
    code, out, err = psinas(
        "score", finished / "best", "--split", "validation", "--limit", 50, "--seed", 3,
        "--metrics", metrics, "--epsilon", "8/255",
    )  # fmt: skip
    assert code == 0, err
    header, _, scores = out.partition("\n\n")
    assert header.splitlines() == [
        f"model    {finished / 'best'}",
        "dataset  digits",
        "split    validation",
        "images   50",
        "seed     3",
        "pgd      epsilon 8/255, norm linf, steps 7",
        "pgd_l2   epsilon 0.5, norm l2, steps 3, restarts 2",
        "cascade  fgsm epsilon 8/255, norm linf; noise epsilon 1, region ball, draws 1; 20 images",
    ]
    assert "pgd_l2_accuracy_low" in scores


def test_an_epsilon_for_score_is_none_of_an_attack_in_l2(psinas, tmp_path):
    in_l2 = {"name": "pgd", "norm": "l2", "epsilon": 0.5, "steps": 2, "as": "pgd_l2"}
    document = {**TINY, "metrics": ["clean", "pgd", in_l2]}
    run = search_here(tmp_path / "run", document)
    code, out, err = psinas("score", f"{run}:3", "--epsilon", "0.2", "--limit", 20)
    assert code == 0, err
    assert "pgd      epsilon 0.2, norm linf, steps 7" in out
    assert "pgd_l2   epsilon 0.5, norm l2, steps 2" in out
    one_line(
        psinas("score", f"{run}:3", "--epsilon", "0.2", "--metrics", "[{name: pgd, norm: l2}]"),
        "metrics.pgd: expected an epsilon of its own for norm l2 (such as 0.5), got none",
    )


def test_a_checkout_that_is_not_installed_says_so(psinas, monkeypatch):
    """On the path alone psinas has no version of its own; a run is made all the same."""
    version = importlib.metadata.version

    def none_of_psinas(name):
        if name == "psinas":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", none_of_psinas)
    code, out, err = psinas("doctor")
    assert code == 0, err
    assert "psinas  None" in out
    assert f"torch  {version('torch')}" in out


def test_a_mistyped_command_is_told_its_neighbour(psinas):
    for typed, meant in (("serach", "search"), ("children", "trends")):
        code, _, err = psinas(typed)
        assert code == 2
        assert f"No such command '{typed}'. Did you mean '{meant}'" in " ".join(err.split())


def test_another_epsilon_is_that_of_every_attack_of_a_cascade(psinas, tmp_path):
    document = {**TINY, "metrics": [*TINY["metrics"], {"name": "cascade", "limit": 30}]}
    run = search_here(tmp_path / "run", document)
    accuracies = []
    for epsilon in ("0", "1"):
        code, out, err = psinas("score", f"{run}:3", "--epsilon", epsilon)
        assert code == 0, err
        accuracies.append({line.split()[0]: line.split()[1] for line in out.splitlines() if line})
    weak, strong = accuracies
    assert float(weak["cascade_accuracy"]) > float(strong["cascade_accuracy"]) == 0.0
