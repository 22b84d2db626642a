"""What there is: the commands that list presets, spaces, metrics, samplers, data and machine."""

from __future__ import annotations

import os
from typing import Any

from launch.show.console import say
from nas.errors import InputError
from nas.search.trust import plain_names


def presets() -> None:
    """List the presets.

    Example: psinas presets
    """
    from launch.config.documents import preset_about, preset_names

    _list({name: preset_about(name) for name in preset_names()})


def spaces() -> None:
    """List the search spaces and their settings.

    Example: psinas spaces
    """
    from search_spaces import SEARCH_SPACES

    _list({name: _about(space) for name, space in SEARCH_SPACES.items()})


def metrics() -> None:
    """List the metrics, their scores and their settings.

    Example: psinas metrics
    """
    from metrics.registry import METRICS

    _list(
        {
            name: f"{metric.about} ({_settings(metric)}) -> "
            f"{', '.join(plain_names(metric.score_names))}"
            for name, metric in ((name, make()) for name, make in METRICS.items())
        }
    )


def samplers() -> None:
    """List the samplers.

    Example: psinas samplers
    """
    from nas.samplers.registry import SAMPLERS

    _list({name: (sampler.__doc__ or "").strip() for name, sampler in SAMPLERS.items()})


def datasets() -> None:
    """List the datasets, and where their files are looked for.

    Example: psinas datasets
    """
    from nas.data.arrays import DataConfig
    from nas.data.datasets import DATASETS, READERS_OF_PATHS, data_root

    for name in [*DATASETS, *(f"{kind}:PATH" for kind in READERS_OF_PATHS)]:
        say(name)
    say(f"files in {data_root(DataConfig())} (PSINAS_DATA or data.root)")


def doctor() -> None:
    """Say what psinas finds on this machine: versions, devices, data.

    Example: psinas doctor
    """
    import torch

    from launch.runs.run import versions
    from nas.data.arrays import DataConfig
    from nas.data.datasets import DATASETS, data_root, load_test_images

    for name, version in versions().items():
        say(f"{name}  {version}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    say(f"cores  {os.cpu_count()}\nGPUs  {', '.join(gpus) or 'none'}")
    say(f"data  {data_root(DataConfig())}")
    for name in ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100"):
        assert name in DATASETS
        try:
            found = f"{len(load_test_images(DataConfig(name=name)).labels)} test images"
        except InputError:
            found = "not there"
        say(f"  {name}  {found}")


def _list(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, about in rows.items():
        first = " ".join(about.split())
        say(f"{name:{width}}  {first}")


def _about(kind: type[Any]) -> str:
    from dataclasses import fields

    settings = ", ".join(f"{f.name}={f.default!r}" for f in fields(kind))
    return f"{(kind.__doc__ or '').strip().splitlines()[0]} ({settings})"


def _settings(metric: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in metric.settings().items())
