"""``bench/gpu.py`` works the day a card is there: here the same code runs on a CPU, in little."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.data.config import DataConfig, Limit

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "gpu.py"


def bench(*arguments):
    """Run the script, as a user does."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def sections(tmp_path, only, device="cpu"):
    """Return section -> rows of a quick run in which nothing failed."""
    file = tmp_path / "gpu.json"
    answer = bench("--device", device, "--quick", "--only", only, "--json", str(file))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    report = json.loads(file.read_text())
    assert report["header"]["torch"] == torch.__version__
    assert list(report["sections"]) == only.split(",")
    for name, section in report["sections"].items():
        assert f"\n== {name} " in answer.stdout
        assert not section["skipped"]
        assert section["rows"]
    return {name: section["rows"] for name, section in report["sections"].items()}


@pytest.fixture
def gpu(monkeypatch):
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_bench", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_bench", module)
    monkeypatch.syspath_prepend(SCRIPT.parent)  # where a script finds its neighbours
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_all_but_the_search_run_on_a_cpu(tmp_path):
    found = sections(tmp_path, "numbers,memory,attacks,oom")
    numbers = found["numbers"]
    attacked = [row for row in numbers if "attack" in row]
    assert len({row["attack"] for row in attacked}) == 9
    assert all(row["of"] > 0 and row["differ"] == 0 for row in attacked)
    assert all(row["robust"] == row["robust_cpu"] for row in attacked)
    assert len({row["robust"] for row in attacked}) > 3  # the attacks do something
    psis = [row for row in numbers if "psi" in row]
    assert {row["psi"] for row in psis} == {"eval", "frozen", "limit"}
    assert all(row["mean"] > 0 and row["worst_off"] == 0 for row in psis)
    assert all(row["images_per_s"] > 0 for row in found["memory"])
    assert all(row["psinas_per_s"] > 0 for row in found["attacks"])
    assert [row["status"] for row in found["oom"]] == ["", "oom", "complete"]


@pytest.mark.slow
def test_training_runs_on_a_cpu_in_every_mode(tmp_path):
    found = sections(tmp_path, "training,learning")
    products = [row for row in found["training"] if row["net"] == "matrix product"]
    peaks = {row["precision"]: row["pflops"] for row in products}
    speeds = [row for row in found["training"] if row["net"] != "matrix product"]
    assert len(speeds) == 3 * 5
    for row in speeds:
        assert row["from"] <= row["ratio"] <= row["to"]
        peak = peaks[row["mode"].split()[0]]
        assert row["of_peak"] == pytest.approx(row["pflops"] / peak)
        assert 0 < row["of_peak"] < 1
        asked = row["mode"].endswith("capture")
        assert row["capture"] == ("refused (no CUDA graphs on cpu)" if asked else "off")
    learned = found["learning"]
    assert [row["mode"] for row in learned] == ["float32", "bf16", "bf16 nhwc capture"]
    assert learned[0]["off"] == 0
    assert all(0 < row["best_robust"] < 1 and row["seeds"] == 2 for row in learned)
    assert learned[0]["reached"] >= 1  # 95 % of a mean is below the best of the seeds


def test_operations_are_those_of_the_method(gpu, monkeypatch):
    """One 3 x 3 convolution of 2 to 2 channels and a layer of 2 to 3 units, on 4 x 4 images."""
    import gpu_training
    from torch import nn

    from nas.data.arrays import Data, Split
    from nas.trial.recipe import Recipe
    from search_spaces import Task

    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    monkeypatch.setattr(gpu_training, "built", lambda *_: model)
    monkeypatch.setattr(gpu_training, "peak_flops", lambda *_: 1e9)
    setting = gpu.Setting(torch.device("cpu"), True, DataConfig())
    split = Split(torch.rand(8, 2, 4, 4), torch.arange(8) % 3)
    recipe = Recipe(
        epochs=3, batch_size=4, steps=5, adversarial_share=1.0, precision="float32",
        selection_images=0,
    )  # fmt: skip
    row = gpu_training.against_plain_loop(
        setting, None, Data(split, split, Task.plain((2, 4, 4), 3)), recipe,
        gpu_training.Mode("float32"),
    )  # fmt: skip
    image = 2 * (2 * 2 * 9 * 16 + 2 * 3) * (5 * 2 + 3)
    assert row["pflops"] == pytest.approx(image * row["psinas_per_s"] / 1e15)
    assert row["of_peak"] == pytest.approx(image * row["psinas_per_s"] / 1e9)


def test_the_first_epoch_of_a_robust_accuracy(gpu):
    from gpu_training import reached

    from nas.trial.state import Epoch

    epochs = [Epoch(i + 1, 0.0, 0.9, robust, 2.0) for i, robust in enumerate((0.1, 0.3, 0.2, 0.4))]
    assert reached(epochs, 0.3) == (2, 4.0)
    assert reached(epochs, 0.35) == (4, 8.0)
    assert reached(epochs, 0.5) is None


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_the_search_runs_on_a_cpu(tmp_path):
    rows = sections(tmp_path, "search")["search"]
    assert [row["at_a_time"] for row in rows] == [1, 2]
    assert [row["trials"] for row in rows] == [2, 2]
    assert rows[0]["speed_up"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card(tmp_path):
    found = sections(tmp_path, "numbers,memory,attacks,training,learning,oom", "cuda")
    masks = [row for row in found["numbers"] if "attack" in row]
    assert sum(row["differ"] for row in masks) <= 0.05 * sum(row["of"] for row in masks)
    assert all(row["peak_mib"] > 0 for row in found["memory"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_no_card_is_said_in_one_line(gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failed_case_is_told_and_the_rest_goes_on(gpu, monkeypatch, capsys):
    def cases(setting):
        yield {"net": "a"}, lambda: {"seconds": 1.5}
        yield {"net": "b"}, lambda: {}["missing"]
        yield {"net": "c"}, lambda: {"seconds": 2.5}
        raise OSError("no such card")

    monkeypatch.setattr(gpu, "SECTIONS", {"first": cases, "second": cases})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--only", "first"])
    assert gpu.main() == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "1.5"] in lines
    assert ["b", "FAILED", "KeyError:", "'missing'"] in lines
    assert ["c", "2.5"] in lines
    assert ["set-up", "FAILED", "OSError:", "no", "such", "card"] in lines
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--seconds", "0"])
    assert gpu.main() == 0
    assert capsys.readouterr().out.count("SKIPPED") == 2


def test_torchattacks_may_be_missing(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    data = DataConfig(limit=Limit(train=32, validation=8))
    setting = gpu.Setting(torch.device("cpu"), True, data)
    rows = gpu.run("attacks", setting, lambda: False)["rows"]
    assert [row["torchattacks"] for row in rows] == ["missing", "missing"]
