"""Signs that a robust accuracy may be a masked gradient, not robustness.

A model whose gradients lie looks robust to every gradient attack. Each flag here is one of the
symptoms that Athalye et al. 2018 (*Obfuscated gradients give a false sense of security*) and
Carlini et al. 2019 (*On evaluating adversarial robustness*) list: a value, a threshold, and whether
the value is above it. A model without a flag may still be weak; one with a flag is not to be
believed before somebody has looked.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, misclassified
from metrics.attacks import FGSM, PGD, Attack, Noise, Square
from metrics.attacks.geometry import length_of
from metrics.engine.evaluator import Evaluator, evaluator

WEAKER = 0.002  # 0.2 points: how far a weaker attack may get below PGD
STEPS, FEW = 20, 7
LATE = 0.2  # share of what PGD-20 broke that may come after step 7
RISE = 0.02  # the last iterate's accuracy wanders by up to a point on healthy nets
SATURATED = 50.0  # lead of the label's logit: the runner-up has 2e-22 of the probability

FLAGS = {
    "one_step_beats_iterative": "accuracy under PGD-20 minus under FGSM",
    "black_box_beats_white_box": "accuracy under PGD-20 minus under the Square attack",
    "noise_beats_gradient": "accuracy under PGD-20 minus under uniform noise",
    "not_monotone_in_epsilon": "largest rise of PGD-7 accuracy from epsilon / 2 to 1 and 2 epsilon",
    "not_monotone_in_steps": "rise of the last iterate's accuracy from its lowest to step 20",
    "unbounded_not_zero": "accuracy left under PGD-20 at epsilon 1",
    "not_converged": "accuracy of PGD's last iterate after 7 steps minus after 20",
    "zero_gradient": "share of images, right when clean, whose gradient is zero everywhere",
    "nonfinite_gradient": "share of images with a logit or gradient that is not finite",
    "logits_are_probabilities": "share of images whose outputs are >= 0 and add up to 1",
    "randomized_model": "change of a logit from one pass to the next, over the largest logit",
    "saturated_logits": "share of images, right when clean, whose label leads by more than 50",
    "invariant_violation": "promises broken, of: inside the ball and the box, eval() mode during "
    "the attack, a model left as found, logits that do not depend on the batch",
}
"""What the value of each flag is. Accuracies are shares of all images."""


@dataclass(frozen=True)
class Flag:
    """One symptom: raised where ``value`` is above ``threshold``."""

    name: str
    value: float
    threshold: float

    @property
    def raised(self) -> bool:
        """Whether the value is above the threshold; NaN counts as above."""
        return not self.value <= self.threshold


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

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1]; a few hundred will do.
        labels: ``(N,)`` true labels.
        epsilon: L infinity radius at which robustness is claimed.
        attack: whose promises are checked (``invariant_violation``); None is PGD-20.
        queries: of the Square attack.
        draws: of uniform noise.
        generator: decides noise and squares.
        batch_size: images at a time; None is what suits the device.

    Raises:
        ValueError: as :func:`metrics.robustness.accuracy.robust_accuracy`.
    """
    with evaluator(model, images, labels, batch_size=batch_size) as ready:
        right = ~ready.wrong(images, labels)
        x, y, n = images[right], labels[right], len(labels)

        def accuracy(attack: Attack) -> float:
            if len(x) == 0:
                return 0.0
            return int((~ready.search(attack, x, y, generator).broken).sum()) / n

        right_at, zero, nonfinite = _follow(ready, _pgd(epsilon, STEPS), x, y)
        last = (right_at.sum(dim=1) / n).tolist()  # of the iterate after 0, 1, ... steps
        few, pgd = (int(right_at[: k + 1].all(dim=0).sum()) / n for k in (FEW, STEPS))
        half, double = (accuracy(_pgd(min(s * epsilon, 1.0), FEW)) for s in (0.5, 2.0))
        silent, probabilities, change, lead = _outputs(ready, images, labels, right)
        checked = _pgd(epsilon, STEPS) if attack is None else attack
        chance = max(WEAKER, 1.5 / n)  # one image more or less
        point = max(0.01, chance)
        broken = len(x) / n - last[STEPS]
        square, noise = (
            Square(epsilon=epsilon, queries=queries),
            Noise(epsilon=epsilon, draws=draws),
        )
        return (  # in this order: the attacks draw from one generator
            Flag("one_step_beats_iterative", pgd - accuracy(FGSM(epsilon=epsilon)), chance),
            Flag("black_box_beats_white_box", pgd - accuracy(square), chance),
            Flag("noise_beats_gradient", pgd - accuracy(noise), chance),
            Flag("not_monotone_in_epsilon", max(few - half, double - few), point),
            Flag("not_monotone_in_steps", last[STEPS] - min(last), max(RISE, chance)),
            Flag("unbounded_not_zero", accuracy(_pgd(1.0, STEPS)), point),
            Flag("not_converged", last[FEW] - last[STEPS], max(RISE, LATE * broken)),
            Flag("zero_gradient", zero / n, chance),
            Flag("nonfinite_gradient", (nonfinite + silent) / n, 0.0),
            Flag("logits_are_probabilities", probabilities, 0.5),
            Flag("randomized_model", change, 1e-3),
            Flag("saturated_logits", lead, 0.1),
            Flag(
                "invariant_violation",
                float(_violations(model, images, labels, checked, generator)),
                0.0,
            ),
        )


