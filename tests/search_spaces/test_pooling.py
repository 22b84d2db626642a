"""Average pools: torch's CUDA gradient of them is wrong in channels_last, so they run plain."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn

from search_spaces import SEARCH_SPACES, DepthChannels, Task
from search_spaces.pooling import AveragePool2d

TASK = Task.plain((3, 8, 8), 4)


@dataclass(frozen=True, kw_only=True)
class Pooled(DepthChannels):
    """Somebody's space with torch's own pools."""

    def network(self, architecture, task):
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Sequential(nn.AvgPool2d(2)), nn.Flatten())


@pytest.mark.parametrize(("device", "contiguous"), [("cuda", True), ("cpu", False)])
def test_on_a_gpu_the_pool_sees_a_contiguous_input(device, contiguous, monkeypatch):
    seen = []
    pool = torch.nn.functional.avg_pool2d

    def watched(x, *arguments):
        seen.append((x.device.type, x.is_contiguous()))
        return pool(x, *arguments)

    monkeypatch.setattr(torch.nn.functional, "avg_pool2d", watched)
    with fake_cuda():
        AveragePool2d(3, 1, 1)(torch.rand(2, 4, 8, 8).to(device, memory_format=torch.channels_last))
    assert seen == [(device, contiguous)]


def test_no_model_of_any_space_keeps_torchs_own_pool():
    space = SEARCH_SPACES["nasbench201"](cells=1, filters=4)
    cell = "|avg_pool_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
    for model, pools in (
        (space.build(space.from_string(cell), TASK), 3),
        (Pooled().build(next(iter(Pooled())), TASK), 2),
    ):
        found = [type(m) for m in model.modules() if isinstance(m, nn.AvgPool2d)]
        assert len(found) >= pools
        assert set(found) == {AveragePool2d}


@pytest.mark.parametrize("settings", [(3, 1, 1), (3, 2, 1, True, False), (2, 2, 0, False, True, 3)])
def test_it_is_the_pool_that_it_replaces(settings):
    x = torch.rand(2, 3, 7, 7)
    assert torch.equal(AveragePool2d(*settings)(x), nn.AvgPool2d(*settings)(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_its_gradient_on_a_gpu_is_that_of_the_cpu():
    x = torch.rand(8, 16, 28, 28).to(memory_format=torch.channels_last)
    weights = torch.rand(8, 16, 28, 28)
    gradients = []
    for device in ("cuda", "cpu"):
        v = x.to(device).requires_grad_()
        value = (AveragePool2d(3, 1, 1, count_include_pad=False)(v) * weights.to(device)).sum()
        gradients.append(torch.autograd.grad(value, v)[0].cpu())
    torch.testing.assert_close(*gradients)
