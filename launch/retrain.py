"""From a search's winner to a row of Table 1 of Cubuk et al. 2017.

The winner's choices stay; the space's settings (filters, cells) grow. It is trained on the training
images, those included that the search validated on, all but a held-out share that is drawn anew,
under several sets of hyperparameters. The best on the held-out images is attacked on test images,
white box and black box: with adversarial images made on a copy that was initialised and trained
independently.

Both trainings are searches of their own, over sets of hyperparameters with the architecture fixed,
in directories in ``RUN/retrain``: they run on the same workers, resume after a kill, and
leave a trial table.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config import Config, parse_config
from launch.run import CONFIG, FinishedTrial, best_trial, load_run_config, trial_results
from launch.score import trial_model
from launch.searching import search_and_report
from launch.sections import Retrain
from metrics.accuracy import correct, robust_accuracy, standard_error
from metrics.attacks import FGSM, Attack, StepLL, Transfer
from metrics.cost import parameters
from metrics.fast import fast_copy
from nas.data import prepare_test
from nas.datasets import load_test_images
from nas.errors import InputError
from nas.evaluation import Trial
from nas.rundir import write_whole
from nas.seeds import derive_seed
from nas.training import Recipe
from search_spaces.base import canonical_hash

DIRECTORY, COPY, ROW = "retrain", "copy", "table1.json"
COPIES = 3  # starts that are tried where the copy diverges
ATTACKS = ("fgsm", "step_ll", "pgd")


def default_recipes(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the twelve sets: three learning rates, two weight decays, two label smoothings.

    The paper gives their number, not what they are.
    """
    rates = (recipe.learning_rate, recipe.learning_rate / 2, recipe.learning_rate / 4)
    decays = (recipe.weight_decay, recipe.weight_decay / 5)
    return [
        {"learning_rate": rate, "weight_decay": decay, "label_smoothing": smoothing}
        for rate, decay, smoothing in itertools.product(rates, decays, (0.0, 0.1))
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
        "keep": {"top": 1},
        "resources": config.resources.model_dump(),
        "fix": dict(trial.architecture.choices),
    }
    sets = asked.recipes or default_recipes(parse_config(document).recipe)
    return parse_config({**document, "vary": {"recipe": sets}})


def check(config: Config) -> None:
    """Refuse what cannot be retrained before the search rather than after it.

    Raises:
        InputError: as :func:`retrain_config`.
    """
    if config.retrain is not None:
        retrain_config(config, FinishedTrial(0, config.plan().template, {}), config.retrain)


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


@dataclass(frozen=True)
class Row:
    """One row of the paper's Table 1; accuracies in [0, 1], None where none is given.

    Attributes:
        model: the preset or paper.
        parameters: of the model.
        clean, white, black: accuracies; of the last two by attack (fgsm, step_ll, pgd).
        images: test images, 0 where the paper tells.
        of: the dataset, the attacks and which epoch's weights: what rows must share to be compared.
        chosen: the set of hyperparameters.
    """

    model: str
    parameters: float | None
    clean: float | None
    white: Mapping[str, float | None]
    black: Mapping[str, float | None]
    images: int = 0
    of: str = ""
    chosen: Mapping[str, Any] | None = None


def retrain(
    run: Path, asked: Retrain, *, winner: FinishedTrial, out: Path | None, address: str | None
) -> Row | None:
    """Retrain a search's trial and measure it on test images; None: interrupted.

    Args:
        run: the search.
        asked: what to change, and how much to measure.
        winner: the trial.
        out: where the trainings go; None is a directory in ``RUN/retrain`` that is named by the
            trial and what was asked, so that a longer search with another winner has its own.
        address: of a Ray cluster.

    Raises:
        InputError: a setting that is refused, or another retraining in ``out``.
    """
    config = load_run_config(run)
    sets = retrain_config(config, winner, asked)
    where = out if out is not None else run / DIRECTORY / _name(winner, sets)
    again = f"psinas retrain {run} --trial {winner.number}, with the options that were given"
    if not search_and_report(
        sets, where, resume=True, keep_trials=True, address=address, again=again
    ):
        return None
    best = best_trial(where, next(iter(sets.objectives)))
    copy = _copy(sets, best, where, address=address, again=again)
    if copy is None:
        return None
    done = where / ROW
    key = f"{best.trial.key} {asked.test_images}"
    torch.set_num_threads(sets.resources.cpu)  # two that wait for each other are slower than one
    if (row := _saved(done, key)) is None:
        row = measure(config.name, where, best, copy, asked.test_images)
        text = json.dumps({"key": key, **asdict(row)}, indent=2) + "\n"
        write_whole(done, lambda partial: partial.write_text(text))
    return row


def _name(winner: FinishedTrial, sets: Config) -> str:
    """Return the trial's number, and a hash of what decides the scores of its retraining."""
    document = {k: v for k, v in sets.resolved().items() if k not in ("resources", "keep")}
    return f"{winner.number}-{canonical_hash(document)[:8]}"


def _copy(
    sets: Config, best: FinishedTrial, where: Path, *, address: str | None, again: str
) -> Path | None:
    """Train the black-box copy, from another start where one diverges; None: interrupted."""
    for repeat in range(1, COPIES + 1):
        config, place = copy_config(sets, best, repeat), where / f"{COPY}-{repeat}"
        try:
            if not search_and_report(
                config, place, resume=True, keep_trials=True, address=address, again=again
            ):
                return None
        except InputError:
            if repeat == COPIES or not (place / CONFIG).exists() or _has_winner(place):
                raise
            continue
        return place
    raise AssertionError("unreachable")


