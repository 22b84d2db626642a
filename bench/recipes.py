"""Which recipe makes the most of equal time: PGD, TRADES, MART, averaged weights and AWP, compared.

    PSINAS_DATA=DIR python bench/recipes.py [--seconds 60] [--seeds 5] [--workers 2] [--json FILE]

Six recipes (three losses, with and without adversarial weight perturbation) train one small net
from the same five starts, over the same order of images. The CPU time of an epoch of each recipe is
measured first, its judging and the average's included, and each gets as many whole epochs as fit
into the budget, so that the schedule is whole for each. A training keeps plain and averaged weights
of the best epoch (by PGD on validation images) and of the last. The learning rate of each loss is
the best of a short list on validation images, under a seed of its own and without AWP.

Test images are attacked by PGD-20, and those that stand by Auto-PGD on the cross entropy and then,
towards the runner-up, on the difference of logits ratio; "APGD" is what all three left. An image
counts as broken at any visited iterate. Intervals are of the mean over seeds (Student's t, 95 %);
differences are paired by seed. Every process has one thread. Fashion-MNIST needs PSINAS_DATA;
without it the images are digits.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from metrics.attacks import APGD, PGD
from metrics.robustness.cascade import cascade
from nas.data.arrays import Data, prepare, prepare_test
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images, load_test_images
from nas.errors import Diverged
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

LOSSES: dict[str, dict[str, Any]] = {
    "PGD": {},
    "TRADES": {"loss": "trades", "beta": 6.0},  # Zhang et al. 2019
    "MART": {"loss": "mart", "beta": 5.0},  # Wang et al. 2020
}
AWP = {"PGD": 0.01, "TRADES": 0.005, "MART": 0.005}  # Wu et al. 2020
RATES = (0.03, 0.1, 0.3)
TUNING_SEED = 1000
BASELINE = "PGD", "plain"
WEIGHTS = ("plain", "averaged")
ATTACKED = ("clean", "PGD-20", "APGD")
MEASURED = 2  # epochs whose CPU time is measured; the faster one counts


@dataclass(frozen=True)
class Study:
    """What every training has in common; a worker makes images and attacks from it."""

    data: str
    epsilon: float
    images: int
    test_images: int
    depth: int
    channels: int
    steps: int
    decay: float

    def recipe(self, name: str, *, epochs: int, rate: float) -> Recipe:
        """Return a recipe by its name: a loss, or ``LOSS + AWP``."""
        loss, _, awp = name.partition(" + ")
        return Recipe(
            epochs=epochs,
            batch_size=64,
            learning_rate=rate,
            epsilon=self.epsilon,
            steps=self.steps,
            adversarial_share=1.0,
            weight_average=self.decay,
            awp=AWP[loss] if awp else 0.0,
            **LOSSES[loss],
        )

    @property
    def config(self) -> DataConfig:
        """The images: training ones are few, so that they are seen several times."""
        return DataConfig(
            name=self.data, limit=Limit(train=self.images, validation=1000, test=self.test_images)
        )


@cache
def images_of(study: Study) -> tuple[Data, Tensor, Tensor]:
    """Return training and validation images, test images and their labels; once a process."""
    torch.set_num_threads(1)
    test = prepare_test(load_test_images(study.config), study.config)
    return prepare(load_images(study.config), study.config), test.images(), test.labels


def begun(study: Study, seed: int) -> tuple[nn.Module, Data, torch.Generator]:
    """Return what every recipe starts from under one seed."""
    data, _, _ = images_of(study)
    space = DepthChannels(depth=(study.depth,), channels=(study.channels,), stem="imagenet")
    architecture = space.architecture({"depth": study.depth, "channels": study.channels})
    model = space.build(architecture, data.task, seed=seed)
    return model, data, torch.Generator().manual_seed(seed)


def epoch_seconds(study: Study, name: str) -> float:
    """Return the CPU seconds of an epoch of a recipe, the faster one of two."""
    model, data, generator = begun(study, TUNING_SEED)
    recipe = study.recipe(name, epochs=MEASURED, rate=RATES[0])
    before, taken = time.process_time(), []
    for _ in train(model, data, recipe, recipe.attack(), generator):
        taken.append(time.process_time() - before)
        before = time.process_time()
    return min(taken)


def trained(study: Study, name: str, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Train once, and return how plain and averaged weights of the best and last epoch do.

    ``validation`` is the robust accuracy that chose the best epoch of the plain weights.
    """
    model, data, generator = begun(study, seed)
    recipe = study.recipe(name, epochs=epochs, rate=rate)
    started = time.process_time()
    row = {"recipe": name, "rate": rate, "epochs": epochs, "seed": seed}
    try:
        training = drain(train(model, data, recipe, recipe.attack(), generator))
    except Diverged as error:
        return row | {"diverged": str(error)}
    row["seconds"] = time.process_time() - started
    row["validation"] = training.plain.best.robust_accuracy
    if seed == TUNING_SEED:
        return row
    for weights, kept in zip(WEIGHTS, (training.plain, training.average), strict=True):
        row[f"{weights} best epoch"] = kept.best.epoch
        for when, state in (("best", kept.best_weights), ("last", kept.last_weights)):
            if when == "last" and kept.best.epoch == epochs:  # one model
                row |= {f"{weights} last {a}": row[f"{weights} best {a}"] for a in ATTACKED}
                continue
            model.load_state_dict(state)
            row |= {f"{weights} {when} {a}": v for a, v in attacked(study, model.eval()).items()}
    return row


