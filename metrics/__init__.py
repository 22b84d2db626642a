"""Metrics: attacks, robust accuracy, suspicion, Ψ (susceptibility), stability, bounds,
universality, cost."""

from metrics import bounds, stability, universality
from metrics.attacks import (
    APGD,
    ATTACKS,
    FAB,
    FGSM,
    PGD,
    Attack,
    Noise,
    Square,
    SquareL2,
    StepLL,
    TargetedAPGD,
    Transfer,
)
from metrics.metric import Metric
from metrics.registry import METRICS
from metrics.robustness.accuracy import AttackResult, correct, robust_accuracy
from metrics.robustness.autoattack import AutoAttack, standard_attacks
from metrics.robustness.cascade import Cascade, cascade
from metrics.robustness.curves import Curve, accuracy_curve
from metrics.robustness.flags import Flag
from metrics.robustness.minimal.perturbation import Perturbations, smallest_perturbation
from metrics.robustness.pointwise import pointwise_curve
from metrics.robustness.smallest import Smallest, gradient_line, minimal_fgsm
from metrics.robustness.suspicion import suspicion
from metrics.susceptibility import Susceptibility, susceptibility

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "FGSM",
    "METRICS",
    "PGD",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "Cascade",
    "Curve",
    "Flag",
    "Metric",
    "Noise",
    "Perturbations",
    "Smallest",
    "Square",
    "SquareL2",
    "StepLL",
    "Susceptibility",
    "TargetedAPGD",
    "Transfer",
    "accuracy_curve",
    "bounds",
    "cascade",
    "correct",
    "gradient_line",
    "minimal_fgsm",
    "pointwise_curve",
    "robust_accuracy",
    "smallest_perturbation",
    "stability",
    "standard_attacks",
    "susceptibility",
    "suspicion",
    "universality",
]