def _has_winner(place: Path) -> bool:
    return any(r["status"] == "complete" for r in trial_results(place))


def measure(name: str, where: Path, best: FinishedTrial, copy: Path, limit: int | None) -> Row:
    """Return the row of a retrained model; it looks at test images.

    Args:
        name: of the row.
        where, best: the run of the retraining, and its best trial.
        copy: the run of the independently trained copy.
        limit: at most so many test images.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = trial_model(where, best).to(device)
    source = trial_model(copy, best_trial(copy, _chooser_of(where))).to(device)
    test = prepare_test(load_test_images(best.trial.data), best.trial.data)
    x, y = test.images(slice(limit)).to(device), test.labels[:limit].to(device)
    source = fast_copy(source, x[:2]) or source  # the same function, and its gradients sooner
    attacks = _attacks(best.trial.recipe)
    black = {n: Transfer(source=source, attack=attack) for n, attack in attacks.items()}
    return Row(
        name,
        float(parameters(model)),
        correct(model, x, y).double().mean().item(),
        {n: _robust(model, x, y, attack) for n, attack in attacks.items()},
        {n: _robust(model, x, y, attack) for n, attack in black.items()},
        images=len(y),
        of=_of(best.trial),
        chosen=_chosen(where, best),
    )


def _of(trial: Trial) -> str:
    recipe = trial.recipe
    epoch = "best epoch by PGD on held-out images" if recipe.selection_images else "last epoch"
    return (
        f"{trial.data.name}, epsilon {255 * recipe.epsilon:g}/255, PGD of {recipe.steps} steps, "
        f"{epoch}"
    )


def _attacks(recipe: Recipe) -> dict[str, Attack]:
    epsilon = recipe.epsilon
    return {
        "fgsm": FGSM(epsilon=epsilon),
        "step_ll": StepLL(epsilon=epsilon),
        "pgd": recipe.judge(),
    }


def _robust(model: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> float:
    generator = torch.Generator(device=y.device).manual_seed(derive_seed(0, "table 1"))
    return robust_accuracy(model, x, y, attack, generator=generator).accuracy


def _chosen(where: Path, best: FinishedTrial) -> dict[str, Any]:
    """Return the keys that were varied, with the chosen values."""
    recipe = asdict(best.trial.recipe)
    keys = dict.fromkeys(k for s in load_run_config(where).vary["recipe"] for k in s)
    return {key: recipe[key] for key in keys}


def _chooser_of(where: Path) -> str:
    return next(iter(load_run_config(where).objectives))


def _saved(path: Path, key: str) -> Row | None:
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    return Row(**document) if document.pop("key") == key else None


def saved_row(run: Path) -> Row | None:
    """Return the row that the latest retraining of ``run`` left, or None."""
    rows = sorted((run / DIRECTORY).glob(f"*/{ROW}"), key=lambda path: path.stat().st_mtime)
    return _saved(rows[-1], json.loads(rows[-1].read_text())["key"]) if rows else None


PAPER = (
    Row(
        "Madry et al. 2017",
        None,
        0.873,
        {"fgsm": 0.561, "step_ll": None, "pgd": 0.500},
        {"fgsm": 0.670, "step_ll": None, "pgd": 0.642},
    ),
    Row(
        "Cubuk et al. 2017, best",
        3.5e6,
        0.932,
        {"fgsm": 0.636, "step_ll": 0.779, "pgd": 0.501},
        {"fgsm": 0.781, "step_ll": 0.849, "pgd": 0.750},
    ),
)
"""CIFAR-10, epsilon 8/255: what the paper prints."""


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return Table 1: the paper's rows, then ours, accuracies in percent with standard errors."""
    width = max(len(r.model) for r in (*PAPER, *rows))
    attacks = "".join(f"{name:>12}" for name in ("FGSM", "step l.l.", "PGD"))
    lines = [
        f"{'':{width}}{'':>12}{'':>12}{'white box':^36}{'black box':^36}".rstrip(),
        f"{'model':{width}}{'parameters':>12}{'clean':>12}{attacks}{attacks}",
    ]
    for row in (*PAPER, *rows):
        size = f"{row.parameters / 1e6:.3g} M" if row.parameters is not None else "-"
        values = [row.clean, *(row.white[n] for n in ATTACKS), *(row.black[n] for n in ATTACKS)]
        cells = "".join(f"{_percent(v, row.images):>12}" for v in values)
        lines.append(f"{row.model:{width}}{size:>12}{cells}")
    for row in rows:
        chosen = ", ".join(f"{k} {v}" for k, v in (row.chosen or {}).items())
        lines.append(f"{row.model}: {row.images} test images of {row.of}; chosen: {chosen}")
    note = (
        "Ours: test accuracy in % ± one standard error; a white-box image counts as broken at any\n"
        "visited iterate. The rows of the papers are of CIFAR-10 at 8/255"
    )
    other = any(not row.of.startswith("cifar10, epsilon 8/255") for row in rows)
    return [*lines, note + (", ours of what stands above: not to be compared." if other else ".")]


def _percent(value: float | None, images: int) -> str:
    if value is None:
        return "-"
    error = f" ± {100 * standard_error(value, images):.1f}" if images else ""
    return f"{100 * value:.1f}{error}"
