"""The way out: a trained model, its description and a model card in one directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.data.checksum import DATA_CHECKSUM
from nas.errors import InputError
from nas.search.trust import BEGIN, suspicions, was_checked
from nas.trial.files import WEIGHTS, trial_directory
from nas.trial.trial import Trial

MODEL = "model.safetensors"


def export_trial(
    run: Path,
    number: int,
    trial: Trial,
    result: Mapping[str, Any],
    out: Path,
    *,
    metrics: list[dict[str, Any]],
    data_checksum: Mapping[str, str] | None = None,
) -> None:
    """Write ``architecture.json``, ``model.safetensors`` and a model card to ``out``.

    Args:
        run: the run directory.
        number: of the trial whose weights are on disk.
        trial: what was trained.
        result: what the ledger holds of it.
        out: made anew; an earlier export there is replaced whole.
        metrics: the search's metrics, so that ``psinas score`` can repeat them.
        data_checksum: part -> checksum of the trial's data, so that others are refused there.

    Raises:
        InputError: the weights were not kept, or ``out`` holds something else.
    """
    source = trial_directory(run, number)
    if not (source / WEIGHTS).exists():
        raise InputError(
            f"trial {number}: expected weights in {source}, got none ({result['status']}; a search "
            f"keeps those of the front and the top): `psinas replay {run} --trial {number}` "
            "trains them again"
        )
    if out.exists() and any(out.iterdir()) and not (out / MODEL).exists():
        raise InputError(f"--out: expected a new directory or an earlier export, got {out}")
    description = json.loads((source / "architecture.json").read_text())
    description["trial"] = {
        "number": number,
        "recipe": asdict(trial.recipe),
        "data": asdict(trial.data),
        DATA_CHECKSUM: dict(data_checksum or {}),
        "metrics": metrics,
        "seed": trial.seed,
        "repeat": trial.repeat,
        "scores": result["scores"],
        "environment": result["environment"],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / "architecture.json").write_text(json.dumps(description, indent=2) + "\n")
    shutil.copyfile(source / WEIGHTS, partial / MODEL)
    (partial / "README.md").write_text(model_card(description))
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)


def model_card(description: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown, of an exported description."""
    architecture, task, trial = (description[k] for k in ("architecture", "task", "trial"))
    choices = ", ".join(f"{k} {v}" for k, v in architecture["choices"].items())
    channels, height, width = task["shape"]
    scores = "\n".join(
        f"| {name} | {value:.6g} |" for name, value in trial["scores"].items() if BEGIN not in name
    )
    doubts = _doubts(trial["scores"])
    recipe = "\n".join(f"| {name} | {value} |" for name, value in trial["recipe"].items())
    versions = ", ".join(f"{k} {v}" for k, v in trial["environment"].items())
    return f"""# {architecture["space"]}: {choices}

Found and trained by psinas: trial {trial["number"]}, architecture `{architecture["hash"]}`,
search seed {trial["seed"]}. The scores are of **validation** images, which also chose the epoch
and the architecture: expect somewhat less on test images (`psinas score` measures them).

## Use

```python
from search_spaces import load

model = load("PATH/TO/THIS/DIRECTORY")  # images ({channels}, {height}, {width}) in [0, 1] to logits
```

Normalisation is inside the model. Data: {trial["data"]["name"]}, {task["classes"]} classes.

## Scores

| score | value |
|---|---|
{scores}

{doubts}

## Recipe

| setting | value |
|---|---|
{recipe}

Made with {versions}.
"""


def _doubts(scores: Mapping[str, float]) -> str:
    if not was_checked(scores):
        return "The search did not look for masked gradients (metric `suspicion`)."
    if flags := suspicions(scores):
        return (
            f"**Suspicious: {', '.join(flags)}.** Its robust accuracy may be a masked gradient; do "
            "not rely on it before you know why."
        )
    return "No sign of masked gradients was found (metric `suspicion`)."
