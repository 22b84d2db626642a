"""PED-ANOVA of categorical decisions: what tells the best trials from the others.

Watanabe et al. 2023 (IJCAI, arXiv 2304.10255), with regimes for decisions that some trials do not
have (arXiv 2601.20800), as in ``optuna.importance.PedAnovaImportanceEvaluator``; a test holds both
to the same numbers. Optuna's walks over trials in Python; of choices all that counts is how often
each was taken, so here an importance is a formula on counts, and 200 resamples of 10,000 trials
take a second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nas.types import FloatArray

TINY = 1e-12  # added to densities, as Optuna does
FEWEST = 2  # trials of a regime, as Optuna has it
PRIOR = 1.0  # weight of the uniform prior, in trials

Codes = NDArray[np.int_]


def ped_anova(codes: Codes, sizes: Codes, losses: FloatArray, quantile: float = 0.1) -> FloatArray:
    """Return ``(d,)`` importances that sum to 1; all NaN where nothing tells the best apart.

    Args:
        codes: ``(n, d)``: the number of each trial's choice, -1 where it lacks the decision.
        sizes: ``(d,)``: how many choices there are.
        losses: ``(n,)``, smaller is better, finite.
        quantile: which share of the trials are the best; ties of the last of them count too.
    """
    best = top(losses, quantile)
    raw = np.array([_raw(code, int(size), best) for code, size in zip(codes.T, sizes, strict=True)])
    total = raw.sum()
    return raw / total if total > 0 else np.full(len(raw), np.nan)


def top(losses: FloatArray, quantile: float) -> NDArray[np.bool_]:
    """Return ``(n,)``: which trials are the best share, with ties of the last of them."""
    last = math.ceil(quantile * len(losses)) - 1
    found: NDArray[np.bool_] = losses <= np.partition(losses, last)[last]
    return found


def _raw(code: Codes, size: int, best: NDArray[np.bool_]) -> float:
    """Return the Pearson divergence of the best from all, weighted by its regime.

    The factor that all decisions share is left out.
    """
    here = code >= 0
    chosen = here & best
    if size < 2 or here.sum() < FEWEST or not chosen.any():
        return 0.0
    density = parzen(np.bincount(code[here], minlength=size)) + TINY
    density_best = parzen(np.bincount(code[chosen], minlength=size)) + TINY
    share, share_best = here.mean(), chosen.sum() / best.sum()
    divergence = density @ np.square(density_best / density - 1)
    return float(share_best**2 / share * divergence)


def parzen(counts: Codes) -> FloatArray:
    """Return ``(choices,)``: the density of a Parzen estimator over choices that sums to 1.

    One kernel for each choice that was taken, weighted by how often, and the prior's.
    """
    choices, trials = len(counts), counts.sum()
    smooth = PRIOR / (np.count_nonzero(counts) + 1)
    kernels = (counts + trials * smooth) / (1 + choices * smooth)
    found: FloatArray = (kernels + PRIOR / choices) / (trials + PRIOR)
    return found
