"""The names of the search spaces, and the way back from an exported directory to a model."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path

from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.cifar_resnets import CifarResNets
from search_spaces.depth_channels import DepthChannels
from search_spaces.feedforward import FeedForward
from search_spaces.lenet import LeNet
from search_spaces.nasbench201.space import NASBench201
from search_spaces.nasnet.space import NASNet
from search_spaces.resnet import ResNets
from search_spaces.space import SearchSpace
from search_spaces.task import Task
from search_spaces.torchvision_nets import TorchvisionNets
from search_spaces.vgg_lite import VGGLite

SEARCH_SPACES: dict[str, type[SearchSpace]] = {
    DepthChannels.name: DepthChannels,
    ResNets.name: ResNets,
    CifarResNets.name: CifarResNets,
    NASBench201.name: NASBench201,
    NASNet.name: NASNet,
    FeedForward.name: FeedForward,
    VGGLite.name: VGGLite,
    LeNet.name: LeNet,
    TorchvisionNets.name: TorchvisionNets,
}


def space_class(name: str) -> type[SearchSpace]:
    """Return the space called ``name``, or the class behind ``"package.module:Class"``.

    Raises:
        ValueError: no such space; the message lists the known ones.
    """
    if name in SEARCH_SPACES:
        return SEARCH_SPACES[name]
    if not name.partition(":")[2]:
        known = ", ".join(SEARCH_SPACES)
        raise ValueError(f"expected a search space ({known} or pkg.module:Class), got {name!r}")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"search space {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, SearchSpace)):
        raise ValueError(f"{name}: expected a subclass of search_spaces.SearchSpace, got {found!r}")
    return found


def space_of(architecture: Architecture) -> SearchSpace:
    """Return the space, with its settings, that ``architecture`` came from."""
    return space_class(architecture.space)(**dict(architecture.settings))


def load(directory: str | Path) -> nn.Module:
    """Return the model exported to ``directory``, in ``eval()`` mode, with its weights.

    Args:
        directory: holds ``architecture.json`` and ``model.safetensors``, as ``psinas export``
            writes them.

    Raises:
        FileNotFoundError: one of the two files is missing.
    """
    from safetensors.torch import load_file

    directory = Path(directory)
    description = json.loads((directory / "architecture.json").read_text(encoding="utf-8"))
    architecture = Architecture.from_dict(description["architecture"])
    space = space_of(architecture).without_files()
    model = space.build(architecture, Task.from_dict(description["task"]))
    model.load_state_dict(load_file(directory / "model.safetensors"))
    return model.eval()
