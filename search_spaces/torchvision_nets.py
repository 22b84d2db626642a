"""Reference networks: torchvision's image classifiers by name, as they are published or untrained.

Published ones are what papers measure beside their own nets (Sutton et al. 2023: ResNet50 and
VGG19). Nothing is downloaded: their weights are files that somebody has put into a directory.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

CLASSES = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision trains
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # norm.1., now norm1.
SIDE_OUTPUTS = ("googlenet", "inception_v3")  # in training they answer with a tuple


@dataclass(frozen=True, kw_only=True)
class TorchvisionNets(SearchSpace):
    """torchvision's image classifiers, with published weights or untrained; three channels.

    Untrained ones have as many classes as the task and its normalisation. Published ones have
    ImageNet's 1000 classes, in torchvision's order, and ImageNet's normalisation, whatever the
    task's own is: give them images as they were trained on, 224 x 224 for most. Files are called
    after the model, ``resnet50.pth`` for ``resnet50-11ad3fa6.pth``. An architecture's hash knows
    whether weights are published, and not where they lie or which version they are.

    Args:
        model: names of ``torchvision.models``, checked when one is built: every classifier but
            ``googlenet`` and ``inception_v3``, which have several outputs in training.
        weights: a directory that holds a state dict for each model, ``NAME.pth`` or else
            ``NAME.safetensors``; None leaves the random initial weights.

    Raises:
        ValueError: no model, one that is named twice, or one that is no name.
    """

    name: ClassVar[str] = "torchvision"
    model: tuple[str, ...] = ("resnet50", "vgg19")
    weights: str | None = None

    def __post_init__(self) -> None:
        names = tuple(self.model)
        object.__setattr__(self, "model", names)
        strings = all(isinstance(name, str) for name in names)
        if not names or not strings or len(set(names)) < len(names):
            raise ValueError(f"model: expected distinct names of models, got {list(names)}")
        if self.weights is not None:
            object.__setattr__(self, "weights", str(self.weights))

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {"model": self.model}

    def graph(self, choices: Mapping[str, Choice]) -> object:
        return {**choices, "published": self.weights is not None}

    def without_files(self) -> TorchvisionNets:
        return dataclasses.replace(self, weights=None)

    def normalisation(self, task: Task) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return super().normalisation(task) if self.weights is None else (MEAN, STD)

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        """See :meth:`SearchSpace.network`.

        Raises:
            InvalidArchitecture: images of other than three channels or too small, or, with
                published weights, other than 1000 classes.
            ValueError: an unknown model, or weights that are missing or do not fit.
            ImportError: torchvision is missing.
        """
        name = str(architecture["model"])
        if task.shape[0] != 3:
            raise InvalidArchitecture(
                "torchvision: expected images of 3 channels (data.channels=3 copies grey ones), "
                f"got {task.shape[0]}"
            )
        if self.weights is not None and task.classes != CLASSES:
            raise InvalidArchitecture(
                f"torchvision: expected a task of {CLASSES} classes for published weights, "
                f"got {task.classes}"
            )
        try:
            from torchvision import models  # here: that takes 1.4 s, as long as torch
        except ImportError as error:
            raise ImportError(f"the space torchvision needs torchvision: {error}") from error
        known = [n for n in models.list_models(module=models) if n not in SIDE_OUTPUTS]
        if name not in known:
            raise ValueError(f"model: expected one of {', '.join(known)}, got {name!r}")
        network: nn.Module = models.get_model(name, weights=None, num_classes=task.classes)
        _check_images(network, name, task)
        if self.weights is not None:
            _fill(network, name, Path(self.weights).expanduser())
        return network


def _check_images(network: nn.Module, name: str, task: Task) -> None:
    """Raise InvalidArchitecture where the network does not take the images: shapes alone."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    shapes = {key: tensor.detach().to("meta") for key, tensor in tensors}
    image = torch.empty(1, *task.shape, device="meta")
    try:
        torch.func.functional_call(network.eval(), shapes, image)
    except (AssertionError, RuntimeError) as error:
        raise InvalidArchitecture(
            f"torchvision: expected images that {name} takes, got {task.shape[1]} x "
            f"{task.shape[2]}: {_first_line(error)}"
        ) from error
    finally:
        network.train()


def _fill(network: nn.Module, name: str, directory: Path) -> None:
    """Load the state dict of ``name``, every weight of it.

    Raises:
        ValueError: there is none, it cannot be read, or it does not fit.
    """
    file = next((f for s in (".pth", ".safetensors") if (f := directory / f"{name}{s}").is_file()),
                None)  # fmt: skip
    if file is None:
        there = sorted(f.name for f in directory.iterdir()) if directory.is_dir() else None
        got = "no such directory" if there is None else ", ".join(there) or "an empty directory"
        raise ValueError(
            f"weights: expected {directory / name}.pth or {directory / name}.safetensors, got {got}"
        )
    problem = _misfit(network, _read(file))
    if problem:
        raise ValueError(f"{file}: expected the weights of {name}, got {problem}")


def _misfit(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Load ``state``, and return in one line what does not fit: "" where all does.

    torch reads also names of earlier versions, which many published files have.
    """
    try:
        missing, unknown = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # of shapes, under a heading, or of versions
        return str(error).splitlines()[-1].strip()
    wrong = [f"{key!r} missing" for key in missing[:1]]
    return ", ".join(wrong + [f"{key!r} unknown" for key in unknown[:1]])


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  pickle's, zip's, safetensors' own: all say unreadable
        raise ValueError(
            f"{file}: expected a state dict, got what cannot be read: {_first_line(error)}"
        ) from error
    tensors = isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())
    if not tensors:
        got = f"{type(state).__name__} of other things"
        raise ValueError(f"{file}: expected a state dict of tensors, got {got}")
    for key in [key for key in state if OLD_DENSENET.search(key)]:
        state[OLD_DENSENET.sub(r"\1\2", key)] = state.pop(key)
    return state  # as it was read: torch keeps the versions of its modules beside the keys


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
