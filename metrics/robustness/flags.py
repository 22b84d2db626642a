"""What each suspicion flag measures, and what it means when it is raised."""

from __future__ import annotations

from dataclasses import dataclass

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
    "constant_classifier": "share of images that get the commonest answer, where it is not the one "
    "label that all have",
}
"""What the value of each flag is. Accuracies are shares of all images."""

HARMLESS = frozenset({"saturated_logits"})
"""Flags that say something of other tools: attacks here do not saturate, and can be believed."""


@dataclass(frozen=True)
class Flag:
    """One symptom: raised where ``value`` is above ``threshold``.

    ``left_out`` says why a check could not run on the model; its value is then NaN, and it is not
    raised.
    """

    name: str
    value: float
    threshold: float
    left_out: str = ""

    @property
    def raised(self) -> bool:
        """Whether the value is above the threshold; NaN counts as above, where the check ran."""
        return not self.left_out and not self.value <= self.threshold
