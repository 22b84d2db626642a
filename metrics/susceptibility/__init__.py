"""The susceptibility ratio Ψ, its limit, the drift of hidden states, and the estimated radius.

After "Preliminary Analysis of Adversarial Susceptibility in Neural Networks via Analogy to
Chaos-Theoretic Sensitive Dependence" (the Ψ paper).
"""

from metrics.susceptibility.ascent import START, STEPS, Ascent
from metrics.susceptibility.drift import Drift, drift, lyapunov_exponent
from metrics.susceptibility.exploration import sphere_attack
from metrics.susceptibility.limit import susceptibility_limit
from metrics.susceptibility.normalisation import BATCH_NORM
from metrics.susceptibility.radii import LAWS, log_radii
from metrics.susceptibility.radius import RobustnessRadius, estimated_radius, robustness_radius
from metrics.susceptibility.ratio import Susceptibility, susceptibility
from metrics.susceptibility.sphere import on_sphere, rms

__all__ = [
    "BATCH_NORM",
    "LAWS",
    "START",
    "STEPS",
    "Ascent",
    "Drift",
    "RobustnessRadius",
    "Susceptibility",
    "drift",
    "estimated_radius",
    "log_radii",
    "lyapunov_exponent",
    "on_sphere",
    "rms",
    "robustness_radius",
    "sphere_attack",
    "susceptibility",
    "susceptibility_limit",
]
