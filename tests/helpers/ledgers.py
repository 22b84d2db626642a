"""Run directories with a ledger, made without training: what a search would have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml

from nas.ledger.results import PLACE, RESULT
from nas.ledger.study import open_study

NASTY = "a'b\"<script>alert(1)</script>é中\u202e"
STATES = {"complete": optuna.trial.TrialState.COMPLETE, "stopped": optuna.trial.TrialState.PRUNED}


def make_run(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str = "made",
    objectives: Mapping[str, str] | None = None,
    storage: str | None = None,
    choices: Sequence[Any] = (1, 2, 4),
) -> optuna.Study:
    """Write a run directory; return its study.

    Args:
        path: of the run.
        rows: of a trial each: ``status`` (``running`` has no outcome), ``scores``, ``reason``,
            ``repeat_of``, ``old`` (of a ledger of before there were places), ``epochs`` (the text
            of its epochs.csv).
        name: of the run.
        objectives: score -> ``max`` or ``min``; ``pgd_accuracy`` and ``psi`` by default.
        storage: a URL of Optuna's.
        choices: of the one decision, ``depth``.
    """
    objectives = objectives or {"pgd_accuracy": "max", "psi": "min"}
    path.mkdir(parents=True)
    document = {"name": name, "objectives": dict(objectives), "storage": storage, "trials": 9}
    document |= {"data": {"name": "digits"}, "space": {"name": "made"}, "sampler": {"name": "tpe"}}
    (path / "config.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    ways = ["maximize" if way == "max" else "minimize" for way in objectives.values()]
    named = {"name": name} if storage else {}
    study = open_study(path, directions=ways, storage=storage, **named)
    add_trials(study, path, rows, objectives, choices)
    return study


def add_trials(
    study: optuna.Study,
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    objectives: Mapping[str, str],
    choices: Sequence[Any] = (1, 2, 4),
) -> None:
    """Write trials behind those that are there."""
    place = sum(
        trial.user_attrs.get(PLACE) is not None for trial in study.get_trials(deepcopy=False)
    )
    for row in rows:
        trial = study.ask()
        trial.suggest_categorical("depth", list(choices))
        repeat = row.get("repeat_of")
        if not row.get("old"):
            given = place if repeat is None else None
            study._storage.set_trial_user_attr(trial._trial_id, PLACE, given)
        if "epochs" in row:
            (path / "trials" / str(place)).mkdir(parents=True)
            (path / "trials" / str(place) / "epochs.csv").write_text(row["epochs"], "utf-8")
        place += repeat is None
        if row["status"] == "running":
            continue
        scores = dict(row.get("scores", {}))
        result = {"status": row["status"], "reason": row.get("reason", ""), "scores": scores,
                  "epochs": 2, "seconds": 1.5, "repeat_of": repeat, "key": str(trial.number),
                  "order": trial.number,
                  "architecture": {"hash": f"{trial.number:016x}"}}  # fmt: skip
        trial.set_user_attr(RESULT, result)
        if row["status"] == "complete":
            study.tell(trial, [scores[objective] for objective in objectives])
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