def attacked(study: Study, model: nn.Module) -> dict[str, float]:
    """Return accuracy on test images: clean, under PGD-20, and under Auto-PGD besides.

    Random starts are the same for every model.
    """
    _, x, y = images_of(study)
    attacks = [
        PGD(epsilon=study.epsilon, steps=20),
        APGD(epsilon=study.epsilon, steps=50),
        APGD(epsilon=study.epsilon, steps=50, loss="dlr", target="runner-up"),
    ]
    found = cascade(model, x, y, attacks, generator=torch.Generator().manual_seed(0))
    clean = (found.broken_by >= 0).double().mean().item()
    left = clean, found.accuracies[0], found.accuracy
    return dict(zip(ATTACKED, left, strict=True))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the length of its 95 % interval (Student's t over the values)."""
    n = len(values)
    if n < 2:
        return statistics.fmean(values) if n else math.nan, math.nan
    half = student.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return statistics.fmean(values), float(half)


def best_rates(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return loss -> the rate with the best validation accuracy; a training that diverged is last.

    Raises:
        ValueError: every training of a loss diverged.
    """
    best: dict[str, dict[str, Any]] = {}
    for row in (row for row in rows if "validation" in row):
        name = row["recipe"]
        if name not in best or row["validation"] > best[name]["validation"]:
            best[name] = row
    if missing := LOSSES.keys() - best.keys():
        raise ValueError(f"expected a rate under which it trains, got none for {sorted(missing)}")
    return {name: row["rate"] for name, row in best.items()}


def table(rows: Sequence[dict[str, Any]], when: str) -> list[str]:
    """Return lines of accuracies in per cent of the ``best`` or the ``last`` epochs' weights."""
    whole = {(row["recipe"], row["seed"]): row for row in rows if "diverged" not in row}
    names = list(dict.fromkeys(row["recipe"] for row in rows))
    lines = [
        f"| {when} epoch | n | "
        + " | ".join(ATTACKED)
        + " | PGD-20 - baseline | APGD - baseline |",
        "|---|---|" + "---|" * (len(ATTACKED) + 2),
    ]

    def text(values: list[float], sign: str = "") -> str:
        mean, half = interval([100 * v for v in values])
        return f"{mean:{sign}.1f} ± {half:.1f}"

    for name, weights in product(names, WEIGHTS):
        seeds = [seed for recipe, seed in whole if recipe == name]
        cells = [
            text([whole[name, seed][f"{weights} {when} {a}"] for seed in seeds]) for a in ATTACKED
        ]
        loss, plain = BASELINE
        for a in ATTACKED[1:]:
            pairs = [
                whole[name, s][f"{weights} {when} {a}"] - whole[loss, s][f"{plain} {when} {a}"]
                for s in seeds
                if (loss, s) in whole
            ]
            cells.append("" if (name, weights) == BASELINE else text(pairs, "+"))
        lines.append(f"| {name}, {weights} | {len(seeds)} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of a training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--data", help="a dataset's name; default fashion-mnist, or digits")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=5000, help="to train on")
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=7, help="of the attack that trains")
    parser.add_argument("--decay", type=float, default=0.99, help="of the average")
    parser.add_argument("--json", type=Path, help="where every training's numbers go")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(
        asked.data or ("fashion-mnist" if "PSINAS_DATA" in os.environ else "digits"),
        asked.epsilon,
        asked.images,
        asked.test_images,
        asked.depth,
        asked.channels,
        asked.steps,
        asked.decay,
    )
    print(
        f"{study}\n{platform.machine()}, {asked.workers} processes of 1 thread, torch "
        f"{torch.__version__}, {asked.seconds:g} s a training, {asked.seeds} seeds",
        flush=True,
    )
    names = [loss + awp for awp, loss in product(("", " + AWP"), LOSSES)]
    with multiprocessing.get_context("spawn").Pool(asked.workers) as pool:

        def work(tasks: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
            """Return a row of every training, and say of each that it is done."""
            rows = []
            waiting = [pool.apply_async(trained, (study, *task)) for task in tasks]
            for one in waiting:
                rows.append(one.get())
                print("  " + json.dumps(rows[-1]), flush=True)
            return rows

        measured = pool.starmap(epoch_seconds, [(study, name) for name in names], chunksize=1)
        seconds = dict(zip(names, measured, strict=True))
        epochs = {name: max(1, int(asked.seconds / taken)) for name, taken in seconds.items()}
        for name in names:
            print(f"{name:13} {seconds[name]:6.2f} s CPU an epoch, {epochs[name]} epochs")
        tuning = work([(n, rate, epochs[n], TUNING_SEED) for n, rate in product(LOSSES, RATES)])
        rates = best_rates(tuning)
        print(f"learning rates {rates}", flush=True)
        rows = work(
            [
                (name, rates[name.partition(" + ")[0]], epochs[name], seed)
                for seed, name in product(range(asked.seeds), names)
            ]
        )
    if asked.json is not None:
        found = {"study": asdict(study), "seconds": asked.seconds, "torch": torch.__version__}
        found |= {"epoch_seconds": seconds, "rates": rates, "tuning": tuning, "rows": rows}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    for row in (row for row in rows if "diverged" in row):
        print(f"{row['recipe']}, seed {row['seed']}: diverged, {row['diverged']}")
    for name in names:
        own = [row for row in rows if row["recipe"] == name and "diverged" not in row]
        spent = interval([row["seconds"] for row in own])[0]
        chosen = {w: [row[f"{w} best epoch"] for row in own] for w in WEIGHTS}
        print(f"{name:13} {spent:6.1f} s CPU a training; best epochs {chosen}")
    for when in ("best", "last"):
        print("\n".join(["", *table(rows, when)]))


if __name__ == "__main__":
    main()
