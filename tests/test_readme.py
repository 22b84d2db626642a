"""Every command that README and docs show: run on searches made small, or read by its parser.

Commands of README and ``docs/commands.md`` are run; what other pages show is parsed, which finds a
command, an option or a name that is gone, and costs no search. Python is run on every page.
"""

from __future__ import annotations

import re
import shlex
import shutil

import pandas as pd
import pytest
import typer
import yaml
from pages import DOCS, blocks, commands

import launch.cli
import launch.config.config as configuration
from launch.config.documents import preset_names, read_document
from launch.papers.registry import REPRODUCTIONS

README = DOCS.parent / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
RUN = (DOCS / "commands.md", README)
ELSEWHERE = {
    "tutorial.md": "tests/test_tutorial.py runs it whole",
    "extending.md": "tests/test_tutorial.py runs it whole",
}
"""Pages whose blocks have a test of their own."""

STEPS = {
    "decide.md": "wants a run that was judged and repeated: the tutorial has those steps",
    "export.md": "wants the files of an export: the tutorial and tests/nas/export have them",
}
"""Pages whose Python begins where commands ended that are long."""

NOT_RUN = {
    "git": "the checkout is there",
    "cd": "the checkout is there",
    "source": "an environment is there",
    "make": "makes an environment and starts Ray; its targets are looked up",
    "$EDITOR": "a person's",
    "./hosts.sh": "needs hosts; tests/launch/cluster has the template",
    "sbatch": "needs Slurm; tests/launch/cluster has the template",
    "job=$(sbatch": "needs Slurm",
    "scancel": "needs Slurm",
    "rsync": "needs another machine",
    "optuna-dashboard": "serves until it is stopped",
    "tensorboard": "serves until it is stopped",
    "ray": "needs a cloud",
    "kubectl": "needs Kubernetes",
    "pip": "asks an index of packages",
    "python3": "makes an environment",
    "python": "a benchmark or a script; its file is looked up",
}
"""Programs of bash blocks that no test runs, each with the reason."""

LONG = {
    "psinas dashboard runs/quick": "serves until it is stopped",
    "psinas reproduce --all --quick": "hours",
}
"""Commands that are parsed and not run, each with the reason."""

SHOWN = list(
    dict.fromkeys(
        line
        for page in RUN
        for kind, text in blocks(page)
        if kind == "bash"
        for line in commands(text)
        if line.startswith("psinas ")
    )
)
IN_PROSE = sorted(
    {
        " ".join(text.split())
        for page in PAGES
        for text in re.findall(r"`psinas ([^`]*)`", page.read_text(encoding="utf-8"))
    }
)
DIGITS = {"name": "digits", "limit": {"train": 96, "validation": 40, "test": 40}}
PSI = {
    "space": {"name": "depth-channels", "depth": [2, 3], "channels": [8, 16], "stem": "small"},
    "recipe": {"epochs": 6, "batch_size": 32, "adversary": "none"},
    "data": {"name": "digits", "limit": {"train": 700, "validation": 60, "test": 120}},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
}

SUTTON = {
    "space": {"name": "vgg-lite", "blocks": [2], "filters": [4], "units": [8], "dropout": [0.4]},
    "recipe": {"epochs": 2, "batch_size": 16, "adversary": "none", "selection_images": 0},
    "data": DIGITS,
    "vary": {"data.classes": [[0, 1], [1, 2]]},
    "metrics": ["clean", {"name": "stability", "limit": 8, "draws": 4, "scalings": 16}],
    "objectives": {"clean_accuracy": "max"},
}

PECK = {
    "space": {"name": "depth-channels", "depth": [1], "channels": [4], "stem": "small"},
    "recipe": {"epochs": 2, "batch_size": 32, "adversary": "none", "selection_images": 0},
    "data": DIGITS,
    "metrics": ["clean", {"name": "bracket", "limit": 4, "budget": 20}],
    "objectives": {"clean_accuracy": "max"},
}

METRICS = [
    "clean", "fgsm", {"name": "pgd", "steps": 2}, "step-ll", {"name": "psi", "limit": 4}, "cost",
    {"name": "suspicion", "limit": 8, "queries": 5, "draws": 2},
]  # fmt: skip


def small(source):
    """Return a preset or file in small: a handful of trials of a tenth of a second."""
    document = read_document(source)
    if "made_with" in document:
        return document
    if document["name"].startswith("psi-"):
        return {**document, **PSI}
    if document["name"].startswith("sutton-"):
        return {**document, **SUTTON}
    if document["name"].startswith("peck-"):
        return {**document, **PECK}
    recipe = {"epochs": 1, "steps": 1, "batch_size": 32, "selection_images": 16}
    document["data"] = {**DIGITS}
    document["recipe"] = {**document.get("recipe", {}), **recipe}
    document["trials"] = 4
    document["metrics"] = METRICS
    document.pop("vary", None)
    if document["space"]["name"] == "nasnet":
        document["space"] = {"name": "nasnet", "blocks": 2, "cells": 1, "filters": 4}
        document["sampler"] = {"name": "random"}
        document["metrics"] = ["clean", "fgsm", {"name": "pgd", "steps": 1}, "cost"]
    if document.get("retrain"):
        few = {"recipe": {"epochs": 1}, "recipes": [{"learning_rate": 0.1}], "test_images": 20}
        some = {"limit": {"train": 64, "validation": 6}}
        document["retrain"] = {**few, "scale": {"filters": 6}, "data": some}
    return document


