"""Run directories whose trials nobody trained: a configuration and a ledger, written by hand."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import yaml

DECISIONS = {"depth": [1, 2, 4], "channels": [8, 16, 32], "recipe.optimizer": ["sgd", "adam"]}
FLAG = "suspicion_zero_gradient_raised"


def write_run(
    path: Path, n: int = 30, *, seed: int = 0, name: str = "made", failing: int = 10, **over
) -> Path:
    """Write a run of ``n`` trials, of which every ``failing``-th failed; return its directory.

    ``over``: ``reason`` of failures, ``choices`` of the optimiser, ``score`` as a further score's
    name, ``flagged`` numbers, ``running`` trials beside the others.
    """
    path.mkdir(parents=True)
    decisions = {**DECISIONS, "recipe.optimizer": over.get("choices", ["sgd", "adam"])}
    config = {
        "name": name, "seed": 0, "run_id": "a" * 32, "data": {"name": "digits"},
        "space": {"name": "depth-channels", "depth": [1, 2, 4], "channels": [8, 16, 32]},
        "vary": {"recipe.optimizer": decisions["recipe.optimizer"]},
        "metrics": ["clean", "pgd"], "objectives": {"pgd_accuracy": "max", "psi": "min"},
        "sampler": {"name": "random"}, "trials": n, "storage": None,
        "made_with": {"psinas": "0.1.0", "torch": "2.14.1"},
        "data_checksum": {"digits": {"train": "0123456789abcdef"}},
    }  # fmt: skip
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    lines = [
        {"op_code": 0, "worker_id": "w", "study_name": "psinas", "directions": [2, 1]},
        {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"run_id": "a" * 32}},
        {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"ledger_version": 1}},
    ]
    rng = random.Random(seed)
    asked = {d: json.dumps({"type": "categorical", "choices": own}) for d, own in decisions.items()}
    for i in range(n + over.get("running", 0)):
        places = {d: rng.randrange(len(own)) for d, own in decisions.items()}
        begun = {"op_code": 4, "worker_id": "w", "study_id": 0, "user_attrs": {"place": i}}
        lines.append({**begun, "distributions": asked, "params": places})
        if i >= n:
            continue
        failed = failing and i % failing == failing - 1
        result = {
            "status": "diverged" if failed else "complete",
            "reason": over.get("reason", "loss is NaN in epoch 2") if failed else "",
            "scores": {} if failed else scores_of(rng, places, over),
            "epochs": 2, "seconds": 10.0 + i % 3, "order": i, "repeat_of": None,
            "architecture": {"hash": f"{i:016x}"}, "environment": {"device": "cpu"},
        }  # fmt: skip
        if i in over.get("flagged", ()):
            result["scores"][FLAG] = 1.0
        attribute = {"psinas": result}
        lines.append({"op_code": 8, "worker_id": "w", "trial_id": i, "user_attr": attribute})
        lines.append({"op_code": 6, "worker_id": "w", "trial_id": i, "state": 3 if failed else 1})
    text = "\n".join(map(json.dumps, lines))
    (path / "study.journal").write_text(text + "\n", encoding="utf-8")
    return path


def scores_of(rng: random.Random, places: dict[str, int], over: dict) -> dict[str, float]:
    """Return scores that grow with the channels, with their intervals."""
    robust = round(min(0.95, max(0.05, 0.3 + 0.15 * places["channels"] + rng.gauss(0, 0.05))), 3)
    scores = {}
    for name, value in (("clean_accuracy", min(0.99, robust + 0.2)), ("pgd_accuracy", robust)):
        error = math.sqrt(value * (1 - value) / 400)
        scores |= {name: value, f"{name}_stderr": error}
        scores |= {f"{name}_low": value - 1.96 * error, f"{name}_high": value + 1.96 * error}
    psi = math.exp(3 - robust + rng.gauss(0, 0.3))
    scores |= {"psi": psi, "psi_low": 0.9 * psi, "psi_high": 1.1 * psi}
    scores |= {"parameters": 1000.0 * (places["channels"] + 1) ** 2 * (places["depth"] + 1)}
    scores |= {FLAG: 0.0, "train_seconds": 7.0, "score_seconds": 2.0}
    if "score" in over:
        scores[over["score"]] = rng.random()
    return scores
