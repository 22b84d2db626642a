"""What an architecture is, and what every search space does.

An :class:`Architecture` is a value: which space, what the space holds fixed, which choices. It has
no torch in it, so it travels through JSON to a worker, a ledger or a paper. A :class:`SearchSpace`
names its decisions in order and turns an architecture into a model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.graphs import Cell
from search_spaces.pooling import with_right_pools

Choice = str | int | float | bool
"""One fixed answer of a decision."""


class InvalidArchitecture(ValueError):
    """The choices cannot be built for this task (images too small for the pooling, say)."""


class Chooser(Protocol):
    """Whatever answers decisions: an Optuna trial, :class:`Answers`, :class:`RandomChooser`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of ``choices`` for the decision ``name``."""


@dataclass(frozen=True)
class Answers:
    """A chooser that repeats given answers.

    Raises:
        ValueError: a decision has no answer here, or one that is not among its choices.
    """

    answers: Mapping[str, Choice]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self.answers:
            raise ValueError(f"expected an answer for decision {name!r}, got {list(self.answers)}")
        answer = self.answers[name]
        if answer not in choices:
            raise ValueError(f"{name}: expected one of {list(choices)}, got {answer!r}")
        return choices[choices.index(answer)]  # as the space writes it: 2, not 2.0


@dataclass(frozen=True)
class RandomChooser:
    """A chooser that draws uniformly from a seeded numpy generator."""

    rng: np.random.Generator

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]


@dataclass(frozen=True)
class Task:
    """What a model must fit: images in, logits out.

    Attributes:
        shape: ``(C, H, W)`` of one image.
        classes: number of logits.
        mean, std: per channel, of the training images in [0, 1]; the model normalises with them.
    """

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def plain(cls, shape: tuple[int, int, int], classes: int) -> Task:
        """Return a task whose model does not normalise (mean 0, std 1)."""
        return cls(shape, classes, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Task:
        """Return the task that :meth:`to_dict` wrote."""
        channels, height, width = value["shape"]
        return cls(
            (channels, height, width), value["classes"], tuple(value["mean"]), tuple(value["std"])
        )


class Normalize(nn.Module):
    """(x - mean) / std per channel, inside the model, so that attacks stay in pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Model(nn.Sequential):
    """What a space builds: the normalisation, then the network.

    Attributes:
        hidden_states: submodule (as in ``named_modules``) -> how many layers lie between the input
            and its output, in order. The last is ``""``, the model itself with the network's number
            of layers. Empty where the space names none, and of a slice.
    """

    hidden_states: dict[str, int]

    def __init__(self, *modules: Any, hidden_states: Mapping[str, int] | None = None) -> None:
        super().__init__(*modules)
        self.hidden_states = dict(hidden_states or {})


