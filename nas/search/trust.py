"""Which trials are to be believed: a raised suspicion flag says that an accuracy may be false."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RAISED = "_raised"
BEGIN = "suspicion_"
POINT = "_at_"  # of a curve over epsilons: error_at_0.01

ADVICE = {
    "one_step_beats_iterative": "one large step breaks images that 20 small ones do not, so PGD "
    "loses its way: believe the lower accuracy; try other step sizes, restarts and apgd",
    "black_box_beats_white_box": "an attack without gradients breaks images that PGD does not, so "
    "gradients mislead: believe the lower accuracy; give square more queries",
    "noise_beats_gradient": "random noise breaks images that PGD does not, so gradients mislead: "
    "believe the lower accuracy; attack with square",
    "not_monotone_in_epsilon": "PGD breaks fewer images in a larger ball, so it fails to find what "
    "is there: give it more steps and restarts, or use apgd",
    "not_monotone_in_steps": "more steps of PGD leave more images right, so it overshoots: try "
    "smaller steps, or use apgd",
    "unbounded_not_zero": "images stay right although every pixel may become anything, so the "
    "attack fails, not the model: trust no accuracy under it; look for what hides gradients",
    "not_converged": "PGD still breaks images late, so more steps would break more: use 100 steps "
    "or apgd before quoting an accuracy",
    "zero_gradient": "the loss of some images has no gradient, and no gradient attack can move "
    "them: attack with square, or through a smooth stand-in for what cuts the gradient",
    "nonfinite_gradient": "some logits or gradients are NaN or infinite, and no gradient attack "
    "can use them: look for overflow, log or division by zero in the model",
    "logits_are_probabilities": "the model ends in a softmax, whose gradients vanish where it is "
    "sure: score it without its last softmax",
    "randomized_model": "the same images get different logits each time, so one pass proves "
    "nothing: switch the randomness off, or average gradients over many passes",
    "saturated_logits": "the right class leads by so much that the cross entropy is flat in "
    "float32: other tools report too much here, psinas does not, which climbs the margin",
    "invariant_violation": "the attack or the model broke a promise that scores rest on (ball, "
    "box, eval() mode, state, batch): find which before believing any score",
    "constant_classifier": "every image gets the same answer: it is a constant, not robust",
}
"""What each flag of ``metrics.robustness.flags`` means where it is raised, and what to do.

Here, since no table should wait for torch, which ``metrics`` loads.
"""

HARMLESS = frozenset({"saturated_logits"})
"""Flags that say something of other tools, as in ``metrics.robustness.flags``."""


def suspicions(scores: Mapping[str, Any]) -> list[str]:
    """Return the names of the flags that a trial's scores raise, none without the metric.

    A flag whose check could not run is NaN, and not raised. One that is harmless raises no doubt.
    """
    return [
        name.partition(BEGIN)[2].removesuffix(RAISED)
        for name, value in scores.items()
        if BEGIN in name and name.endswith(RAISED) and value == 1.0 and not _harmless(name)
    ]


def _harmless(name: str) -> bool:
    return name.partition(BEGIN)[2].removesuffix(RAISED) in HARMLESS


def advice(flags: Iterable[str]) -> list[str]:
    """Return one line for each different flag: what it means where it is raised, and what to do."""
    return [f"{flag}: {ADVICE[flag]}" for flag in dict.fromkeys(flags) if flag in ADVICE]


def plain_names(names: Iterable[str]) -> list[str]:
    """Return the names of scores that a person should read: neither flags nor a curve's points."""
    return [name for name in names if BEGIN not in name and POINT not in name]


def was_checked(scores: Mapping[str, Any]) -> bool:
    """Whether the scores hold any suspicion flag, raised or not."""
    return any(BEGIN in name and name.endswith(RAISED) for name in scores)


def trusted_first(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results without a raised flag, or all where every one has one."""
    return [r for r in results if not suspicions(r["scores"])] or list(results)
