"""Metrics: attacks, robust accuracy, the susceptibility ratio Ψ, cost."""

from metrics.accuracy import AttackResult, correct, robust_accuracy
from metrics.attacks import FGSM, PGD, Attack, StepLL
from metrics.scoring import METRICS, Metric
from metrics.susceptibility import Susceptibility, susceptibility

__all__ = [
    "FGSM",
    "METRICS",
    "PGD",
    "Attack",
    "AttackResult",
    "Metric",
    "StepLL",
    "Susceptibility",
    "correct",
    "robust_accuracy",
    "susceptibility",
]
