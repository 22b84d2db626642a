"""Somebody's own model: built by their code or torchvision, filled from a checkpoint, and wrapped.

A target ``pkg.module:callable`` is code that the user has asked for by name, and is run; a
checkpoint is read as tensors alone, and never runs any.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import InputError, first_line
from nas.names import find

TORCHVISION = "torchvision:"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WITHIN = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where training scripts put the tensors in what they save."""


@dataclass(frozen=True)
class Wrapping:
    """What stands between images in [0, 1] and a model of somebody's own.

    Args:
        weights: a checkpoint, ``.pt``, ``.pth`` or ``.safetensors``; None is as it was built.
        mean, std: of a channel, or one for each: the model sees (images - mean) / std.
        size: side that images are resized to, on their way into the model.

    Raises:
        InputError: a mean without std, a std that is not positive, or a size below 1.
    """

    weights: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean, --std: expected both or neither")
        if self.std is not None and not all(s > 0 for s in self.std):
            raise InputError(f"--std: expected numbers above 0, got {list(self.std)}")
        if self.size is not None and self.size < 1:
            raise InputError(f"--size: expected a side in pixels >= 1, got {self.size}")

    def __bool__(self) -> bool:
        return self != Wrapping()


class Prepared(nn.Module):
    """A model behind resizing and normalisation, so that attacks see images in [0, 1]."""

    def __init__(self, model: nn.Module, wrapping: Wrapping) -> None:
        super().__init__()
        self.model, self.size = model, wrapping.size
        self.normalises = wrapping.mean is not None
        mean, std = (torch.tensor(v or (0.0,)).view(1, -1, 1, 1) for v in
                     (wrapping.mean, wrapping.std))  # fmt: skip
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Any:
        """Return what the model answers."""
        if self.size is not None:
            size = (self.size, self.size)
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        if self.normalises:
            images = (images - self.mean) / self.std
        return self.model(images)


class Called(nn.Module):
    """A plain function of images, as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        """Return what the function answers."""
        return self.function(images)


def own_model(target: str, wrapping: Wrapping) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model in ``eval()``, and what is known of how it was made, as JSON types.

    Args:
        target: ``pkg.module:callable`` (a module, what returns one, or a function of images) or
            ``torchvision:NAME``, with ``@WEIGHTS`` for weights that torchvision has or fetches.
        wrapping: checkpoint, normalisation and size.

    Raises:
        InputError: no such model, or a checkpoint that does not fit it.
    """
    known: dict[str, Any] = {}
    tensors = None
    if wrapping.weights is not None:
        tensors = read_tensors(wrapping.weights)
        digest = hashlib.sha256(wrapping.weights.read_bytes()).hexdigest()
        known["weights"] = {"file": str(wrapping.weights), "sha256": digest}
    if target.startswith(TORCHVISION):
        model, fetched = _of_torchvision(target, tensors)
        if fetched is not None:
            known["weights"] = {"torchvision": fetched["name"]}
            if wrapping.mean is None:
                mean, std = fetched["normalise"]
                wrapping = Wrapping(wrapping.weights, mean, std, wrapping.size)
        elif tensors is None:
            known["weights"] = None  # random: said, for a score of such a model means nothing
    else:
        model = _of_code(target)
    if tensors is not None:
        known["weights"]["prefix"] = fill(model, tensors, str(wrapping.weights))
    if wrapping.mean is not None and wrapping.std is not None:
        known["normalise"] = {"mean": list(wrapping.mean), "std": list(wrapping.std)}
    if wrapping.size is not None:
        known["size"] = wrapping.size
    if wrapping.mean is not None or wrapping.size is not None:
        model = Prepared(model, wrapping)
    return model.eval(), known


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; nothing in it is run.

    Raises:
        InputError: no such file, or one that holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of unpickling: of any kind
        raise InputError(
            f"--weights: expected a checkpoint of tensors (.pt or .safetensors), got {path}: "
            f"{first_line(error)}"
        ) from error
    for name in WITHIN:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"--weights: expected tensors by name in {path}, got "
                         f"{type(found).__name__}")  # fmt: skip
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"--weights: expected tensors in {path}, got {sorted(map(str, found))}")
    return tensors


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> str:
    """Load tensors into a model, whole; return the prefix that their names had, such as ``module.``

    Raises:
        InputError: names or shapes that do not fit.
    """
    wanted = model.state_dict()
    prefix = _prefix(tensors, wanted)
    plain = {name.removeprefix(prefix): value for name, value in tensors.items()}
    missing = [name for name in wanted if name not in plain]
    unknown = [name for name in plain if name not in wanted]
    # Counters of batches came to batch norms later: old checkpoints have none.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise InputError(
            f"{where}: expected the model's {len(wanted)} tensors, got {len(plain)}: "
            f"{_some('missing', missing)}; {_some('unknown', unknown)}"
        )
    for name, value in plain.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"{where}: expected {name} {tuple(wanted[name].shape)}, got {tuple(value.shape)}"
            )
    model.load_state_dict(plain, strict=False)
    return prefix


def _prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what to take off every name so that they are the model's; empty where nothing."""
    if set(tensors) & set(wanted):
        return ""
    first = next(iter(tensors))
    parts = first.split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if all(n.startswith(prefix) for n in tensors) and first.removeprefix(prefix) in wanted:
            return prefix
    return ""


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3]) or 'none'}{more}"


def _of_code(target: str) -> nn.Module:
    found: Any = find(target, {}, "model")
    if not callable(found):
        raise InputError(f"{target}: expected a module or a callable, got {found!r}")
    if isinstance(found, nn.Module):
        return found
    if not isinstance(found, type) and _asked(found) == 1:
        return Called(found)
    model = found()
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{target}: expected a callable that returns a torch module, got {model!r}"
        )
    return model


def _asked(function: Any) -> int:
    """Return how many arguments a function cannot be called without; -1 where nobody knows."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return -1
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is p.empty and p.kind in places for p in parameters)


def _of_torchvision(
    target: str, tensors: Mapping[str, Tensor] | None
) -> tuple[nn.Module, dict[str, Any] | None]:
    """Return a model, and the name and normalisation of weights that torchvision gave it."""
    from torchvision import models

    name, _, wanted = target.removeprefix(TORCHVISION).partition("@")
    known = [m for m in models.list_models() if hasattr(models, m)]
    if name not in known:
        near = [m for m in known if m.startswith(name[:4])][:8]
        raise InputError(
            f"model: expected a classifier of torchvision, such as {', '.join(near or known[:8])}, "
            f"got {name!r}"
        )
    settings: dict[str, Any] = {}
    if tensors is not None:
        if wanted:
            raise InputError(f"--weights: expected a checkpoint or @{wanted}, got both")
        sizes = [len(v) for v in tensors.values() if v.dim() == 1]
        settings["num_classes"] = sizes[-1] if sizes else 1000  # the head's bias comes last
    try:
        weights = models.get_model_weights(name)[wanted] if wanted else None
        model = models.get_model(name, weights=weights, **settings)
    except KeyError as error:
        names = ", ".join(models.get_model_weights(name).__members__)
        raise InputError(f"{target}: expected one of {names}, got {wanted!r}") from error
    except OSError as error:
        raise InputError(f"{target}: its weights cannot be fetched: {first_line(error)}") from error
    if weights is None:
        return model, None
    preset = weights.transforms()
    return model, {
        "name": str(weights),
        "normalise": (tuple(preset.mean), tuple(preset.std)),
    }
