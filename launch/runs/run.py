"""One search from its configuration to its table and the winner's export; resume and replay too."""

from __future__ import annotations

import importlib.metadata
import json
import math
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
import yaml

from launch.config.config import Config, differing_keys, parse_config
from launch.config.documents import read_document
from nas.errors import InputError, NoStudy
from nas.export.export import export_trial
from nas.ledger.study import LOCK, RESULT, open_study
from nas.ledger.table import save_table, study_table
from nas.search.search import Search
from nas.search.trust import plain_names
from nas.search.winners import best
from nas.trial.evaluation import SECONDS, Evaluation, Trial, evaluate
from nas.trial.files import WEIGHTS, save_trial, trial_directory, write_whole
from search_spaces import space_of

CONFIG = "config.yaml"
RUN_ID = "run_id"


@dataclass(frozen=True)
class FinishedTrial:
    """A row of the ledger with the trial behind it."""

    number: int
    trial: Trial
    result: dict[str, Any]


def make_directory(run: Path) -> None:
    """Make the run directory, or say in one line why it cannot be.

    Raises:
        InputError: it cannot be written, or holds something else.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe = run / ".probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: expected a directory to write, got {run}: {error}") from error
    others = [p for p in run.iterdir() if p.name != LOCK and not p.name.startswith(".")]
    if others and not (run / CONFIG).exists():
        raise InputError(
            f"--out: expected a new, empty or earlier run directory, got {run} with other files"
        )


def settle_config(run: Path, asked: Config, *, resume: bool, keep_trials: bool) -> Config:
    """Return the configuration to run, saved in the run directory.

    Args:
        run: the run directory, made and locked.
        asked: what the user asked for.
        resume: go on with what is there.
        keep_trials: the user named no number of trials, so a larger saved one stands.

    Raises:
        InputError: a search is there and resume was not asked for, or it was another search.
    """
    if (run / CONFIG).exists() and _begun(run):
        saved = load_run_config(run)
        if not resume:
            raise InputError(
                f"{run} holds a search already: --resume goes on with it, --out begins another"
            )
        if different := differing_keys(saved, asked):
            raise InputError(
                f"{run} holds a search with another configuration: expected the saved one, got "
                f"other values for {', '.join(different)}; --out begins another search"
            )
        if keep_trials and asked.trials is not None and saved.trials is not None:
            trials = max(asked.trials, saved.trials)
            asked = asked.model_copy(update={"trials": trials})
    run_id = saved_run_id(run) or uuid.uuid4().hex
    document = {**asked.resolved(), "run_id": run_id, "made_with": versions()}
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)
    write_whole(run / CONFIG, lambda partial: partial.write_text(text))
    return asked


def _begun(run: Path) -> bool:
    """Whether the run has a trial; the ledger of one that has none is taken away.

    A search that was refused before its first trial (no such cluster, no such files) is no reason
    to refuse the corrected one.
    """
    saved = load_run_config(run)
    try:
        study = open_study(run, storage=saved.storage, name=saved.study_name)
    except NoStudy:
        return False
    if study.get_trials(deepcopy=False):
        return True
    if saved.storage is None:  # another run may have put its study in a shared storage
        optuna.delete_study(study_name=saved.study_name, storage=study._storage)
    return False


def saved_run_id(run: Path) -> str | None:
    """Return what tells this run from another of its name, or None before there is one."""
    if not (run / CONFIG).exists():
        return None
    found: str | None = read_document(run / CONFIG).get("run_id")
    return found


def load_run_config(run: Path) -> Config:
    """Return the saved configuration of a run directory.

    Raises:
        InputError: there is none.
    """
    if not (run / CONFIG).exists():
        raise InputError(f"expected a run directory with a {CONFIG}, got {run}")
    return parse_config(read_document(run / CONFIG))


def open_search(run: Path, config: Config) -> Search:
    """Return the search over the run's ledger.

    Raises:
        InputError: the ledger cannot be read.
    """
    plan = config.plan()
    study = open_study(
        run, directions=plan.directions, storage=config.storage, name=config.study_name
    )
    run_id = saved_run_id(run)
    owner = study.user_attrs.get(RUN_ID)
    if owner is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(RUN_ID, run_id)
    elif owner != run_id or [d.name.lower() for d in study.directions] != plan.directions:
        raise InputError(
            f"storage: the study {config.study_name!r} in {config.storage or run} belongs to "
            "another run: expected a name that is free; give this search another name"
        )
    return Search(study, plan)


def finish_run(run: Path, search: Search) -> tuple[pd.DataFrame, FinishedTrial | None]:
    """Save the trial table and export the winner, the best on the first objective."""
    table = study_table(search.study)
    save_table(table, run)
    objective, direction = next(iter(search.plan.objectives.items()))
    winner = best(search.results(), objective, direction)
    if winner is None:
        return table, None
    row = finished_trial(run, winner["number"])
    export_row(run, row, run / "best")
    return table, row


def finished_trial(run: Path, number: int) -> FinishedTrial:
    """Return a finished trial of a run; a repeat gives the one that it repeats.

    Raises:
        InputError: no such trial, or it is still running.
    """
    config = load_run_config(run)
    study = open_study(run, storage=config.storage, name=config.study_name)
    trials = {t.number: t for t in study.get_trials(deepcopy=False)}
    if number not in trials:
        raise InputError(f"--trial: expected 0 ... {len(trials) - 1} of {run}, got {number}")
    result = trials[number].user_attrs.get(RESULT)
    if result is None:
        raise InputError(f"--trial: expected a finished trial, got {number}, which is running")
    if result["repeat_of"] is not None:
        return finished_trial(run, result["repeat_of"])
    return FinishedTrial(number, config.plan().trial(trials[number].params), result)


def best_trial(run: Path, objective: str) -> FinishedTrial:
    """Return the complete trial with the best score.

    Raises:
        InputError: no trial has that score.
    """
    config = load_run_config(run)
    results = trial_results(run)
    found = best(results, objective, direction_of(objective, config))
    if found is None:
        known = sorted({name for r in results for name in plain_names(r["scores"])})
        raise InputError(
            f"expected a score of a complete trial ({', '.join(known) or 'there is none'}), "
            f"got {objective!r}"
        )
    return finished_trial(run, found["number"])


def trial_results(run: Path) -> list[dict[str, Any]]:
    """Return what the ledger holds of every different finished trial."""
    config = load_run_config(run)
    study = open_study(run, storage=config.storage, name=config.study_name)
    return Search(study, config.plan(), read_only=True).results()


def direction_of(score: str, config: Config) -> str:
    """Return ``max`` or ``min``: as the search has it, else ``max`` for accuracies alone."""
    return config.objectives.get(score, "max" if score.endswith("accuracy") else "min")


def export_row(run: Path, row: FinishedTrial, out: Path) -> None:
    """Export a finished trial, with a drawing of its cell if it has one."""
    metrics = load_run_config(run).resolved()["metrics"]
    export_trial(run, row.number, row.trial, row.result, out, metrics=metrics)
    if space_of(row.trial.architecture).cell(row.trial.architecture) is not None:
        from launch.show.cells import draw_cell

        draw_cell(row.trial.architecture, out / "cell.svg")


def replay(run: Path, number: int) -> tuple[FinishedTrial, Evaluation, list[str]]:
    """Train and score a finished trial again outside Ray, on the kind of device that it ran on.

    Weights that the search did not keep are written again where every number came out equal.

    Returns:
        The row, the new evaluation, and the names of the scores that differ (times aside).

    Raises:
        InputError: no such trial, one that never ran to its end, or a device that is not here.
    """
    row = finished_trial(run, number)
    if row.result["status"] in ("stopped", "timeout") or "environment" not in row.result:
        raise InputError(
            f"--trial: expected one that ran to its end, got {number}: {row.result['reason']}"
        )
    environment = row.result["environment"]
    if environment["device"] == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"trial {number} ran on {environment['device_name']}: expected a GPU here, got none "
            "(other devices add in another order, so the numbers would differ)"
        )
    evaluation = evaluate(row.trial, device=environment["device"], threads=environment["threads"])
    old, new = row.result["scores"], evaluation.scores
    different = [
        name
        for name in dict.fromkeys([*old, *new])
        if not name.endswith(SECONDS) and not _same(old.get(name), new.get(name))
    ]
    if row.result["status"] != evaluation.status:
        different.insert(0, "status")
    weights = trial_directory(run, row.number) / WEIGHTS
    if not different and evaluation.weights is not None and not weights.exists():
        save_trial(run, row.number, row.trial, evaluation)
    return row, evaluation, different


def versions() -> dict[str, Any]:
    """Return the versions that a run was made with, and the commit of a psinas checkout.

    None for what is run without being installed: a checkout on the path, say.
    """
    names = ("psinas", "torch", "torchvision", "ray", "optuna", "numpy")
    found: dict[str, Any] = {name: _version(name) for name in names}
    source = Path(__file__).resolve().parents[2]
    if (source / ".git").exists():
        answer = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True
        )
        found["commit"] = answer.stdout.strip() or None
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def to_json(scores: Mapping[str, float]) -> str:
    """Return scores as strict JSON: a number that is not finite is null."""
    finite = {k: v if math.isfinite(v) else None for k, v in scores.items()}
    return json.dumps(finite, indent=2, allow_nan=False)


def _same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))
