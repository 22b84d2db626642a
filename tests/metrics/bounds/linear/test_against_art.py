"""Against the DeepZ zonotopes of ART, on the nets that it takes. Both are bounds of one thing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from metrics.bounds.linear import certified
from metrics.bounds.program import read

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """Convolutions, a reshape and dense layers, as DeepZ takes them: modules without containers."""

    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Conv2d(1, 4, 3, stride=2), nn.ReLU()
        self.second, self.relu2 = nn.Conv2d(4, 8, 2), nn.ReLU()
        self.third, self.relu3 = nn.Linear(32, 16), nn.ReLU()
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        h = self.relu2(self.second(self.relu(self.first(x))))
        return self.head(self.relu3(self.third(h.reshape(len(x), -1))))


def test_at_least_nearly_as_many_images_are_certified(digits):
    zonotopes = pytest.importorskip("art.estimators.certification.deep_z")
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(digits.train.images()), digits.train.labels).backward()
        optimizer.step()
    images, labels = digits.validation.images()[:40], digits.validation.labels[:40]
    program = read(net.eval(), images)
    size = images[0].numel()
    theirs = zonotopes.PytorchDeepZ(
        model=net, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=10,
        clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip
    shares = []
    for epsilon in (0.01, 0.03, 0.06, 0.1):
        ours = certified(program, images, labels, "linf", epsilon)
        errors = epsilon * np.eye(size, dtype=np.float32).reshape(size, *images.shape[1:])
        zonotope = [
            theirs.certify(cent=image[None].numpy(), eps=errors, prediction=int(label))
            for image, label in zip(images, labels, strict=True)
        ]
        shares.append((float(ours.double().mean()), float(np.mean(zonotope))))
    print(shares)
    assert all(ours >= zonotope - 0.05 for ours, zonotope in shares)
    assert min(shares[0]) > 0.5 > max(shares[-1])
