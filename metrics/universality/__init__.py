"""Universality: the law of logit differences, and the linear response of logits to an attack.

Cubuk, Zoph, Schoenholz and Le 2017, *Intriguing Properties of Adversarial Examples*
(arXiv 1711.02846).
"""

from metrics.universality.differences import logit_differences
from metrics.universality.linear_response import LinearResponse, linear_response
from metrics.universality.measured import Agreement, compare
from metrics.universality.random_logits import LAWS, RandomLogits

__all__ = [
    "LAWS",
    "Agreement",
    "LinearResponse",
    "RandomLogits",
    "compare",
    "linear_response",
    "logit_differences",
]
