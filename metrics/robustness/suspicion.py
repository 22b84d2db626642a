"""Signs that a robust accuracy may be a masked gradient, not robustness.

A model whose gradients lie looks robust to every gradient attack. Each flag here is one of the
symptoms that Athalye et al. 2018 (*Obfuscated gradients give a false sense of security*) and
Carlini et al. 2019 (*On evaluating adversarial robustness*) list: a value, a threshold, and whether
the value is above it. A model without a flag may still be weak; one with a flag is not to be
believed before somebody has looked. A check that cannot run on a model is left out, and named.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, misclassified, silent
from metrics.attacks import FGSM, PGD, Attack, Noise, Square
from metrics.attacks.geometry import Randomness, length_of, own_generator
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import out_of_memory
from metrics.left_as_found import Snapshot
from metrics.precision import rounding
from metrics.robustness.flags import FLAGS, Flag

WEAKER = 0.002  # 0.2 points: how far a weaker attack may get below PGD
STEPS, FEW = 20, 7
LATE = 0.2  # share of what PGD-20 broke that may come after step 7
RISE = 0.02  # the last iterate's accuracy wanders by up to a point on healthy nets
SATURATED = 50.0  # lead of the label's logit: the runner-up has 2e-22 of the probability
SAME = 1e-3  # change of a logit that is none; ROUNDINGS of the model's own precision are none too
ROUNDINGS = 8
CONSTANT = "every image gets the same answer"


def suspicion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    attack: Attack | None = None,
    queries: int = 100,
    draws: int = 10,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> tuple[Flag, ...]:
    """Return every flag of ``FLAGS``, in its order.

    Of a model that gives every image the same answer only that is said: attacks that change nothing
    are no sign of a masked gradient then.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1]; a few hundred will do.
        labels: ``(N,)`` true labels.
        epsilon: L infinity radius at which robustness is claimed.
        attack: whose promises are checked (``invariant_violation``); None is PGD-20.
        queries: of the Square attack.
        draws: of uniform noise.
        generator: decides noise and squares.
        batch_size: images at a time; None is what suits the model and the device.

    Raises:
        ValueError: as :func:`metrics.robustness.accuracy.robust_accuracy`.
    """
    square, noise = Square(epsilon=epsilon, queries=queries), Noise(epsilon=epsilon, draws=draws)
    checked = _pgd(epsilon, STEPS) if attack is None else attack
    with evaluator(
        model, images, labels, batch_size=batch_size, attacks=[square, noise, checked]
    ) as ready:
        generator = own_generator(generator, ready.images.device)
        rows = (~ready.clean_wrong()).nonzero().squeeze(1)
        seen = _Outputs(ready, rows)
        n = len(ready.labels)
        chance = max(WEAKER, 1.5 / n)  # one image more or less
        point = max(0.01, chance)
        path: list[_Path] = []

        def accuracy(attack: Attack) -> float:
            if len(rows) == 0:
                return 0.0
            return int((~ready.search(attack, rows, generator).broken).sum()) / n

        def followed() -> _Path:
            if not path:
                path.append(_follow(ready, _pgd(epsilon, STEPS), rows, generator))
            return path[0]

        def rise() -> float:
            few = followed().accuracy(FEW)
            half, double = (accuracy(_pgd(min(s * epsilon, 1.0), FEW)) for s in (0.5, 2.0))
            return max(few - half, double - few)

        def beaten(attack: Attack) -> float:
            return followed().accuracy(STEPS) - accuracy(attack)

        def fall() -> float:
            return followed().last[STEPS] - min(followed().last)

        def late() -> float:
            return followed().last[FEW] - followed().last[STEPS]

        broken = len(rows) / n - (0.0 if seen.constant else followed().last[STEPS])
        gradients: list[tuple[str, Callable[[], float], float]] = [
            ("not_monotone_in_epsilon", rise, point),
            ("one_step_beats_iterative", lambda: beaten(FGSM(epsilon=epsilon)), chance),
            ("black_box_beats_white_box", lambda: beaten(square), chance),
            ("noise_beats_gradient", lambda: beaten(noise), chance),
            ("not_monotone_in_steps", fall, max(RISE, chance)),
            ("unbounded_not_zero", lambda: accuracy(_pgd(1.0, STEPS)), point),
            ("not_converged", late, max(RISE, LATE * broken)),
            ("zero_gradient", lambda: followed().zero / n, chance),
        ]
        others: list[tuple[str, Callable[[], float], float]] = [
            ("nonfinite_gradient", lambda: (seen.silent + _nonfinite(path)) / n, 0.0),
            ("logits_are_probabilities", lambda: seen.probabilities, 0.5),
            ("randomized_model", lambda: seen.change, SAME),
            ("saturated_logits", lambda: seen.saturated, 0.1),
            (
                "invariant_violation",
                lambda: float(_violations(ready, model, checked, generator)),
                0.0,
            ),
            ("constant_classifier", lambda: seen.commonest, 1 - 0.5 / n),
        ]
        found = {
            name: Flag(name, math.nan, threshold, CONSTANT)
            if seen.constant
            else _flag(name, value, threshold)
            for name, value, threshold in gradients
        }
        found |= {name: _flag(name, value, threshold) for name, value, threshold in others}
    return tuple(found[name] for name in FLAGS)


def _flag(name: str, value: Callable[[], float], threshold: float) -> Flag:
    try:
        return Flag(name, value(), threshold)
    except Exception as error:
        if out_of_memory(error):
            raise
        return Flag(name, math.nan, threshold, f"{type(error).__name__}: {first(error)}")


def first(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).partition("\n")[0]


def _pgd(epsilon: float, steps: int) -> PGD:
    return PGD(epsilon=epsilon, steps=steps, random_start=False)


@dataclass(frozen=True)
class _Path:
    """What became of the images that are right, step by step.

    Attributes:
        right: ``(steps + 1, n)`` bool, which iterates are right.
        total: how many images there are, those that are wrong from the beginning included.
        zero, nonfinite: how many first gradients are zero everywhere, and not finite.
    """

    right: Tensor
    total: int
    zero: int
    nonfinite: int

    @property
    def last(self) -> list[float]:
        """The accuracy of the iterate after 0, 1, ... steps."""
        found: list[float] = (self.right.sum(dim=1) / self.total).tolist()
        return found

    def accuracy(self, steps: int) -> float:
        """Return the share that is right at every iterate up to this one."""
        return int(self.right[: steps + 1].all(dim=0).sum()) / self.total


def _nonfinite(path: list[_Path]) -> int:
    return path[0].nonfinite if path else 0


def _follow(ready: Evaluator, pgd: PGD, rows: Tensor, generator: torch.Generator) -> _Path:
    """Follow ``pgd`` to its last step on the images ``rows``, which are right."""
    looks: list[Tensor] = []
    none = torch.zeros(pgd.steps + 1, 0, dtype=torch.bool, device="cpu")
    right, zero, nonfinite = [none], 0, 0
    handle = ready.quick.register_forward_hook(lambda *seen: looks.append(seen[2].detach()))
    try:
        for some in rows.split(ready.batch_size) if len(rows) else ():
            looks.clear()
            x, y = ready.images[some], ready.labels[some]
            found = pgd.search(ready.quick, x, y, Randomness(x, generator), early_exit=False)
            right.append(torch.stack([~misclassified(logits, y) for logits in looks]).cpu())
            zero += int(found.zero_gradients.sum())
            nonfinite += int(found.nonfinite_gradients.sum())
    finally:
        handle.remove()
    return _Path(torch.cat(right, dim=1), len(ready.labels), zero, nonfinite)


class _Outputs:
    """What the clean logits alone say.

    Attributes:
        silent: how many images have a logit that is not finite.
        probabilities: share whose outputs are >= 0 and add up to 1.
        change: largest change from pass to pass over the largest logit.
        saturated: share of all images whose label, the right answer, leads by more than 50.
        commonest: share that get the commonest answer; 0 where all have one label, and differ.
        constant: whether all get the same answer, and should not.
    """

    def __init__(self, ready: Evaluator, rows: Tensor) -> None:
        batches = ready.images.split(ready.batch_size)
        logits = torch.cat([logits_of(ready.model, x) for x in batches])
        again = torch.cat([logits_of(ready.model, x) for x in batches])
        n = len(logits)
        mute = silent(logits)
        probabilities = (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < SAME)
        top = logits[rows].topk(2, dim=1).values
        self.silent = int(mute.sum())
        self.probabilities = int(probabilities.sum()) / n
        self.change = _difference(logits[~mute], again[~mute])
        self.saturated = int((top[:, 0] - top[:, 1] > SATURATED).sum()) / n
        answers = logits.argmax(dim=1)
        labels = ready.labels
        share = int(answers.bincount().max()) / n
        one = bool((labels == labels[0]).all())
        equal = _difference(logits, logits[:1].expand_as(logits)) <= 100 * rounding(
            ready.model, logits
        )
        self.commonest = share if n > 1 and (equal or not one) else 0.0
        self.constant = self.commonest == 1


def _violations(
    ready: Evaluator, model: nn.Module, attack: Attack, generator: torch.Generator
) -> int:
    """Return how many promises an attack on a copy of the model breaks, on up to 32 images."""
    x, y = ready.images[:32].detach().clone(), ready.labels[:32].clone()
    logits_of(model, x[:1])  # without a graph, which could not be copied
    victim = copy.deepcopy(model).train()  # an attack has to see to eval() itself
    before = Snapshot(victim)
    training = []
    handle = victim.register_forward_pre_hook(
        lambda module, _: training.append(any(m.training for m in module.modules()))
    )
    try:
        adversarial = attack(victim, x, y, generator=generator)
    finally:
        handle.remove()
    changed = before.changed()
    victim.eval()
    distance = length_of(adversarial.double() - x.double(), attack.distance)
    whole = logits_of(victim, x)
    alone = torch.cat([logits_of(victim, x[i : i + 1]) for i in range(len(x))])
    finite = whole.isfinite().all(dim=1) & alone.isfinite().all(dim=1)
    same = max(SAME, ROUNDINGS * rounding(victim, whole))
    return sum(
        (
            bool((distance > attack.epsilon + 1e-5).any()),
            not (adversarial.min() >= 0 and adversarial.max() <= 1),
            any(training),
            changed,
            _difference(whole[finite], alone[finite]) > same,
        )
    )


def _difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference over the largest value; a class that cannot be is none."""
    if a.numel() == 0:
        return 0.0
    apart = torch.where(a == b, 0, a - b)  # minus infinity twice is no difference
    return (apart.abs().max() / a.nan_to_num(0, 0, 0).abs().max().clamp_min(1e-30)).item()
