"""The way out: a trained model, its description and a model card in one directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.data.checksum import DATA_CHECKSUM
from nas.errors import InputError
from nas.search.trust import BEGIN, suspicions, was_checked
from nas.trial.deviations import DEVIATION
from nas.trial.files import WEIGHTS, trial_directory
from nas.trial.kept import averaged
from nas.trial.trial import Trial

MODEL, DESCRIPTION, CARD = "model.safetensors", "architecture.json", "README.md"
FILES = (DESCRIPTION, MODEL, CARD, "cell.svg")  # all that an export holds


def export_trial(
    run: Path,
    number: int,
    trial: Trial,
    result: Mapping[str, Any],
    out: Path,
    *,
    metrics: list[dict[str, Any]],
    data_checksum: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
) -> None:
    """Write ``architecture.json``, ``model.safetensors`` and a model card to ``out``.

    Args:
        run: the run directory.
        number: of the trial whose weights are on disk.
        trial: what was trained.
        result: what the ledger holds of it.
        out: the files of an earlier export there are replaced, all others left.
        metrics: the search's metrics, so that ``psinas score`` can repeat them.
        data_checksum: part -> checksum of the trial's data, so that others are refused there.
        modules: directories of the modules that the space and the metrics are in.

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
    check_place(out)
    description = json.loads((source / "architecture.json").read_text(encoding="utf-8"))
    description["trial"] = {
        "number": number,
        "recipe": asdict(trial.recipe),
        "data": asdict(trial.data),
        DATA_CHECKSUM: dict(data_checksum or {}),
        "metrics": metrics,
        "seed": trial.seed,
        "repeat": trial.repeat + (result.get("kept_repeat") or 0),
        "scores": result["scores"],
        "repeats": result.get("repeats", []),
        "environment": result["environment"],
    }
    if averaged(result):
        description["trial"]["averaged_weights"] = True
    if modules:
        description["trial"]["modules"] = list(modules)
    text, card = json.dumps(description, indent=2) + "\n", model_card(description)
    out.mkdir(parents=True, exist_ok=True)
    _partial(out, DESCRIPTION).write_text(text, encoding="utf-8")  # says whose a half-made one is
    shutil.copyfile(source / WEIGHTS, _partial(out, MODEL))
    _partial(out, CARD).write_text(card, encoding="utf-8")
    for name in FILES:  # the description goes first and comes last: never beside other weights
        (out / name).unlink(missing_ok=True)
    for name in (MODEL, CARD, DESCRIPTION):
        _partial(out, name).replace(out / name)


def check_place(out: Path) -> None:
    """Refuse to export among somebody's files.

    Raises:
        InputError: ``out`` is a file, or a directory that holds something and no export.
    """
    if not out.exists():
        return
    expected = "--out: expected a new or empty directory, or an earlier export"
    if not out.is_dir():
        raise InputError(f"{expected}, got the file {out}")
    partial = {_partial(out, name).name for name in FILES}
    others = sorted(p.name for p in out.iterdir() if p.name not in partial)
    if others and not (_is_ours(out / DESCRIPTION) or _is_ours(_partial(out, DESCRIPTION))):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise InputError(f"{expected}, got {out} with {', '.join(others[:3])}{more}")


def _partial(out: Path, name: str) -> Path:
    return out / f".{name}.partial"


def _is_ours(description: Path) -> bool:
    """Whether this is the description of an export."""
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"architecture", "task", "trial"} <= found.keys()


def model_card(description: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown, of an exported description."""
    architecture, task, trial = (description[k] for k in ("architecture", "task", "trial"))
    choices = ", ".join(f"{k} {v}" for k, v in architecture["choices"].items())
    channels, height, width = task["shape"]
    scores = _scores(trial)
    doubts = _doubts(trial["scores"])
    recipe = "\n".join(f"| {name} | {value} |" for name, value in trial["recipe"].items())
    kind = ""
    if trial.get("averaged_weights"):
        kind = "\n\nThe weights are a moving average of those of training (`weight_average`)."
    versions = ", ".join(f"{k} {v}" for k, v in trial["environment"].items())
    return f"""# {architecture["space"]}: {choices}

Found and trained by psinas: trial {trial["number"]}, architecture `{architecture["hash"]}`,
search seed {trial["seed"]}. The scores are of **validation** images, which also chose the epoch
and the architecture: expect somewhat less on test images (`psinas score` measures them).{kind}

## Use

```python
from search_spaces import load

model = load("PATH/TO/THIS/DIRECTORY")  # images ({channels}, {height}, {width}) in [0, 1] to logits
```

Normalisation is inside the model. Data: {trial["data"]["name"]}, {task["classes"]} classes.

## Scores

{scores}

{doubts}

## Recipe

| setting | value |
|---|---|
{recipe}

Made with {versions}.
"""


def _scores(trial: Mapping[str, Any]) -> str:
    """Return the table of scores: of repeats their mean, deviation, and those of these weights."""
    shown = {n: v for n, v in trial["scores"].items() if BEGIN not in n}
    repeats = trial.get("repeats") or []
    if not repeats:
        rows = [f"| {name} | {value:.6g} |" for name, value in shown.items()]
        return "\n".join(["| score | value |", "|---|---|", *rows])
    own = repeats[trial["repeat"]]
    rows = []
    for name, mean in shown.items():
        if not name.endswith(DEVIATION):
            spread = shown.get(name + DEVIATION)
            cell = "" if spread is None else f"{spread:.2g}"
            rows.append(f"| {name} | {mean:.6g} | {cell} | {own[name]:.6g} |")
    return "\n".join(
        [
            f"The architecture was trained under {len(repeats)} seeds, and judged by the worse end "
            "of mean ± deviation (of the sample, n - 1). The weights here are those of repeat "
            f"{trial['repeat']} of 0 ... {len(repeats) - 1}, whose scores lie nearest the mean.",
            "",
            "| score | mean | deviation | these weights |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _doubts(scores: Mapping[str, float]) -> str:
    if not was_checked(scores):
        return "The search did not look for masked gradients (metric `suspicion`)."
    if flags := suspicions(scores):
        return (
            f"**Suspicious: {', '.join(flags)}.** Its robust accuracy may be a masked gradient; do "
            "not rely on it before you know why."
        )
    return "No sign of masked gradients was found (metric `suspicion`)."
