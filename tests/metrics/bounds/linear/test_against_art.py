"""Against the DeepZ zonotopes of ART, on the nets that it takes. Both are bounds of one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from metrics.bounds.linear import certified
from metrics.bounds.program import read

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(digits):
    """Return a small net of digits, trained for a few seconds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip
    images, labels = digits.train.images, digits.train.labels
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval()


def test_at_least_nearly_as_many_images_are_certified(digits):
    zonotopes = pytest.importorskip("art.estimators.certification.deep_z")
    net = trained(digits)
    images, labels = digits.validation.images[:40], digits.validation.labels[:40]
    program = read(net, images)
    theirs = zonotopes.PytorchDeepZ(
        model=net, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=10,
        clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip
    size = images[0].numel()
    shares = []
    for epsilon in (0.01, 0.02, 0.04, 0.08):
        ours = certified(program, images, labels, "linf", epsilon)
        zonotope = []
        for image, label in zip(images, labels, strict=True):
            errors = epsilon * np.eye(size, dtype=np.float32).reshape(size, *image.shape)
            zonotope.append(theirs.certify(cent=image.numpy(), eps=errors, prediction=int(label)))
        shares.append((float(ours.double().mean()), float(np.mean(zonotope))))
    print(shares)
    assert all(ours >= theirs - 0.05 for ours, theirs in shares)
    assert shares[0][0] > 0.5
    assert shares[0][1] > 0.5
    assert shares[-1][0] < 0.9
