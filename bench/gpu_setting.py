"""What the sections of ``bench/gpu.py`` share: where and how large, nets, and two timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nas.data.arrays import Data, prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_images
from search_spaces import (
    Architecture,
    DepthChannels,
    NASBench201,
    NASNet,
    ResNets,
    SearchSpace,
    Task,
)

Row = dict[str, Any]
Case = tuple[Row, Callable[[], Row]]
"""What tells a case from the others of its table, and the work that returns the rest of the row."""
Net = tuple[SearchSpace, Architecture]
T = TypeVar("T")

CELL201 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+"
    "|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)


@dataclass(frozen=True)
class Setting:
    """Where and how large."""

    device: torch.device
    quick: bool
    config: DataConfig

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full

    @cached_property
    def data(self) -> Data:
        return prepare(load_images(self.config), self.config, self.device)

    @property
    def epsilon(self) -> float:
        return 0.1 if self.config.name == "digits" else 8 / 255

    def judged(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first validation images and their labels."""
        return self.data.validation.images(slice(count)), self.data.validation.labels[:count]

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started


# ---------------------------------------------------------------------------------------------
# nets


def depth_channels(depth: int, channels: int, stem: str = "small") -> Net:
    space = DepthChannels(depth=(depth,), channels=(channels,), stem=stem)
    return space, space.architecture({"depth": depth, "channels": channels})


def resnet(stem: str) -> Net:
    space = ResNets(depth=(18,), stem=stem)
    return space, space.architecture({"depth": 18})


def nasnet(blocks: int, filters: int, stem_stride: int = 1) -> Net:
    space = NASNet(blocks=blocks, cells=1, filters=filters, stem_stride=stem_stride)
    return space, space.sample(np.random.default_rng(0))


def nasbench201(filters: int) -> Net:
    space = NASBench201(cells=1, filters=filters)
    return space, space.from_string(CELL201)


def built(s: Setting, net: Net, task: Task) -> nn.Module:
    space, architecture = net
    return space.build(architecture, task, seed=0).to(s.device)


def ratios(
    s: Setting, other: str, count: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> Row:
    """Time the two in turn; the ratio is theirs over ours in a round, its median and range."""
    rounds = [(s.seconds(ours), s.seconds(theirs)) for _ in range(s.pick(3, 2))]
    ratio = [b / a for a, b in rounds]
    mine, their = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {
        "psinas_per_s": count / mine,
        f"{other}_per_s": count / their,
        "ratio": statistics.median(ratio),
        "from": min(ratio),
        "to": max(ratio),
    }
