"""Universality: what the adversarial errors of all models have in common, and what explains it.

Power laws of the error and of logit differences, the law of random logits, and the linear response
of logits to an attack. Cubuk, Zoph, Schoenholz and Le 2017, *Intriguing Properties of Adversarial
Examples* (arXiv 1711.02846).
"""

from metrics.universality.differences import logit_differences
from metrics.universality.error_curve import EPSILONS, ErrorCurve, error_curve
from metrics.universality.linear_response import LinearResponse, linear_response
from metrics.universality.measured import Agreement, compare
from metrics.universality.power_law import PowerLaw, fit_counts, fit_sample
from metrics.universality.random_logits import LAWS, RandomLogits

__all__ = [
    "EPSILONS",
    "LAWS",
    "Agreement",
    "ErrorCurve",
    "LinearResponse",
    "PowerLaw",
    "RandomLogits",
    "compare",
    "error_curve",
    "fit_counts",
    "fit_sample",
    "linear_response",
    "logit_differences",
]
