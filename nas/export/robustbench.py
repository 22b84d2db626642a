"""The wrapper that RobustBench evaluates, and the claims that its leaderboard asks for.

Source: ``robustbench.eval.benchmark`` takes a module in ``eval()`` that maps images in [0, 1] to
logits, and the name of a dataset; ``model_info/*.json`` and the form for new models name the
claims (Croce et al. 2021, arXiv 2010.09670).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.export.place import CLAIMS, WRAPPER
from nas.search.trust import suspicions

BOARDS = {
    # (dataset, threat model) -> classes, side of its images, radius of the leaderboard
    ("cifar10", "Linf"): (10, 32, 8 / 255),
    ("cifar10", "L2"): (10, 32, 0.5),
    ("cifar100", "Linf"): (100, 32, 8 / 255),
    ("imagenet", "Linf"): (1000, 224, 4 / 255),
}


def refusal(description: Mapping[str, Any]) -> str:
    """Return why RobustBench cannot evaluate a model, "" where it can."""
    data, task = description["trial"]["data"], description["task"]
    known = sorted({name for name, _ in BOARDS})
    if data["name"] not in known:
        return f"RobustBench knows {', '.join(known)}, and this model is of {data['name']}"
    classes, side, _ = BOARDS[_board(description)]
    if data.get("classes") is not None or task["classes"] != classes:
        return f"RobustBench asks for all {classes} classes, and this model knows {task['classes']}"
    if list(task["shape"]) != [3, side, side]:
        channels, height, width = task["shape"]
        return (
            f"RobustBench shows images of 3 x {side} x {side}, and this model takes "
            f"{channels} x {height} x {width}"
        )
    return ""


def write_robustbench(description: Mapping[str, Any], directory: Path) -> None:
    """Write the wrapper and the claims into an export that has ``model.py``."""
    text = json.dumps(claims(description), indent=2) + "\n"
    (directory / CLAIMS).write_text(text, encoding="utf-8")
    (directory / WRAPPER).write_text(wrapper(description), encoding="utf-8")


def claims(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``model_info`` file.

    What psinas does not know is left empty: the paper, and accuracies on test images, which
    RobustBench measures itself.
    """
    architecture, trial = description["architecture"], description["trial"]
    dataset, threat = _board(description)
    scores = {
        name: value
        for name, value in trial["scores"].items()
        if name.endswith("_accuracy") and math.isfinite(value)
    }
    listed = ", ".join(f"{name} {100 * value:.2f}" for name, value in scores.items())
    choices = ", ".join(f"{key} {value}" for key, value in architecture["choices"].items())
    return {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": bool(architecture["settings"].get("weights")),
        "number_forward_passes": 1,
        "dataset": dataset,
        "venue": "",
        "architecture": f"{architecture['space']} ({choices})",
        "eps": _fraction(BOARDS[dataset, threat][2]),
        "clean_acc": "",
        "reported": "",
        "autoattack_acc": "",
        "footnote": f"Found by psinas. On validation images, in %: {listed or 'not measured'}.",
        "unreliable": bool(suspicions(trial["scores"])),
    }


def wrapper(description: Mapping[str, Any]) -> str:
    """Return the text of ``robustbench_model.py``."""
    dataset, threat = _board(description)
    epsilon = _fraction(BOARDS[dataset, threat][2])
    examples = 5000 if dataset == "imagenet" else 10_000
    prepared = '"Res256Crop224"' if dataset == "imagenet" else "None"
    identity = "".join(c for c in str(description["architecture"]["hash"]) if c.isalnum())
    return f'''"""This model as RobustBench evaluates it: images in [0, 1] to logits, in eval mode.

    python robustbench_model.py DATA_DIR    # AutoAttack on all test images; needs robustbench

Needs torch and the files beside it. The claims for a leaderboard entry are in {CLAIMS}.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

MODEL_NAME = "psinas_{identity}"
DATASET, THREAT_MODEL, EPSILON = "{dataset}", "{threat}", {epsilon}
HERE = Path(__file__).resolve().parent


def load_model() -> nn.Module:
    """Return the model, in eval mode."""
    found = importlib.util.spec_from_file_location(MODEL_NAME, HERE / "model.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.load(HERE)


def evaluate(data_dir: str, n_examples: int = {examples}) -> tuple[float, float]:
    """Return clean and robust accuracy as RobustBench measures them."""
    from robustbench.eval import benchmark

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return benchmark(
        load_model(),
        model_name=MODEL_NAME,
        n_examples=n_examples,
        dataset=DATASET,
        threat_model=THREAT_MODEL,
        eps=EPSILON,
        data_dir=data_dir,
        device=device,
        preprocessing={prepared},
        to_disk=True,
    )


if __name__ == "__main__":
    print("clean %.4f, robust %.4f" % evaluate(*sys.argv[1:2] or ["./data"]))
'''


def _board(description: Mapping[str, Any]) -> tuple[str, str]:
    """Return dataset and threat model: L2 where the recipe trained against it and a board is."""
    trial = description["trial"]
    name = str(trial["data"]["name"])
    norm = "L2" if "l2" in str(trial["recipe"].get("adversary", "")).lower() else "Linf"
    return (name, norm) if (name, norm) in BOARDS else (name, "Linf")


def _fraction(epsilon: float) -> str:
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-9 else f"{epsilon:g}"
