"""The house: which package may import which, and what must run on a bare machine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"search_spaces", "metrics", "nas", "launch"}
MAY_IMPORT = {
    "search_spaces": {"search_spaces"},
    "metrics": {"metrics"},
    "nas": {"search_spaces", "metrics", "nas"},
    "launch": OURS,
}
LEAF_LIBRARIES = {"torch", "numpy", "safetensors"}
ALSO = {"search_spaces/resnet.py": {"torchvision"}}  # inside a function: see the test below


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(OURS))
def test_arrows_point_down(package):
    for path in modules(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops & OURS <= MAY_IMPORT[package], path


@pytest.mark.parametrize("package", ["search_spaces", "metrics"])
def test_leaves_need_torch_and_numpy_alone(package):
    for path in modules(package):
        tops = {name.partition(".")[0] for name in imports(path)}
        allowed = LEAF_LIBRARIES | ALSO.get(path.relative_to(ROOT).as_posix(), set())
        outside = tops - OURS - allowed - set(sys.stdlib_module_names)
        assert not outside, f"{path} imports {outside}"


def test_search_spaces_are_there_without_torchvision():
    code = """
import sys, search_spaces
print("resnet" in search_spaces.SEARCH_SPACES, "torchvision" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.split() == ["True", "False"], answer.stderr


def test_only_launch_imports_ray():
    for package in OURS - {"launch"}:
        for path in modules(package):
            assert "ray" not in {name.partition(".")[0] for name in imports(path)}, path


def test_a_trial_runs_where_neither_ray_nor_optuna_is_installed():
    code = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = sys.modules["pydantic"] = None  # import raises
import metrics, search_spaces, nas.trial.evaluation, nas.trial.trial
from nas.data.config import DataConfig, Limit
from nas.trial.recipe import Recipe
space = search_spaces.DepthChannels(depth=(1,), channels=(4,), stem="small")
trial = nas.trial.trial.Trial(
    space.architecture({"depth": 1, "channels": 4}),
    Recipe(epochs=1, steps=1),
    DataConfig(limit=Limit(train=64, validation=32)),
    (metrics.METRICS["clean"](),),
)
print(nas.trial.evaluation.evaluate(trial).status)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "complete", answer.stderr
