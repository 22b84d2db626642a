"""fANOVA: which decisions explain the variance of a score.

Hutter et al. 2014 (ICML): a random forest is fitted to the trials, and the variance of each tree
over all combinations of choices is split among the decisions. The forest is the one of
``optuna.importance.FanovaImportanceEvaluator`` and gives its numbers, as a test says: a choice is a
column of 0 and 1, and a tree's columns are taken for independent coin tosses. Optuna's asks each
tree once for each combination of a decision's columns, in Python, where 300 trials take seconds;
here the patterns that the leaves have in a decision's columns are held against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.analysis.ped_anova import Codes
from nas.types import FloatArray

TREES = 64
DEPTH = 64


def fanova(
    codes: Codes, sizes: Codes, losses: FloatArray, *, seed: int, trees: int = TREES
) -> FloatArray:
    """Return ``(d,)`` importances that sum to 1; all NaN where no tree has any variance.

    Args:
        codes: ``(n, d)``: the number of each trial's choice, none missing.
        sizes: ``(d,)``: how many choices there are; a decision with one has 0.
        losses: ``(n,)``.
        seed: of the forest.
        trees: of the forest.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a second

    asked = np.flatnonzero(sizes > 1)
    missing = np.full(len(sizes), np.nan)
    if not len(asked):
        return missing
    ends = np.cumsum(sizes[asked])
    columns = [slice(int(e - s), int(e)) for e, s in zip(ends, sizes[asked], strict=True)]
    encoded = np.concatenate([np.eye(sizes[i])[codes[:, i]] for i in asked], axis=1)
    forest = RandomForestRegressor(n_estimators=trees, max_depth=DEPTH, random_state=seed)
    forest.fit(encoded, losses)
    shares = [_shares(tree.tree_, columns) for tree in forest.estimators_]
    known = [share for share in shares if share is not None]
    if not known or (total := np.mean(known, axis=0).sum()) <= 0:
        return missing
    found = np.zeros(len(sizes))
    found[asked] = np.mean(known, axis=0) / total
    return found


def _shares(tree: Any, columns: Sequence[slice]) -> FloatArray | None:
    """Return the share of a tree's variance that each decision has alone; None without any."""
    sides, values = _leaves(tree, columns[-1].stop)
    fixed = np.abs(sides)
    weights = 0.5 ** fixed.sum(axis=1)
    mean = weights @ values
    variance = weights @ np.square(values - mean)
    if variance <= 0:
        return None
    powers = 3.0 ** np.arange(columns[-1].stop)  # tell patterns apart: exact up to 33 choices
    found = []
    for column in columns:
        own = sides[:, column]
        _, first, which = np.unique(
            own @ powers[: own.shape[1]], return_index=True, return_inverse=True
        )
        patterns = own[first]
        # what the leaves of a pattern add to the mean where the decision's columns have it
        rest = (values - mean) * weights * 2.0 ** fixed[:, column].sum(axis=1)
        added = np.bincount(which.reshape(-1), weights=rest)
        found.append(max(0.0, float(added @ _together(patterns) @ added)))
    shares: FloatArray = np.array(found) / variance
    return shares


def _together(patterns: NDArray[np.float64]) -> FloatArray:
    """Return ``(p, p)``: how probable it is that coin tosses fit both of two patterns.

    Args:
        patterns: ``(p, c)``: 1, -1, or 0 for either.
    """
    ones, zeros = (patterns > 0).astype(float), (patterns < 0).astype(float)
    clash = ones @ zeros.T
    fixed = ones + zeros
    count = fixed.sum(axis=1)
    tosses = count[:, None] + count[None, :] - fixed @ fixed.T
    return np.where(clash + clash.T > 0, 0.0, 0.5**tosses)


def _leaves(tree: Any, width: int) -> tuple[FloatArray, FloatArray]:
    """Return ``(leaves, width)``, 1 or -1 where a leaf has a column fixed, else 0; and values."""
    sides = np.zeros((tree.node_count, width))
    split = tree.feature
    for node in np.flatnonzero(split >= 0):  # a parent comes before its children
        for child, side in ((tree.children_left[node], -1.0), (tree.children_right[node], 1.0)):
            sides[child] = sides[node]
            sides[child, split[node]] = side
    ends = split < 0
    return sides[ends], tree.value[ends].reshape(-1)
