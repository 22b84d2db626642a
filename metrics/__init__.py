"""Metrics: attacks, robust accuracy, suspicion, the susceptibility ratio Ψ, cost."""

from metrics.accuracy import (
    AttackResult,
    Cascade,
    Curve,
    accuracy_curve,
    cascade,
    correct,
    robust_accuracy,
)
from metrics.attacks import APGD, FGSM, PGD, Attack, Noise, Square, StepLL, Transfer
from metrics.scoring import METRICS, Metric
from metrics.smallest import Smallest, gradient_line, minimal_fgsm
from metrics.susceptibility import Susceptibility, susceptibility
from metrics.suspicion import Flag, suspicion

__all__ = [
    "APGD",
    "FGSM",
    "METRICS",
    "PGD",
    "Attack",
    "AttackResult",
    "Cascade",
    "Curve",
    "Flag",
    "Metric",
    "Noise",
    "Smallest",
    "Square",
    "StepLL",
    "Susceptibility",
    "Transfer",
    "accuracy_curve",
    "cascade",
    "correct",
    "gradient_line",
    "minimal_fgsm",
    "robust_accuracy",
    "susceptibility",
    "suspicion",
]
