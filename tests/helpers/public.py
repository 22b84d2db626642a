"""The functions of ``metrics`` that look at a model, each called as (model, images, labels)."""

from __future__ import annotations

import torch
from torch import nn

from metrics import (
    FGSM,
    PGD,
    accuracy_curve,
    cascade,
    correct,
    gradient_line,
    minimal_fgsm,
    robust_accuracy,
    stability,
    susceptibility,
    suspicion,
)
from metrics.susceptibility import (
    drift,
    robustness_radius,
    sphere_attack,
    susceptibility_limit,
)
from metrics.universality import compare, linear_response, logit_differences

EPSILON = 0.05
ATTACK = PGD(epsilon=EPSILON, steps=2)

LABELLED = {
    "call": lambda m, x, y, **k: ATTACK(m, x, y, **k),
    "correct": correct,
    "robust_accuracy": lambda m, x, y, **k: robust_accuracy(m, x, y, ATTACK, **k),
    "cascade": lambda m, x, y, **k: cascade(m, x, y, [FGSM(epsilon=EPSILON), ATTACK], **k),
    "accuracy_curve": lambda m, x, y, **k: accuracy_curve(m, x, y, ATTACK, [0.01, EPSILON], **k),
    "minimal_fgsm": minimal_fgsm,
    "gradient_line": lambda m, x, y, **k: gradient_line(m, x, y, scalings=4, **k),
    "stability": lambda m, x, y, **k: stability.measure(m, x, y, draws=2, scalings=4, **k),
    "linear_response": linear_response,
    "compare": lambda m, x, y, **k: compare(m, x, y, tolerance=0.01, **k),
    "suspicion": lambda m, x, y, **k: suspicion(m, x, y, queries=2, draws=2, **k),
}
UNLABELLED = {
    "susceptibility": lambda m, x, y=None, **k: susceptibility(m, x, radii=(0.01,), steps=1, **k),
    "sphere_attack": lambda m, x, y=None, **k: sphere_attack(m, x, 0.01, steps=1, **k),
    "susceptibility_limit": lambda m, x, y=None, **k: susceptibility_limit(m, x, **k),
    "logit_differences": lambda m, x, y=None, **k: logit_differences(m, x, **k),
    "drift": lambda m, x, y=None, **k: drift(m, x, x, **k),
    "robustness_radius": lambda m, x, y=None, **k: robustness_radius(m, x, 1.0, **k),
}
EVERY = {**LABELLED, **UNLABELLED}
BATCHED = {name: function for name, function in EVERY.items() if name != "call"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(classes=4, seed=0):
    """Return a small net with a batch norm, in ``eval()``."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    ).eval()


def images(n=6, channels=3, side=6, seed=0):
    return torch.rand(n, channels, side, side, generator=seeded(seed))


def top(model, x):
    """Return the labels that the model gives."""
    with torch.no_grad():
        return model.eval()(x).argmax(dim=1)
