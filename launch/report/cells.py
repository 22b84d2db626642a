"""Architectures as a page shows them: a drawn cell as an image, or a table of layers."""

from __future__ import annotations

import base64
import io
from html import escape

import torch
from matplotlib import rc_context
from torch import Tensor, nn

from launch.runs.attacked import front_of
from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trial_task
from launch.show.cells import figure_of
from nas.errors import InputError
from search_spaces import Architecture, space_of

DRAWN = 12  # cells of a front, a third of a second each
MOST = 40  # rows of a table of layers
STYLE = "max-width:100%;height:auto;background:#fff;border-radius:4px"


def source_of(architecture: Architecture) -> str:
    """Return the cell of an architecture as the ``src`` of an image; "" where it has none."""
    cell = space_of(architecture).cell(architecture)
    if cell is None:
        return ""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "psinas"}):
        figure_of(cell).savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def drawn_of(run: Run) -> dict[int, str]:
    """Return trial of the front -> its cell as an image's source; nothing of a space without.

    Nor of code that the user has not said yes to.
    """
    try:
        _, front = front_of(run)
    except InputError:
        return {}
    found: dict[int, str] = {}
    for row in front[:DRAWN]:
        source = source_of(row.trial.architecture)
        if not source:
            break
        found[row.number] = source
    return found


def picture_of(source: str, alt: str) -> str:
    """Return a drawn cell as an ``<img>``."""
    return f'<img style="{STYLE}" src="{source}" alt="{escape(alt)}">'


def layers_of(run: Run, row: FinishedTrial) -> tuple[list[str], list[list[str]], frozenset[int]]:
    """Return a table of the layers of a trial's model: columns, rows, and which are numbers."""
    space, task = space_of(row.trial.architecture), trial_task(run, row)
    model = space.without_files().build(row.trial.architecture, task).eval()
    seen: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    hooks = [
        module.register_forward_hook(
            lambda m, _, out, name=name: (
                seen.append((name, m, tuple(out.shape[1:]))) if isinstance(out, Tensor) else None
            )
        )
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            model(torch.zeros(1, *task.shape))
    finally:
        for hook in hooks:
            hook.remove()
    rows = [
        [
            name,
            _kind(module),
            " × ".join(map(str, shape)),
            f"{sum(p.numel() for p in module.parameters()):,}",
        ]
        for name, module, shape in seen
    ]
    if len(rows) > MOST:
        rest = len(rows) - MOST
        rows = [*rows[: MOST - 5], ["...", f"{rest} more", "", ""], *rows[-5:]]
    return ["layer", "kind", "output", "parameters"], rows, frozenset({3})


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        size = " × ".join(map(str, module.kernel_size))
        stride = f", stride {module.stride[0]}" if module.stride[0] != 1 else ""
        return f"{name} {size}{stride}"
    return name
