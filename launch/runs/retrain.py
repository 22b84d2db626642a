"""From a search's winner to a trained model: enlarged, trained on all images, then attacked.

The winner's choices stay; the space's settings (filters, cells) grow. It is trained on the training
images, those included that the search validated on, all but a held-out share that is drawn anew
(``data`` may ask for fewer), under several sets of hyperparameters. The best on the held-out images
is attacked on test images, white box and black box: with adversarial images made on a copy that was
initialised and trained independently.

Both trainings are searches of their own, over sets of hyperparameters with the architecture fixed,
in directories in ``RUN/retrain``: they run on the same workers, resume after a kill, and
leave a trial table.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from launch.config.config import Config, deciding, parse_config
from launch.config.sections import Retrain
from launch.runs.retrained import Retrained, measure
from launch.runs.run import FinishedTrial, Run
from launch.runs.searching import Searched, search
from launch.show.reporter import Reporter
from nas.errors import InputError, NoWinner
from nas.files import write_whole
from nas.trial.group import Group
from nas.trial.recipe import Recipe
from search_spaces.architecture import canonical_hash

DIRECTORY, COPY, ROW = "retrain", "copy", "table1.json"
COPIES = 3  # starts that are tried where the copy diverges


def default_recipes(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the twelve sets: three learning rates, two weight decays, two label smoothings.

    The paper gives their number, not what they are.
    """
    rates = (recipe.learning_rate, recipe.learning_rate / 2, recipe.learning_rate / 4)
    decays = (recipe.weight_decay, recipe.weight_decay / 5 if recipe.weight_decay else 1e-4)
    smoothings = (recipe.label_smoothing, 0.0 if recipe.label_smoothing else 0.1)
    return [
        {"learning_rate": rate, "weight_decay": decay, "label_smoothing": smoothing}
        for rate, decay, smoothing in itertools.product(rates, decays, smoothings)
    ]


def retrain_config(config: Config, winner: FinishedTrial, asked: Retrain) -> Config:
    """Return the search over hyperparameters of one enlarged architecture.

    Args:
        config: of the search.
        winner: its trial.
        asked: what to change.

    Raises:
        InputError: an unknown setting, key or value, or a space that changes its decisions with
            the scale.
    """
    trial = winner.trial
    recipe = {**asdict(trial.recipe), **asked.recipe}
    data = {
        **asdict(trial.data),
        "limit": {},
        "validation_share": asked.held_out,
        "seed": trial.data.seed + 1,  # others than the search's validation images, which train too
        **asked.data,
    }
    pgd = {"name": "pgd", "steps": recipe["steps"], "step_size": recipe["step_size"]}
    document = {
        "name": f"{config.name}-retrain",
        "seed": config.seed,
        "data": data,
        "space": {**config.resolved()["space"], **asked.scale},
        "recipe": recipe,
        "metrics": ["clean", "fgsm", "step-ll", pgd, "cost", "suspicion"],
        "objectives": {_chooser(config): "max"},
        "sampler": {"name": "grid"},
        "trials": None,
        "keep": {"top": 1, "reserve_bytes": config.keep.reserve_bytes},
        "resources": _resources(config, asked),
        "fix": dict(trial.architecture.choices),
        "modules": config.modules,
    }
    base = parse_config(document)
    if added := base.built_space().decisions().keys() - dict(trial.architecture.choices).keys():
        raise InputError(
            f"retrain.scale: expected settings that leave the decisions as they are, got "
            f"{asked.scale}, which adds {', '.join(sorted(added))}"
        )
    sets = asked.recipes or default_recipes(base.recipe)
    found = parse_config({**document, "vary": {"recipe": sets}})
    group = Group(size=found.resources.processes)
    for keys in found.vary["recipe"]:
        try:
            group.check(replace(found.recipe, **keys))
        except ValueError as error:
            raise InputError(f"retrain: recipe.{error}") from error
    return found


def _resources(config: Config, asked: Retrain) -> dict[str, Any]:
    """Return the search's with what is asked laid over them."""
    own = config.resources.model_dump()
    own["time_limit_seconds"] = None  # the search's is that of a small child
    if "processes" in asked.resources and own["gpu"]:  # so is its share of a GPU
        own["gpu"] = "auto" if own["gpu"] == "auto" else asked.resources["processes"]
    return {**own, **asked.resources}


def check(config: Config, asked: Retrain | None = None) -> None:
    """Refuse what cannot be retrained before the search rather than after it.

    Args:
        config: of the search.
        asked: how its winner is to be retrained; None is as ``config`` says, if it does.

    Raises:
        InputError: as :func:`retrain_config`.
    """
    asked = asked or config.retrain
    if asked is not None:
        retrain_config(config, FinishedTrial(0, config.plan().template, {}), asked)


