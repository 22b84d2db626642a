"""The trained nets of a run, each measured once: what was measured is kept beside its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trained_trials, trial_model
from launch.show.reporter import Reporter
from metrics.attacks import FGSM, PGD, Attack, StepLL
from metrics.robustness.scores import name_of, settings_of
from metrics.universality import PowerLaw, error_curve, fit_counts
from nas.data.arrays import Split, prepare, prepare_test
from nas.data.datasets import load_images, load_test_images
from nas.device import choose_device, threads
from nas.files import read_kept, write_whole
from nas.seeds import settings_hash
from nas.trial.files import trial_directory
from nas.trial.recipe import Recipe

SEED = 2017  # of random starts
ATTACKS: dict[str, Attack] = {
    "L2-FGSM": FGSM(norm="l2", epsilon=1.0),
    "FGSM": FGSM(),
    "PGD-20": PGD(steps=20),
    "step l.l.": StepLL(),
}
"""Of Figures 2 and 11, by the names of the paper."""


@dataclass(frozen=True)
class Net:
    """A trained net of a search.

    Attributes:
        run, row: whose it is.
        name: what it is, in a word or two.
        training: how it was trained, likewise.
    """

    run: Run
    row: FinishedTrial
    name: str
    training: str

    @property
    def title(self) -> str:
        """Name and training."""
        return f"{self.name}, {self.training}"

    def model(self) -> nn.Module:
        """Return the net in ``eval()`` on the device that there is."""
        return trial_model(self.run, self.row).to(choose_device())

    def images(self, part: str) -> Split:
        """Return the images of a part, ``train`` (with the labels trained on) or ``test``."""
        data, device = self.row.trial.data, choose_device()
        if part == "test":
            return prepare_test(load_test_images(data), data, device)
        return prepare(load_images(data), data, device).train

    def kept(self, what: str, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives as JSON types, read where it was measured before."""
        data = self.row.trial.data
        key = settings_hash({"trial": self.row.trial.key, "test": data.limit.test, **settings})
        path = trial_directory(self.run.path, self.row.number) / f"{what}-{key[:8]}.json"
        found = read_kept(path, key)
        if found is None:
            with threads(self.run.config.resources.cpu):
                found = {"key": key, "found": make()}
            text = json.dumps(found) + "\n"
            write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        return found["found"]


def nets(run: Run) -> list[Net]:
    """Return the nets of every complete trial.

    Raises:
        InputError: no complete trial, or one whose weights are gone.
    """
    return [Net(run, row, _name(row), trained(row)) for row in trained_trials(run)]


def _name(row: FinishedTrial) -> str:
    architecture = row.trial.architecture
    choices = dict(architecture.choices)
    if architecture.space != "feedforward":
        if list(choices) == ["model"]:  # published nets
            return str(choices["model"])
        return f"{architecture.space} " + " ".join(f"{k} {v}" for k, v in choices.items())
    kind = choices["kind"]
    count, width = ("hidden_layers", "units") if kind == "dense" else ("conv_layers", "channels")
    layers = int(choices[count])
    widths = "-".join(str(choices[f"{width}{i}"]) for i in range(1, layers + 1))
    return f"{kind} {widths}" if layers else "linear"


def trained(row: FinishedTrial) -> str:
    """Return how a net was trained: ``plain``, ``λ = 4.5``, ``step-ll, λ = 4.5``, ..."""
    recipe: Recipe = row.trial.recipe
    parts = [] if recipe.adversary == "none" else [recipe.adversary]
    parts += [f"λ = {recipe.entropy_weight:g}"] if recipe.entropy_weight else []
    parts += ["shuffled labels"] if row.trial.data.shuffled_labels else []
    if not recipe.epochs:
        return "as it is"
    return ", ".join(parts) or "plain"


@dataclass(frozen=True)
class Measured:
    """The adversarial error of a net under one attack.

    Attributes:
        net: which.
        attack: its name in the paper.
        part: of the images, ``train`` or ``test``.
        clean: accuracy without an attack.
        epsilons, accuracies: of the curve.
        counts: images that each epsilon is the first to break.
        total: images.
        law: their power law.
    """

    net: Net
    attack: str
    part: str
    clean: float
    epsilons: tuple[float, ...]
    accuracies: tuple[float, ...]
    counts: tuple[int, ...]
    total: int
    law: PowerLaw

    @property
    def errors(self) -> tuple[float, ...]:
        """Clean accuracy minus the accuracy at each epsilon."""
        return tuple(self.clean - accuracy for accuracy in self.accuracies)


def measured(
    found: Sequence[Net],
    report: Reporter,
    attacks: Mapping[str, Attack] = ATTACKS,
    *,
    part: str = "test",
    limit: int | None = None,
    epsilons: Sequence[float] | None = None,
) -> list[Measured]:
    """Return the error of every net under every attack.

    Args:
        found: the nets.
        report: is told of each one.
        attacks: by the names of the paper.
        part: of which images, ``train`` or ``test``.
        limit: at most so many of them.
        epsilons: as in :func:`metrics.universality.error_curve`.
    """
    curves = []
    for place, net in enumerate(found, start=1):
        for name, attack in attacks.items():
            settings = {"attack": [name_of(attack), settings_of(attack)], "part": part,
                        "limit": limit, "epsilons": epsilons and list(epsilons)}  # fmt: skip
            kept = net.kept("error", settings, _Curve(net, attack, part, limit, epsilons))
            curves.append(_read(net, name, part, kept))
        line = "; ".join(f"{c.attack}: B {exponent(c.law)}" for c in curves[-len(attacks) :])
        clean = f"right {100 * curves[-1].clean:.2f} % of {curves[-1].total} {part} images"
        report.say(f"[{place}/{len(found)}] {net.title}: {clean}; {line}")
    return curves


@dataclass(frozen=True)
class _Curve:
    net: Net
    attack: Attack
    part: str
    limit: int | None
    epsilons: Sequence[float] | None

    def __call__(self) -> dict[str, Any]:
        x, y = first(self.net.images(self.part), self.limit)
        generator = torch.Generator(y.device).manual_seed(SEED)
        model = self.net.model()
        found = error_curve(model, x, y, self.attack, self.epsilons, generator=generator)
        counts = torch.bincount(found.first.clamp_min(-1) + 1, minlength=len(found.epsilons) + 2)
        return {
            "clean": found.clean,
            "epsilons": list(found.epsilons),
            "accuracies": list(found.accuracies),
            "counts": counts[1:-1].tolist(),
            "total": len(y),
        }


def first(split: Split, limit: int | None) -> tuple[Tensor, Tensor]:
    """Return at most so many images ``(N, C, H, W)`` and labels of a part."""
    return split.images(slice(limit)), split.labels[:limit]


def _read(net: Net, attack: str, part: str, kept: Mapping[str, Any]) -> Measured:
    epsilons, counts, total = kept["epsilons"], kept["counts"], kept["total"]
    law = fit_counts(epsilons, counts, total, plateau=kept["clean"] or 1.0)
    return Measured(
        net,
        attack,
        part,
        kept["clean"],
        tuple(epsilons),
        tuple(kept["accuracies"]),
        tuple(counts),
        total,
        law,
    )


def exponent(law: PowerLaw) -> str:
    """Return an exponent and its interval as text."""
    if law.events == 0:
        return "n/a"
    low, high = law.interval
    return f"{law.exponent:.2f} [{low:.2f}, {high:.2f}]"
