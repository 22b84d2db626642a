"""Run directories written row by row: a configuration and a ledger, without any training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import yaml

from nas.ledger.results import RESULT
from nas.ledger.study import open_study


def write_run(
    run: Path,
    rows: list[dict[str, Any]],
    choices: dict[str, list[Any]],
    objectives: dict[str, str],
    *,
    seed: int = 0,
    sampler: str = "random",
) -> Path:
    """Write a run of these trials.

    Args:
        run: the directory.
        rows: of each trial ``params``, and its result: ``status`` complete, no reason and no scores
            by default; ``status: running`` has no result.
        choices: decision -> its choices; a trial is asked those that its params have.
        objectives: score -> ``max`` or ``min``.
        seed, sampler: as the configuration has them.
    """
    run.mkdir(parents=True)
    document = {
        "name": "written",
        "seed": seed,
        "objectives": objectives,
        "sampler": {"name": sampler},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    study = open_study(run, directions=["maximize"] * len(objectives))
    for row in rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.enqueue_trial(row["params"])
        trial = study.ask()
        for name in row["params"]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna's, of choices that are lists
                trial.suggest_categorical(name, choices[name])
        result = {"status": "complete", "reason": "", "scores": {}, "repeat_of": None, **row}
        result.pop("params")
        if result["status"] != "running":
            trial.set_user_attr(RESULT, result)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return run
