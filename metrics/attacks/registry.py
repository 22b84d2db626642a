"""Every attack by name: as a metric (``{name: pgd, steps: 20}``) and as a training adversary."""

from __future__ import annotations

from metrics.attacks.apgd import APGD
from metrics.attacks.apgd_t import TargetedAPGD
from metrics.attacks.base import Attack
from metrics.attacks.fab import FAB
from metrics.attacks.fgsm import FGSM
from metrics.attacks.noise import Noise
from metrics.attacks.pgd import PGD
from metrics.attacks.square import Square
from metrics.attacks.square_l2 import SquareL2
from metrics.attacks.step_ll import StepLL

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "step-ll": StepLL,
    "pgd": PGD,
    "apgd": APGD,
    "apgd-t": TargetedAPGD,
    "fab": FAB,
    "square": Square,
    "square-l2": SquareL2,
    "noise": Noise,
}
