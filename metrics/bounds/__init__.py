"""Lower bounds on the smallest perturbation that breaks an image, and the bracket with attacks.

Sources: Peck, Roels, Goossens, Saeys 2017 (NIPS), *Lower bounds on the robustness to adversarial
perturbations*, layer by layer; Zhang et al. 2018 (CROWN, arXiv 1811.00866), by linear relaxation.
"""

from metrics.bounds.both_ends import Bracket, Contradiction, bracket
from metrics.bounds.chain import LayerBound
from metrics.bounds.gains.form import Form
from metrics.bounds.linear import l2_from_linf, linf_from_l2
from metrics.bounds.lower import LowerBounds, lower_bounds

__all__ = [
    "Bracket",
    "Contradiction",
    "Form",
    "LayerBound",
    "LowerBounds",
    "bracket",
    "l2_from_linf",
    "linf_from_l2",
    "lower_bounds",
]
