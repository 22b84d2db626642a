"""Search spaces that misbehave, for tests that name them as ``faulty_spaces:Faulty``."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from torch import nn

from search_spaces import Architecture, InvalidArchitecture, SearchSpace, Task


@dataclass(frozen=True, kw_only=True)
class Faulty(SearchSpace):
    """One decision, ``kind``, that says how the trial goes wrong."""

    kinds: tuple[str, ...] = ("good", "raises", "diverges", "invalid", "memory", "dropout")
    marker: str = ""
    blocker: str = ""
    sick: bool = False
    sick_node: str = ""

    def decisions(self):
        return {"kind": self.kinds}

    def _be_sick(self) -> None:
        """Fail like a broken GPU in the process that was here first, for ever."""
        claimed = Path(f"{self.marker}.sick")
        try:
            with claimed.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            pass
        if claimed.read_text() == str(os.getpid()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        kind = architecture["kind"]
        if kind == "raises":
            raise RuntimeError("this architecture raises")
        if kind == "invalid":
            raise InvalidArchitecture("this architecture does not fit")
        if kind == "memory":
            raise MemoryError
        if kind in ("kills", "kills-once"):
            marker = Path(self.marker)
            if kind == "kills" or not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if kind == "terminated-once" and not Path(f"{self.marker}.terminated").exists():
            Path(f"{self.marker}.terminated").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        if kind == "blocks-saving" and not Path(f"{self.blocker}.once").exists():
            Path(f"{self.blocker}.once").touch()
            Path(self.blocker).write_text("in the way")
        if self.sick:
            self._be_sick()
        if self.sick_node and self.sick_node == ray.get_runtime_context().get_node_id():
            raise RuntimeError("CUDA error: unspecified launch failure")
        if kind == "outage" and Path(f"{self.marker}.outage").exists():
            raise OSError("the file server is away")
        if kind == "hangs":
            time.sleep(10_000)
        if kind == "frozen":  # with the thread that watches over the limit
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind.startswith("slow"):
            time.sleep(8.0 if kind.startswith("slower") else 1.0)
        dropout = nn.Dropout(0.5 if kind == "dropout" else 0.0)
        layers = [
            dropout,
            nn.Flatten(),
            nn.Linear(task.shape[0] * task.shape[1] * task.shape[2], 10),
        ]
        return nn.Sequential(*layers, *([Explode()] if kind == "diverges" else []))


class Explode(nn.Module):
    """Answers infinity once it trains."""

    def forward(self, x):
        return x * torch.inf if self.training else x


class Taken(Faulty):
    """A decision is called like a column of the trial table."""

    def decisions(self):
        return {"status": ("good",)}


@dataclass(frozen=True, kw_only=True)
class Masking(SearchSpace):
    """Nets that are alike, but some round their images first: such have no gradient."""

    masks: tuple[bool, ...] = (False, True)

    def decisions(self):
        return {"masks": self.masks, "width": (8, 12)}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        width = architecture["width"]
        before = [Round()] if architecture["masks"] else []
        convolution = nn.Conv2d(task.shape[0], width, 3), nn.ReLU(), nn.Flatten()
        pixels = width * (task.shape[1] - 2) * (task.shape[2] - 2)
        return nn.Sequential(*before, *convolution, nn.Linear(pixels, task.classes))


class Round(nn.Module):
    """Rounds in eval() only, so that the net can be trained and attacked in training."""

    def forward(self, x):
        return x if self.training else x.round()


class Named(Faulty):
    """A name of its own, under which nothing is found."""

    name = "mine"