def with_recipe(asked: Retrain, recipe: Mapping[str, Any]) -> Retrain:
    """Return a retraining with other recipe keys."""
    return asked.model_copy(update={"recipe": {**asked.recipe, **recipe}})


def copy_config(config: Config, winner: FinishedTrial, repeat: int) -> Config:
    """Return the training of the winner once more, from another start."""
    document = config.resolved()
    document |= {
        "name": f"{config.name}-copy",
        "recipe": asdict(winner.trial.recipe),
        "vary": {"repeat": [repeat]},
    }
    return parse_config(document)


def _chooser(config: Config) -> str:
    """Return the score that chooses among hyperparameters: the search's own, if it is here."""
    first = next(iter(config.objectives))
    here = ("clean_accuracy", "fgsm_accuracy", "step_ll_accuracy")
    return first if first in here else "pgd_accuracy"


def retrain(
    run: Run,
    asked: Retrain,
    report: Reporter,
    *,
    winner: FinishedTrial,
    out: Path | None = None,
    address: str | None = None,
    again: str | None = None,
) -> Retrained | None:
    """Retrain a search's trial and measure it on test images; None: interrupted.

    Args:
        run: the search.
        asked: what to change, and how much to measure.
        report: is told of the trainings.
        winner: the trial.
        out: where the trainings go; None is :func:`directory`.
        address: of a Ray cluster.
        again: the command that goes on; None is ``psinas retrain``.

    Raises:
        InputError: a setting that is refused, another retraining in ``out``, data that have changed
            since the search, or no training that completed.
    """
    grid = retrain_config(run.config, winner, asked)
    where = out if out is not None else directory(run.path, winner, grid)
    options = f"--trial {winner.number}, with the options that were given"
    again = again or f"psinas retrain {run.path} {options}"
    go_on = partial(
        search,
        resume=True,
        keep_trials=True,
        address=address,
        again=again,
        data_checksum=run.checksums,
    )
    try:
        trained = go_on(grid, where, report)
    except NoWinner as error:
        raise InputError(f"{error}; delete {where} to train them again") from error
    if not trained.whole:
        return None
    best = trained.run.best()
    if (copy := _copy(grid, best, where, partial(go_on, report=report))) is None:
        return None
    if (row := _saved(where / ROW, key := _key(best, asked))) is None:
        made = {"trial": winner.number, "scale": dict(asked.scale)}
        limit, name = asked.test_images, run.config.name
        row = measure(name, trained.run, best, copy, limit=limit, made=made, address=address)
        text = json.dumps({"key": key, **asdict(row)}, indent=2) + "\n"
        write_whole(where / ROW, lambda partial: partial.write_text(text, encoding="utf-8"))
    return row


def directory(run: Path, winner: FinishedTrial, grid: Config) -> Path:
    """Return the directory of a retraining: by its trial, and a hash of what decides its scores.

    So a longer search with another winner has its own, and one whose files have moved has not.
    """
    decides = {**deciding(grid), "time_limit_seconds": grid.resources.time_limit_seconds}
    return run / DIRECTORY / f"{winner.number}-{canonical_hash(decides)[:8]}"


def saved_row(run: Run, asked: Retrain | None = None) -> Retrained | None:
    """Return the row of a run's own winner, retrained as is asked, or None.

    Args:
        run: the search.
        asked: None is as its configuration says.
    """
    asked = asked or run.config.retrain or Retrain()
    where = retraining(run, asked)
    if not (where / ROW).exists():
        return None
    return _saved(where / ROW, _key(Run(where).best(), asked))


def retraining(run: Run, asked: Retrain) -> Path:
    """Return the directory in which a run's own winner is retrained so, there or not."""
    winner = run.best()
    return directory(run.path, winner, retrain_config(run.config, winner, asked))


def _copy(
    grid: Config, best: FinishedTrial, where: Path, go_on: Callable[..., Searched]
) -> Run | None:
    """Train the black-box copy, from another start where one diverges; None: interrupted."""
    for repeat in range(1, COPIES + 1):
        place = where / f"{COPY}-{repeat}"
        try:
            trained = go_on(copy_config(grid, best, repeat), place)
        except NoWinner as error:
            if repeat == COPIES:
                copies = f"{where / COPY}-1 ... {repeat}"
                raise InputError(f"{error}; delete {copies} to train copies again") from error
        else:
            return trained.run if trained.whole else None
    raise AssertionError("unreachable")


def _key(best: FinishedTrial, asked: Retrain) -> str:
    """Return what a row depends on: the model, and how many test images it was shown."""
    return f"{best.trial.key} {asked.test_images}"


def _saved(path: Path, key: str) -> Retrained | None:
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.pop("key") != key or document.keys() != {field.name for field in fields(Retrained)}:
        return None  # of another model, or as another version wrote it
    return Retrained(**document)
