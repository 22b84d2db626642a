"""Every metric by name. Open this to add one: a file with its class, and a line here.

An attack of ``ATTACKS`` is a metric of its own name, with every setting that the attack has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from metrics.attacks import ATTACKS
from metrics.bounds.scores import BracketEnds
from metrics.cost import Cost
from metrics.metric import Metric
from metrics.robustness.autoattack import AutoAttack
from metrics.robustness.scores import (
    AttackAccuracy,
    CascadeAccuracy,
    CleanAccuracy,
    MinimalFGSM,
    Suspicion,
)
from metrics.stability.scores import StabilityShares
from metrics.susceptibility.scores import DriftRate, PsiEpoch1, PsiInit, PsiLimit, PsiRatio
from metrics.universality.scores import ErrorLaw, LinearResponseAgreement, LogitDifferences

METRICS: dict[str, Callable[..., Metric]] = {
    "clean": CleanAccuracy,
    **{name: partial(AttackAccuracy.of, attack) for name, attack in ATTACKS.items()},
    "cascade": CascadeAccuracy,
    "autoattack": AutoAttack,
    "min-fgsm": MinimalFGSM,
    "suspicion": Suspicion,
    "stability": StabilityShares,
    "bracket": BracketEnds,
    "error-law": ErrorLaw,
    "logit-differences": LogitDifferences,
    "linear-response": LinearResponseAgreement,
    "psi": PsiRatio,
    "psi-init": PsiInit,
    "psi-epoch1": PsiEpoch1,
    "psi-limit": PsiLimit,
    "drift": DriftRate,
    "cost": Cost,
}
"""Called with the metric's settings as keyword arguments, all of which have defaults."""
