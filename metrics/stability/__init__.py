"""Stability: what random noise does to a model, beside what the attack of the same size does.

Sutton, Zhou, Tyukin, Gorban, Bastounis and Higham 2023, *How adversarial attacks can disrupt
seemingly stable accurate classifiers* (arXiv 2309.03665).
"""

from metrics.stability.draws import REGIONS, UnitDraws
from metrics.stability.measure import Share, Stability, measure

__all__ = ["REGIONS", "Share", "Stability", "UnitDraws", "measure"]