@pytest.fixture
def in_small(monkeypatch, in_process, tmp_path):
    """Let every configuration be small, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configuration, "read_document", small)
    monkeypatch.setattr(
        "launch.runs.retrain.default_recipes", lambda recipe: [{"learning_rate": 0.1}]
    )
    text = next(text for kind, text in blocks(DOCS / "configuration.md") if kind == "yaml")
    (tmp_path / "my-search.yaml").write_text(text, encoding="utf-8")
    cell = "|nor_conv_3x3~0|+|{}~0|none~1|+|skip_connect~0|none~1|none~2|"
    names = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")
    table = pd.DataFrame({"cell": map(cell.format, names), "COLUMN": [0.1, 0.2, 0.3, 0.4, 0.5]})
    table.to_csv("TABLE.csv", index=False)
    return tmp_path


def test_every_command_that_readme_shows_runs(in_small, psinas):
    assert len(SHOWN) >= 19
    for line in SHOWN:
        arguments = shlex.split(line)[1:]
        if line in LONG or "--address" in arguments:
            continue  # --address needs a cluster
        if "table-search" in arguments:
            arguments = [*arguments, "--samplers", "random", "--seeds", "1", "--workers", "1"]
        wanted = [a for a in arguments if a != "recipe.epochs=20"]
        code, out, err = psinas(*_paired(wanted))
        assert code == 0, (arguments, out[-500:], err)


def _paired(arguments):
    """Drop a --set whose value was dropped."""
    kept = []
    for place, argument in enumerate(arguments):
        following = arguments[place + 1] if place + 1 < len(arguments) else "--"
        if argument == "--set" and following.startswith("--"):
            continue
        kept.append(argument)
    return kept


def parsed(arguments):
    """Let a command's own parser read its arguments; return what it made of them."""
    name, *rest = arguments
    command = typer.main.get_command(launch.cli.app).get_command(None, name)
    assert command is not None, f"no command {name}"
    context = type(command).context_class(command, info_name=name)
    values, left, _ = command.make_parser(context).parse_args(list(rest))
    assert not left, f"{name}: {left}"
    known = {"search": preset_names(), "reproduce": REPRODUCTIONS}.get(name)
    named = {p.name for p in command.params if p.param_type_name == "argument"}
    for given in (str(values[key]) for key in named & set(values) if values[key]):
        assert not known or given in known or given.endswith(".yaml") or given.isupper(), given
    return values


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_its_commands_are_commands(page):
    root = DOCS.parent
    for line in (line for kind, text in blocks(page) if kind == "bash" for line in commands(text)):
        program, *arguments = shlex.split(line.split(" && ")[0])
        if program == "psinas":
            parsed(arguments)
            continue
        assert program in NOT_RUN or page.name in ELSEWHERE, line
        if program == "make":
            targets = (root / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{t}:", targets, re.M) for t in arguments), line
        if program == "python" and page.name not in ELSEWHERE:
            assert (root / arguments[0]).exists(), line


@pytest.mark.parametrize("text", IN_PROSE)
def test_commands_in_the_text_are_there(text):
    if " | " in text:
        assert {name.split()[0] for name in text.split(" | ")} <= set(launch.cli.COMMANDS)
    elif text.startswith("-"):
        assert text in {"--help", "--version", "--debug"}
    elif re.search(r"[…]|\.\.\.|\[|&&", text):
        assert text.split()[0] in launch.cli.COMMANDS
    else:
        whole = f"{text} X" if text.split()[-1].startswith("--address") else text
        parsed(shlex.split(whole))


def test_a_command_that_is_gone_is_found():
    with pytest.raises(AssertionError):
        parsed(["trails", "runs/quick"])
    with pytest.raises(Exception, match="No such option"):
        parsed(["trials", "runs/quick", "--paretto", "psi"])
    with pytest.raises(AssertionError):
        parsed(["reproduce", "psi-figure99"])


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in ELSEWHERE], ids=lambda p: p.name
)
def test_its_configurations_are_accepted(page):
    for text in (text for kind, text in blocks(page) if kind == "yaml"):
        configuration.parse_config(yaml.safe_load(text))


def test_the_configuration_that_is_explained_is_one():
    text = next(text for kind, text in blocks(DOCS / "configuration.md") if kind == "yaml")
    document = yaml.safe_load(text)
    document["data"].pop("limit")
    assert configuration.parse_config(document).plan().size > 1


GIVEN = """
import torch
from search_spaces import SEARCH_SPACES, Task
space = SEARCH_SPACES["depth-channels"](depth=(2,), channels=(4,), stem="small")
given = space.build(next(iter(space)), Task.plain((1, 8, 8), 4)).eval()
images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 4
model = given
"""
SMALLER = {
    'model = load("runs/digits/best")': 'load("runs/digits/best")',
    "steps=100": "steps=3",
    "steps=20": "steps=2",
    "budget=200": "budget=20",
    "draws=2000": "draws=20",
}
"""What is changed in the pages' Python, so that it is done in a moment."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return a directory with ``runs/digits``, searched in small."""
    from helpers import search_here

    place = tmp_path_factory.mktemp("pages")
    (place / "runs").mkdir()
    first = search_here(place / "runs" / "digits", small("digits"))
    for name in ("digits-2", "tpe-0", "tpe-1", "random-0", "random-1"):
        config = shutil.copytree(first, place / "runs" / name) / "config.yaml"
        seed = f"seed: {name[-1]}"
        text = config.read_text(encoding="utf-8")
        config.write_text(re.sub(r"^seed: 0$", seed, text, flags=re.M), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    "page",
    [
        p
        for p in PAGES
        if p.name not in {*ELSEWHERE, *STEPS} and any(k == "python" for k, _ in blocks(p))
    ],
    ids=lambda p: p.name,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # six images are few for a law
def test_its_python_runs(page, searched, monkeypatch):
    monkeypatch.chdir(searched)
    code = "\n".join(text for kind, text in blocks(page) if kind == "python")
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    exec(compile(GIVEN + code, str(page), "exec"), {})