def canonical_hash(graph: object) -> str:
    """Return 16 hex digits of the SHA-256 of ``graph`` as sorted JSON."""
    text = json.dumps(graph, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Architecture:
    """Which network: a frozen, hashable, JSON-able value.

    Attributes:
        space: a name in ``SEARCH_SPACES`` or ``"package.module:Class"``.
        settings: the space's own settings, as sorted ``(name, value)`` pairs.
        choices: one ``(decision, choice)`` pair for each decision, in the space's order.
        hash: equal for two architectures that build the same graph.
    """

    space: str
    settings: tuple[tuple[str, Any], ...]
    choices: tuple[tuple[str, Choice], ...]
    hash: str

    def __getitem__(self, decision: str) -> Choice:
        return dict(self.choices)[decision]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; :meth:`from_dict` gives the architecture back."""
        return {
            "space": self.space,
            "settings": {name: _thaw(value) for name, value in self.settings},
            "choices": dict(self.choices),
            "hash": self.hash,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Architecture:
        """Return the architecture that :meth:`to_dict` wrote."""
        return cls(
            value["space"],
            tuple((name, _freeze(v)) for name, v in sorted(value["settings"].items())),
            tuple(value["choices"].items()),
            value["hash"],
        )


@dataclass(frozen=True, kw_only=True)
class SearchSpace(ABC):
    """Names its decisions in order, and builds the model of an architecture.

    A subclass is a frozen dataclass whose fields are its settings; it writes :meth:`decisions` and
    :meth:`network`, :meth:`graph` where two sets of choices can mean the same network, and
    :meth:`hidden_states` where the network has layers to name.
    """

    name: ClassVar[str] = ""  # one in SEARCH_SPACES; a class elsewhere is named by its module

    @classmethod
    def full_name(cls) -> str:
        """Return the name by which ``space_class`` finds this class again."""
        return cls.__dict__.get("name") or f"{cls.__module__}:{cls.__qualname__}"

    @abstractmethod
    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        """Return every decision with its fixed choices, in the order they are asked."""

    @abstractmethod
    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        """Return the network behind the normalisation: normalised images to logits.

        Raises:
            InvalidArchitecture: the architecture does not fit the task.
        """

    def graph(self, choices: Mapping[str, Choice]) -> object:
        """Return what alone decides the built graph, as JSON types: all choices by default."""
        return dict(choices)

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return the network's hidden states: submodule -> layers between input and its output.

        In order, names as in the network's ``named_modules``, and last ``""``, its output. None by
        default; a subclass with another :meth:`network` than its parent names its own.
        """
        return {}

    def features(self, choices: Mapping[str, Choice]) -> Mapping[str, float]:
        """Return what a predictor may learn from beside the choices: nothing by default.

        Equal for choices that build the same graph.
        """
        return {}

    def table_key(self, choices: Mapping[str, Choice]) -> str:
        """Return what tells the rows of a published table apart: the hash by default."""
        return self.architecture(choices).hash

    def to_string(self, architecture: Architecture) -> str:
        """Return the architecture's published string form: its choices as JSON by default."""
        return json.dumps(dict(architecture.choices))

    def from_string(self, text: str) -> Architecture:
        """Return the architecture that :meth:`to_string` wrote.

        Raises:
            ValueError: not such a string.
        """
        try:
            choices = json.loads(text)
        except ValueError:
            choices = None
        if not isinstance(choices, dict):
            raise ValueError(f"expected choices as a JSON object, got {text!r}")
        return self.architecture(choices)

    def cell(self, architecture: Architecture) -> Cell | None:
        """Return the cell that the network repeats, to be drawn; None where there is none."""
        return None

    def suggest(self, chooser: Chooser) -> Architecture:
        """Ask ``chooser`` every decision in order and return the architecture."""
        return self.architecture(
            {
                name: chooser.suggest_categorical(name, choices)
                for name, choices in self.decisions().items()
            }
        )

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return an architecture with every choice drawn uniformly from ``rng``."""
        return self.suggest(RandomChooser(rng))

    def architecture(self, choices: Mapping[str, Choice]) -> Architecture:
        """Return the architecture of ``choices``.

        Raises:
            ValueError: a decision is missing, unknown, or answered with what is not a choice.
        """
        decisions = self.decisions()
        if unknown := set(choices) - set(decisions):
            raise ValueError(f"expected decisions {list(decisions)}, got also {sorted(unknown)}")
        answers = Answers(choices)
        answered = {n: answers.suggest_categorical(n, c) for n, c in decisions.items()}
        return Architecture(
            self.full_name(),
            tuple(sorted(self.settings().items())),
            tuple(answered.items()),
            canonical_hash([self.full_name(), self.graph(answered)]),
        )

    def settings(self) -> dict[str, Any]:
        """Return the constructor's keyword arguments that make this space again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def size(self) -> int:
        """Return the number of combinations of choices (an upper bound on distinct networks)."""
        return int(np.prod([len(c) for c in self.decisions().values()], dtype=object))

    def __iter__(self) -> Iterator[Architecture]:
        """Yield every combination of choices, the last decision fastest."""
        decisions = self.decisions()
        for answers in itertools.product(*decisions.values()):
            yield self.architecture(dict(zip(decisions, answers, strict=True)))

    def build(self, architecture: Architecture, task: Task, *, seed: int = 0) -> Model:
        """Return a freshly initialised model: images ``(N, C, H, W)`` in [0, 1] to logits.

        Args:
            architecture: one of this space.
            task: image shape, classes and normalisation.
            seed: decides the initial weights; the global generator is left as found.

        Raises:
            InvalidArchitecture: the architecture does not fit the task.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = with_right_pools(self.network(architecture, task))
        states = {
            f"1.{name}" if name else "": layers
            for name, layers in self.hidden_states(architecture).items()
        }
        model = Model(Normalize(task.mean, task.std), network, hidden_states=states)
        # Convolutions in this layout train 1.3 times faster on a CPU, and in bf16 on a GPU.
        for weight in model.parameters():
            if weight.ndim == 4:
                weight.data = _channels_last(weight.data)
        return model


def _channels_last(weight: Tensor) -> Tensor:
    """Return a copy in channels_last strides.

    torch's own conversion leaves a weight of one input channel as it is, and the convolution, and
    all behind it, then runs in the contiguous layout.
    """
    n, c, h, w = weight.shape
    strides = (c * h * w, 1, w * c, c)
    return weight.new_empty(weight.numel()).as_strided(weight.shape, strides).copy_(weight)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


def _thaw(value: Any) -> Any:
    return [_thaw(v) for v in value] if isinstance(value, tuple) else value
