"""One trial's model under attack on validation images, kept beside its weights.

What was found is read again where the same weights were attacked the same way before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from launch.runs.pictured import Example, Examples, pictures
from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trial_model
from metrics import accuracy_curve
from metrics.answers import answer
from metrics.attacks import PGD
from metrics.deadline import TimeUp, within
from metrics.robustness.accuracy import wilson
from nas.data.arrays import Split, prepare
from nas.data.datasets import load_as_before
from nas.device import choose_device
from nas.files import read_kept, write_whole
from nas.seeds import derive_seed, settings_hash
from nas.trial.files import WEIGHTS, trial_directory

CURVE, EXAMPLES = "report-curve.json", "report-examples.json"
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # the epsilon of training
USUAL = {"linf": 8 / 255, "l2": 0.5}  # where a recipe names none
FIRST, MOST = 16, 512  # images of the first chunk, and of all
MUCH_MORE = 2.0  # times the seconds that a measurement had, for it to be made again
FOREVER = 1e9
FEW, LOOKED_AT = 8, 48  # images among which examples are found, first and in all
FOOLED, WITHSTOOD = 4, 2  # examples of each kind


@dataclass(frozen=True)
class Curve:
    """Robust accuracy of a trial over epsilon, on validation images.

    Attributes:
        number: of the trial.
        attack: in words.
        norm: ``linf`` or ``l2``, of epsilon in pixels of [0, 1].
        trained: the epsilon that it was trained for.
        epsilons, accuracies: ascending; the first epsilon is 0.
        images: how many.
        seconds: that it took when it was measured.
    """

    number: int
    attack: str
    norm: str
    trained: float
    epsilons: tuple[float, ...]
    accuracies: tuple[float, ...]
    images: int
    seconds: float

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """95 % Wilson intervals of the accuracies."""
        return [wilson(accuracy, self.images) for accuracy in self.accuracies]


class Asked:
    """A trial that is attacked, its model and images made when they are needed."""

    def __init__(
        self,
        run: Run,
        row: FinishedTrial,
        held: dict[str, tuple[Split, tuple[str, ...]]],
    ) -> None:
        self.run, self.row, self.held = run, row, held
        self.directory = trial_directory(run.path, row.number)
        recipe = row.trial.recipe
        epsilon = recipe.epsilon if recipe.epsilon > 0 else USUAL.get(recipe.norm, 8 / 255)
        self.attack = PGD(
            epsilon=epsilon, step_size=epsilon / 4, steps=max(recipe.steps, 10), norm=recipe.norm
        )
        self.spent = 0.0  # seconds of attacks
        self._model: nn.Module | None = None

    @property
    def words(self) -> str:
        """The attack in words."""
        norm = {"linf": "L∞", "l2": "L2"}.get(self.attack.norm, self.attack.norm)
        return f"PGD of {self.attack.steps} steps, {norm}"

    def key(self, **settings: Any) -> str:
        """Return what tells a measurement from others: the weights, the data, and the attack."""
        digest = hashlib.sha256((self.directory / WEIGHTS).read_bytes()).hexdigest()
        return settings_hash(
            {
                "weights": digest,
                "data": self.row.trial.data.hash,
                "checksums": dict(self.run.checksums.get(self.row.trial.data.name, {})),
                "attack": asdict(self.attack),
                **settings,
            }
        )

    def model(self) -> nn.Module:
        if self._model is None:
            self._model = trial_model(self.run, self.row).to(choose_device())
        return self._model

    def images(self) -> tuple[Split, tuple[str, ...]]:
        """Return the validation images, and the names of their classes."""
        config = self.row.trial.data
        if config.hash not in self.held:
            found = load_as_before(config, self.run.checksums, test=False)
            names = found.class_names
            if config.classes is not None:
                names = tuple(names[label] for label in config.classes)
            split = prepare(found, config, choose_device()).validation
            self.held[config.hash] = split, names
        return self.held[config.hash]

    def generator(self, what: str) -> torch.Generator:
        seed = derive_seed(0, what)
        return torch.Generator(device=choose_device()).manual_seed(seed)

    def curve(self, seconds: float) -> Curve | None:
        """Return robust accuracy over epsilon; None where there is no time to measure it."""
        key = self.key(times=list(TIMES))
        kept = read_kept(self.directory / CURVE, key)
        if kept is None or (kept["images"] < kept["of"] and kept["within"] * MUCH_MORE < seconds):
            found = self._measured(seconds)
            if found is not None:
                kept = {"key": key, "within": min(seconds, FOREVER), **found}
                self._keep(CURVE, kept)
        if kept is None:
            return None
        return Curve(
            self.row.number,
            self.words,
            self.attack.norm,
            self.row.trial.recipe.epsilon,
            tuple(times * self.attack.epsilon for times in TIMES),
            tuple(count / kept["images"] for count in kept["counts"]),
            kept["images"],
            kept["seconds"],
        )

    def _measured(self, seconds: float) -> dict[str, Any] | None:
        """Attack chunk after chunk, each twice as long, as far as they fit; None of not one."""
        split, _ = self.images()
        most = min(len(split), MOST)
        epsilons = [times * self.attack.epsilon for times in TIMES]
        counts, done, chunk = torch.zeros(len(epsilons), dtype=torch.long), 0, FIRST
        last = 0.0
        model, generator = self.model(), self.generator("curve")
        start = time.monotonic()  # reading and building take what they take
        while done < most:
            some = slice(done, min(done + chunk, most))
            x, y = split.images(some), split.labels[some]
            before = time.monotonic()
            left = seconds - (before - start)
            if done and last * len(y) / (chunk / 2) > left:  # it would be broken off
                break
            try:
                with within(left):
                    found = accuracy_curve(model, x, y, self.attack, epsilons, generator=generator)
            except TimeUp:
                break
            last = time.monotonic() - before
            counts += found.robust.sum(1).cpu()
            done, chunk = done + len(y), 2 * chunk
        spent = time.monotonic() - start
        self.spent += spent
        if not done:
            return None
        return {"counts": counts.tolist(), "images": done, "of": most, "seconds": spent}

    def examples(self, seconds: float) -> Examples | None:
        """Return images with their adversarial ones; None where there is no time to make them."""
        key = self.key(examples=[LOOKED_AT, FOOLED, WITHSTOOD])
        kept = read_kept(self.directory / EXAMPLES, key)
        if kept is None:
            made = self._made(seconds)
            if made is None:
                return None
            kept = {"key": key, **made}
            self._keep(EXAMPLES, kept)
        found = tuple(
            Example(**{**e, "pictures": tuple(e["pictures"]), "size": tuple(e["size"])})
            for e in kept["found"]
        )
        how = f"{self.words}, ε = {_epsilon(self.attack)}"
        counts = (kept["looked_at"], kept["right"], kept["broken"])
        return Examples(self.row.number, how, self.attack.epsilon, found, *counts)

    def _made(self, seconds: float) -> dict[str, Any] | None:
        """Attack the first images, then more of them, as far as they fit; None of not one."""
        split, names = self.images()
        model, generator = self.model(), self.generator("examples")
        start = time.monotonic()
        parts: list[Tensor] = []
        for some in (slice(0, FEW), slice(FEW, LOOKED_AT)):
            x, y = split.images(some), split.labels[some]
            if not len(y):
                break
            try:
                with within(seconds - (time.monotonic() - start)):
                    parts.append(self.attack(model, x, y, generator=generator))
            except TimeUp:
                break
        self.spent += time.monotonic() - start
        if not parts:
            return None
        worst = torch.cat(parts)
        x, y = split.images(slice(len(worst))), split.labels[: len(worst)]
        (clean, sure), (fooled, fooled_sure) = _answers(model, x), _answers(model, worst)
        right = clean == y
        broken = right & (fooled != y)
        withstood = right & (fooled == y)
        picks = broken.nonzero().flatten()[:FOOLED].tolist()
        picks += withstood.nonzero().flatten()[:WITHSTOOD].tolist()
        found = [
            Example(
                names[int(y[i])],
                names[int(clean[i])],
                names[int(fooled[i])],
                float(sure[i]),
                float(fooled_sure[i]),
                pictures(x[i], worst[i]),
                (int(x.shape[2]), int(x.shape[3])),
            )
            for i in picks
        ]
        counts = {"looked_at": len(y), "right": int(right.sum()), "broken": int(broken.sum())}
        return {"found": [asdict(example) for example in found], **counts}

    def _keep(self, name: str, kept: Mapping[str, Any]) -> None:
        text = json.dumps(kept) + "\n"
        try:
            write_whole(
                self.directory / name, lambda partial: partial.write_text(text, encoding="utf-8")
            )
        except OSError:  # somebody else's run directory: it is measured again the next time
            return


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        sure, which = answer(model, images).double().softmax(1).max(1)
    return which, sure


def _epsilon(attack: PGD) -> str:
    return f"{255 * attack.epsilon:.3g}/255" if attack.norm == "linf" else f"{attack.epsilon:.3g}"
