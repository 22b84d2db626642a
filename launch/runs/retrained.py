"""A retrained model on test images: attacked white box, and black box from a copy of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from launch.cluster.elsewhere import on_worker
from launch.config.values import plain
from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trial_model
from metrics.attacks import FGSM, Attack, StepLL, Transfer
from metrics.cost import parameters
from metrics.engine.folding import fast_copy
from metrics.robustness.accuracy import correct, robust_accuracy, standard_error
from nas.data.arrays import prepare, prepare_test
from nas.data.datasets import load_as_before, load_images
from nas.device import choose_device
from nas.search.trust import advice, suspicions
from nas.seeds import derive_seed
from nas.trial.kept import averaged
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial

ATTACKS = ("fgsm", "step_ll", "pgd")


@dataclass(frozen=True)
class Retrained:
    """A retrained model on test images; accuracies in [0, 1], None where none is given.

    Attributes:
        model: the search's or a paper's name.
        parameters: of the model.
        clean, white, black: accuracies; of the last two by attack (fgsm, step_ll, pgd).
        images: test images, 0 where a paper does not tell.
        test: on what and by what PGD it was attacked: ``data``, ``classes``, ``epsilon``,
            ``steps``, ``step_size``.
        made: how the model came about: ``trial`` of the search, ``scale`` of its space, ``epochs``,
            ``train_images``, ``held_out_images``, ``epoch`` (which one's weights), ``chooser`` (the
            score that chose among the recipes), ``recipes`` and how many of them ``completed``.
        chosen: the recipe keys that were varied, with the chosen values.
        flags: suspicion flags of the model on held-out images.
        copy_flags: those of the copy on which black-box images were made.
    """

    model: str
    parameters: float | None
    clean: float | None
    white: Mapping[str, float | None]
    black: Mapping[str, float | None]
    images: int = 0
    test: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    copy_flags: Sequence[str] = ()


def measure(
    name: str,
    where: Run,
    best: FinishedTrial,
    copy: Run,
    *,
    limit: int | None = None,
    made: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> Retrained:
    """Return the row of a retrained model; it looks at test images.

    Args:
        name: of the row.
        where, best: the run of the retraining, and its best trial.
        copy: the run of the independently trained copy.
        limit: at most so many test images.
        made: what the caller knows of :attr:`Retrained.made`.
        address: of a Ray cluster, on a worker of which the attacks run; None attacks here.
    """
    config = where.config
    source_trial = copy.best(where.objective)
    model, source = trial_model(where, best), trial_model(copy, source_trial)
    test = prepare_test(
        load_as_before(best.trial.data, where.checksums, test=True), best.trial.data
    )
    x, y = test.images(slice(limit)), test.labels[:limit]
    arguments = (model, source, x, y, best.trial.recipe)
    if address is None:
        device = choose_device(config.resources.gpu != 0)
        clean, white, black = attacked(*arguments, device=device, threads=config.resources.cpu)
    else:
        clean, white, black = on_worker(address, config.resources.for_one(), attacked, *arguments)
    recipe = asdict(best.trial.recipe)
    results = where.results
    return Retrained(
        name,
        float(parameters(model)),
        clean,
        white,
        black,
        images=len(y),
        test=_test(best.trial),
        made={
            **(made or {}),
            **_trained(best.trial, best.result),
            "chooser": where.objective,
            "recipes": len(results),
            "completed": sum(r["status"] == "complete" for r in results),
        },
        chosen={key: recipe[key] for keys in config.vary["recipe"] for key in keys},
        flags=suspicions(best.result["scores"]),
        copy_flags=suspicions(source_trial.result["scores"]),
    )


def attacked(
    model: nn.Module,
    source: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    device: str,
    threads: int,
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Return clean accuracy, and white-box and black-box accuracy by attack, in [0, 1].

    Args:
        model: images to logits.
        source: on which black-box images are made.
        x: ``(N, C, H, W)`` in [0, 1].
        y: ``(N,)`` labels.
        recipe: has epsilon, steps and step size.
        device: where to; everything is moved there.
        threads: of torch. As many as a trial has: more of them wait for whatever core is busy.
    """
    torch.set_num_threads(threads)
    model, source, x, y = model.to(device), source.to(device), x.to(device), y.to(device)
    source = fast_copy(source, x[:2]) or source  # the same function, and its gradients sooner
    attacks = _attacks(recipe)
    black = {n: Transfer(source=source, attack=attack) for n, attack in attacks.items()}
    return (
        correct(model, x, y).double().mean().item(),
        {n: _robust(model, x, y, attack) for n, attack in attacks.items()},
        {n: _robust(model, x, y, attack) for n, attack in black.items()},
    )


