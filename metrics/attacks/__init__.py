"""Attacks as values: ``PGD(epsilon=8/255, step_size=2/255, steps=7)(model, x, y) -> x_adv``.

One algorithm a file, one calling convention for all (:class:`Attack`), one loop for the iterative
ones (:mod:`metrics.attacks.iterative`): FGSM is PGD with one step of size epsilon and no random
start, and step-l.l. is FGSM towards the least likely class. ``ATTACKS`` names those that a
configuration can ask for. What an attack leaves standing is measured in
:mod:`metrics.robustness.accuracy`; the smallest epsilon that breaks an image in
:mod:`metrics.robustness.smallest`.
"""

from metrics.attacks.apgd import APGD
from metrics.attacks.apgd_t import TargetedAPGD
from metrics.attacks.base import Attack, Found
from metrics.attacks.divergence_pgd import DivergencePGD
from metrics.attacks.fab import FAB
from metrics.attacks.fgsm import FGSM
from metrics.attacks.noise import Noise
from metrics.attacks.pgd import PGD
from metrics.attacks.registry import ATTACKS
from metrics.attacks.square import Square
from metrics.attacks.square_l2 import SquareL2
from metrics.attacks.step_ll import StepLL
from metrics.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "FGSM",
    "PGD",
    "Attack",
    "DivergencePGD",
    "Found",
    "Noise",
    "Square",
    "SquareL2",
    "StepLL",
    "TargetedAPGD",
    "Transfer",
]
