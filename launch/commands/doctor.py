"""The command ``psinas doctor``."""

from __future__ import annotations

import os

import torch

from launch.config.versions import versions
from launch.show.console import say
from nas.data.config import DataConfig
from nas.data.datasets import load_test_images
from nas.data.places import data_root
from nas.errors import InputError

LOOKED_FOR = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


def doctor() -> None:
    """Say what psinas finds on this machine: versions, devices, data.

    Example: psinas doctor
    """
    for name, version in versions().items():
        say(f"{name}  {version}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    say(f"cores  {os.cpu_count()}\nGPUs  {', '.join(gpus) or 'none'}")
    say(f"data  {data_root(DataConfig())}")
    for name in LOOKED_FOR:
        try:
            found = f"{len(load_test_images(DataConfig(name=name)).labels)} test images"
        except InputError:
            found = "not there"
        say(f"  {name}  {found}")