def _test(trial: Trial) -> dict[str, Any]:
    pgd = trial.recipe.judge()
    return {
        "data": trial.data.name,
        "classes": plain(trial.data.classes),
        "epsilon": pgd.epsilon,
        "steps": pgd.steps,
        "step_size": pgd.step_length,
    }


def _trained(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    data = prepare(load_images(trial.data), trial.data)
    epoch = "last epoch"
    if trial.recipe.selection_images:
        epoch = "best epoch by PGD on held-out images"
    if averaged(result):
        epoch += ", averaged weights"
    every = trial.recipe.epochs * trial.repeats
    return {
        "epochs": round(result.get("epochs", every) / trial.repeats),  # fewer out of patience
        "train_images": len(data.train),
        "held_out_images": len(data.validation),
        "epoch": epoch,
    }


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


# --------------------------------------------------------------------------------------- in print


def table_lines(rows: Sequence[Retrained], printed: Sequence[Retrained] = ()) -> list[str]:
    """Return a table of accuracies in percent with standard errors, and what to know of each row.

    Args:
        rows: ours.
        printed: a paper's, which stand first.
    """
    every = (*printed, *rows)
    names = [row.model + (" !" if row.flags or row.copy_flags else "") for row in every]
    width = max(map(len, names))
    attacks = "".join(f"{name:>12}" for name in ("FGSM", "step l.l.", "PGD"))
    lines = [
        f"{'':{width}}{'':>12}{'':>12}{'white box':^36}{'black box':^36}".rstrip(),
        f"{'model':{width}}{'parameters':>12}{'clean':>12}{attacks}{attacks}",
    ]
    for name, row in zip(names, every, strict=True):
        size = f"{row.parameters / 1e6:.3g} M" if row.parameters is not None else "-"
        values = [row.clean, *(row.white[n] for n in ATTACKS), *(row.black[n] for n in ATTACKS)]
        cells = "".join(f"{_percent(v, row.images):>12}" for v in values)
        lines.append(f"{name:{width}}{size:>12}{cells}")
    lines += [line for row in rows for line in _about(row)]
    raised = [flag for row in rows for flag in (*row.flags, *row.copy_flags)]
    lines += [f"  {line}" for line in advice(raised)]
    lines.append(
        "Test accuracy in % ± one standard error; a white-box image counts as broken at any "
        "visited iterate."
    )
    keys = ("epochs", "train_images", "epoch")
    ours = [{**row.test, **{key: row.made.get(key) for key in keys}} for row in rows]
    tests = dict.fromkeys(key for row in rows for key in row.test)
    if apart := [key for key in (*tests, *keys) if any(o[key] != ours[0][key] for o in ours)]:
        lines.append(f"The rows differ in more than architecture and recipe: {', '.join(apart)}.")
    return lines


def _about(row: Retrained) -> list[str]:
    """Return what a reader must know of one of our rows."""
    made, test = row.made, row.test
    scale = ", ".join(f"{k} {v}" for k, v in made["scale"].items()) or "the search's size"
    which = f"classes {test['classes']} of " if test["classes"] else ""
    recipes = f"{made['recipes']} recipes"
    if made["completed"] < made["recipes"]:
        recipes = f"the {made['completed']} of {recipes} that completed"
    chosen = ", ".join(f"{k} {v}" for k, v in row.chosen.items())
    lines = [
        f"{row.model}: trial {made['trial']} with {scale}; {made['epochs']} epochs on "
        f"{made['train_images']} images, {made['epoch']}",
        f"  best {made['chooser']} of {recipes} on {made['held_out_images']} held-out images: "
        f"{chosen}",
        f"  {row.images} test images of {which}{test['data']}, epsilon "
        f"{255 * test['epsilon']:g}/255, PGD of {test['steps']} steps of "
        f"{255 * test['step_size']:g}/255",
    ]
    for whose, flags in (("the model", row.flags), ("the black-box source", row.copy_flags)):
        if flags:
            lines.append(f"  ! {whose} is suspicious: {', '.join(flags)}")
    return lines


def _percent(value: float | None, images: int) -> str:
    if value is None:
        return "-"
    error = f" ± {100 * standard_error(value, images):.1f}" if images else ""
    return f"{100 * value:.1f}{error}"