def _pgd(epsilon: float, steps: int) -> PGD:
    return PGD(epsilon=epsilon, steps=steps, random_start=False)


def _follow(ready: Evaluator, pgd: PGD, x: Tensor, labels: Tensor) -> tuple[Tensor, int, int]:
    """Follow ``pgd`` to its last step on images that are right.

    Returns:
        ``(steps + 1, N)`` bool, which iterates are right; how many first gradients are zero
        everywhere; how many are not finite.
    """
    looks: list[Tensor] = []
    right, zero, nonfinite = [], 0, 0
    handle = ready.quick.register_forward_hook(lambda *seen: looks.append(seen[2].detach()))
    try:
        for some, y in zip(x.split(ready.batch_size), labels.split(ready.batch_size), strict=True):
            if len(some) == 0:  # the model is never right
                return torch.zeros(pgd.steps + 1, 0, dtype=torch.bool), 0, 0
            looks.clear()
            found = pgd.search(ready.quick, some, y, None, early_exit=False)
            right.append(torch.stack([~misclassified(logits.float(), y) for logits in looks]))
            zero += int(found.zero_gradients.sum())
            nonfinite += int(found.nonfinite_gradients.sum())
    finally:
        handle.remove()
    return torch.cat(right, dim=1), zero, nonfinite


def _outputs(
    ready: Evaluator, images: Tensor, labels: Tensor, right: Tensor
) -> tuple[int, float, float, float]:
    """Return what the logits alone say.

    Returns:
        How many images have a logit that is not finite; the share whose outputs are probabilities;
        the largest change from pass to pass over the largest logit; and the share of all images
        whose label, the right answer, leads by more than ``SATURATED``.
    """
    batches = images.split(ready.batch_size)
    logits = torch.cat([logits_of(ready.model, x) for x in batches])
    again = torch.cat([logits_of(ready.model, x) for x in batches])
    silent = ~logits.isfinite().all(dim=1)
    probabilities = (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-3)
    top = logits.topk(2, dim=1).values
    saturated = right & (top[:, 0] - top[:, 1] > SATURATED)
    change = _difference(logits[~silent], again[~silent])
    n = len(labels)
    return int(silent.sum()), probabilities.sum().item() / n, change, saturated.sum().item() / n


def _violations(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    generator: torch.Generator | None,
) -> int:
    """Return how many promises an attack on a copy of the model breaks, on up to 32 images."""
    x, y = images[:32].detach().clone(), labels[:32].clone().long()
    logits_of(model, x[:1])  # without a graph, which could not be copied
    victim = copy.deepcopy(model).train()  # an attack has to see to eval() itself
    before = {name: v.clone() for name, v in victim.state_dict().items()}
    training = []
    handle = victim.register_forward_pre_hook(
        lambda module, _: training.append(any(m.training for m in module.modules()))
    )
    try:
        adversarial = attack(victim, x, y, generator=generator)
    finally:
        handle.remove()
    victim.eval()
    distance = length_of((adversarial - x).double(), attack.distance)
    whole = logits_of(victim, x)
    alone = torch.cat([logits_of(victim, x[i : i + 1]) for i in range(len(x))])
    after = victim.state_dict()
    finite = whole.isfinite().all(dim=1) & alone.isfinite().all(dim=1)
    return sum(
        (
            bool((distance > attack.epsilon + 1e-5).any()),
            not (adversarial.min() >= 0 and adversarial.max() <= 1),
            any(training),
            any(not torch.equal(v.nan_to_num(), after[k].nan_to_num()) for k, v in before.items()),
            _difference(whole[finite], alone[finite]) > 1e-3,
        )
    )


def _difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference over the largest value."""
    if a.numel() == 0:
        return 0.0
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-30)).item()
