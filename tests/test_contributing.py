"""CONTRIBUTING.md is executed: every kind of thing is added by one new file and one line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^### An? (.*?)\n(.*?)(?=^##|\Z)", TEXT, re.S | re.M))
BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```", re.S | re.M)
COMMANDS = {
    "attack": ["metrics"],
    "metric": ["metrics"],
    "search space": ["spaces"],
    "sampler": ["samplers"],
    "dataset": ["datasets"],
    "reproduction": ["reproductions"],
    "command": ["hello", "--name", "Ψ"],
}
SHOWN = {
    "attack": "Accuracy under: Subtract epsilon from every pixel.",
    "metric": "Mean probability of the predicted class.",
    "search space": "Two layers without a kink.",
    "sampler": "Every architecture in its order.",
    "dataset": "stripes",
    "reproduction": "the range of Ψ̂",
    "command": "hello Ψ",
}
SEARCH = [
    "search", "digits", "--trials", "2", "--out", "run",
    "--set", "data={name: stripes}", "--set", "space={name: linear}",
    "--set", "sampler={name: first}", "--set", "objectives={darker_accuracy: max}",
    "--set", "recipe={epochs: 1, adversary: darker, epsilon: 0.1}",
    "--set", "metrics=[clean, confidence, {name: darker, epsilon: 0.2}]",
]  # fmt: skip
RUN = """
import sys
import launch.cli, launch.runs.searching
from launch.runs import searching
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluation
from nas.trial.files import save_trial
from nas.trial.training import drain

def run_search(search, config, run, progress, **more):
    progress.begin(search, 1)
    while (proposal := search.propose()) is not None:
        trial = proposal.trial
        result = drain(evaluation(trial, prepare(load_images(trial.data), trial.data)))
        save_trial(run, proposal.number, trial, result)
        progress.finished(
            proposal.number, search.finish(proposal.number, result.to_dict()), search
        )
    return True

searching.run_search = run_search
for arguments in %r:
    sys.argv = ["psinas", *arguments]
    try:
        launch.cli.main()
    except SystemExit as end:
        assert not end.code, arguments
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Copy the packages, and add to the copy what CONTRIBUTING.md adds."""
    root = tmp_path_factory.mktemp("extended")
    for package in ("search_spaces", "metrics", "nas", "launch"):
        shutil.copytree(ROOT / package, root / package)
    touched = {}
    for kind, section in SECTIONS.items():
        for place, code in BLOCK.findall(section):
            path = root / place
            if not path.exists():
                path.write_text(code)
            else:
                add_line(path, code)
            touched.setdefault(kind, []).append(place)
    return root, touched


def add_line(path, code):
    """Put imports behind the first import of ours, and an entry at the end of the first dict."""
    lines = code.splitlines(keepends=True)
    imports = "".join(line for line in lines if line.startswith(("from ", "import ")))
    (entry,) = [line for line in lines if line.startswith("    ")]
    text = path.read_text()
    first = re.search(r"^from (?:metrics|nas|launch|search_spaces)", text, re.M).start()
    text = text[:first] + imports + text[first:]
    begin = re.search(r"^[A-Z_]+: dict\[.*= \{$", text, re.M) or re.search(
        r"^METRICS: .*= \{$", text, re.M
    )
    end = text.index("\n}", begin.start()) + 1
    path.write_text(text[:end] + entry + text[end:])


def test_every_kind_is_explained():
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("kind", COMMANDS)
def test_at_most_two_files_are_touched(extended, kind):
    _, touched = extended
    assert len(touched[kind]) == 2
    assert [(ROOT / place).exists() for place in touched[kind]] == [False, True]


def test_what_was_added_is_there_and_is_searched(extended):
    root, _ = extended
    lines = [COMMANDS[kind] for kind in COMMANDS]
    answer = subprocess.run(
        [sys.executable, "-c", RUN % [*lines, SEARCH, ["trials", "run", "--format", "csv"]]],
        capture_output=True, text=True, cwd=root, env={"PATH": "", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    printed = " ".join(answer.stdout.split())
    for kind, expected in SHOWN.items():
        assert expected in printed, kind
    rows = answer.stdout.splitlines()[-3:]
    assert "confidence" in rows[0]
    assert "darker_accuracy" in rows[0]
    assert [row.split(",")[:2] + row.split(",")[3:4] for row in rows[1:]] == [
        ["0", "complete", "4"],
        ["1", "complete", "8"],
    ]
