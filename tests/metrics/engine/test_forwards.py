"""Forward passes of perturbed images, split behind the first layer, against the whole model."""

from __future__ import annotations

import pytest
import torch
from public import images, seeded
from torch import nn

from metrics.engine.folding import fast_copy
from metrics.engine.forwards import Forwards, HalvingPool, perturbed


class Offset(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x)


def conv(*before, pool=None, relu=True):
    layers = [*before, nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)]
    layers += [nn.ReLU()] if relu else []
    layers += [pool] if pool is not None else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4))


class Again(nn.Module):
    """Makes something of its buffer before the first layer, and needs it behind it as well."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.2, 0.4, 0.6]))
        self.conv, self.head = nn.Conv2d(3, 3, 3), nn.Linear(75, 4)

    def forward(self, x):
        mean = self.mean.view(1, 3, 1, 1) * 2
        return self.head((self.conv(x - mean) + mean).relu().flatten(1))


AFFINE = {
    "a buffer again": Again,
    "convolution": lambda: conv(),
    "normalised": lambda: conv(Offset(lambda x: (x - 0.3) / 0.2)),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 49, 8), nn.ReLU(), nn.Linear(8, 4)),
    "strided": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)
    ),
    "pool 2": lambda: conv(pool=nn.MaxPool2d(2)),
    "pool 3": lambda: conv(pool=nn.MaxPool2d(3, 2, 1)),
    "pool of the sides": lambda: conv(pool=nn.MaxPool2d((2, 2), ceil_mode=True)),
    "pool without a ReLU": lambda: conv(pool=nn.MaxPool2d(2), relu=False),
}
OTHERS = {
    "squared": lambda: conv(Offset(lambda x: x * x)),
    "reciprocal": lambda: conv(Offset(lambda x: 1 / (x + 3))),
    "in two ways": lambda: nn.Sequential(Offset(lambda x: x + x.relu()), *conv()),
    "clamped": lambda: conv(Offset(lambda x: x.clamp(0.2, 0.8))),
}


def answers(model, x, *, clip=False, dtype=torch.float32):
    """Return logits by parts, those of the whole model, and whether it was split."""
    torch.manual_seed(0)
    net = model().to(dtype)
    for module in net.modules():  # batch norms that do something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    net.eval()
    quick = fast_copy(net, x) or net
    assert (quick is net) == (dtype == torch.bfloat16)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    passes = Forwards(quick, x, clip=clip)
    u = torch.randn(3, *x.shape[1:], generator=seeded(2)).to(wide)
    sizes = torch.rand(len(x), generator=seeded(3)).to(wide) * 3
    got = passes.logits(passes.begun(x), sizes, passes.share(u))
    moved = perturbed(
        x.repeat_interleave(3, 0), sizes.repeat_interleave(3), u.repeat(len(x), 1, 1, 1), clip=clip
    )
    with torch.no_grad():
        return got, net(moved), passes.split


@pytest.mark.parametrize("name", [*AFFINE, *OTHERS])
def test_logits_are_the_models(name):
    got, expected, split = answers({**AFFINE, **OTHERS}[name], images(side=7))
    assert split == (name in AFFINE)
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("name", AFFINE)
def test_clipped_images_are_seen_whole(name):
    got, expected, split = answers(AFFINE[name], images(side=7), clip=True)
    assert not split
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_their_own(dtype):
    got, expected, split = answers(AFFINE["normalised"], images(side=7).to(dtype), dtype=dtype)
    assert split == (dtype == torch.float64)
    tolerance = 1e-12 if dtype == torch.float64 else 0.05
    assert torch.allclose(got, expected.to(got.dtype), atol=tolerance)


def test_no_model_is_written_to():
    net = conv(pool=nn.MaxPool2d(2)).eval()
    x = images(side=7)
    quick = fast_copy(net, x)
    before = quick(x.clone())
    code = quick.code
    Forwards(quick, x, clip=False)
    assert quick.code == code
    assert torch.equal(quick(x.clone()), before)


def test_images_are_left_as_found():
    x = images(side=7)
    kept = x.clone()
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(147, 4)).eval()
    passes = Forwards(net, x, clip=False)
    passes.logits(passes.begun(x), torch.ones(len(x)), passes.share(images(2, side=7, seed=4)))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_pooling_by_halves_is_max_pooling(side):
    x = torch.randn(2, 3, side + 1, side, generator=seeded())
    x[0, 0, 0, 0] = torch.nan
    if side == 1:
        assert HalvingPool()(x).numel() == 0
    else:
        assert torch.equal(
            HalvingPool()(x).nan_to_num(7), nn.functional.max_pool2d(x, 2).nan_to_num(7)
        )
