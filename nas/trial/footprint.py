"""How much memory a trial takes at most, without running its model.

One training step of the trial's own code (attack, forward, backward) and one batch of judging run
on tensors that have no values (``nas.trial.live_bytes``); what is alive at once is what torch's
allocator holds. Beside the model stand what training and the evaluator keep: gradients, optimizer
state, the best epoch's weights, a snapshot of the model while it is attacked, a folded copy.

Outside of it are what kernels allocate inside (a constant stands for it on a GPU), the context of a
GPU, and fragmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from nas.errors import one_line
from nas.trial.live_bytes import emptied, without_values
from nas.trial.rehearsal import Rehearsal
from nas.trial.trial import Trial
from search_spaces import Task, space_of

WORKSPACE = {"cpu": 0, "cuda": 128 * 2**20}  # bytes: cuBLAS's and cuDNN's, as a round number
USUAL_IMAGES = 60_000, 10_000  # of training and validation, where nobody says how many
UNSEEN = 0.05  # of the rest, for what kernels hold inside
LABEL = 8  # bytes


class NoEstimate(RuntimeError):
    """A trial's memory cannot be told without running it."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a trial takes on its device.

    Attributes:
        state_bytes: parameters, buffers, gradients, the optimizer's state and averaged weights.
        activation_bytes: what the forward pass of one (micro-)batch keeps for its backward pass.
        temporary_bytes: the most that stands beside those and the images while training: of
            backward, of the attack, the best epoch's weights.
        image_bytes: the training and validation images and their labels.
        training_bytes: the peak of training, all of the above together.
        scoring_bytes: the peak of judging epochs and of scoring.
        workspace_bytes: a constant for what kernels allocate inside.
        batch: images in the model at a time when it trains.
    """

    state_bytes: int
    activation_bytes: int
    temporary_bytes: int
    image_bytes: int
    training_bytes: int
    scoring_bytes: int
    workspace_bytes: int
    batch: int

    @property
    def peak_bytes(self) -> int:
        """The most that the whole trial takes."""
        seen = max(self.training_bytes, self.scoring_bytes)
        return math.ceil((1 + UNSEEN) * seen) + self.workspace_bytes


def footprint(
    trial: Trial,
    task: Task,
    *,
    micro_batch: int | None = None,
    device: str = "cpu",
    images: tuple[int, int] | None = None,
    free_bytes: int | None = None,
) -> Footprint:
    """Return the memory that a trial takes, an upper end where it depends on what is learned.

    It takes as long as the Python of two training steps: cache it by architecture, recipe and data.
    Nothing runs on ``device``.

    Args:
        trial: architecture, recipe, data and metrics.
        task: image shape and classes.
        micro_batch: images that are trained on, judged and scored at a time.
        device: ``cpu`` or ``cuda``, where ``precision: auto`` is bf16.
        images: how many there are for training and validation, a byte a pixel; None takes the
            limits of ``trial.data``, without which ``USUAL_IMAGES``.
        free_bytes: of a GPU, half of which batches of scoring fill; None: they have 1,000 images.

    Raises:
        InvalidArchitecture: the architecture does not fit the task.
        NoEstimate: the model or the attack cannot run without values.
        ValueError: an unknown device.
    """
    if device not in WORKSPACE:
        raise ValueError(f"device: expected one of {list(WORKSPACE)}, got {device!r}")
    limit, usual = trial.data.limit, USUAL_IMAGES
    counts = images or (limit.train or usual[0], limit.validation or usual[1])
    pixels = math.prod(task.shape)
    image_bytes = sum(counts) * (pixels + LABEL)
    recipe = trial.recipe
    if device == "cuda" and recipe.precision == "auto":
        recipe = replace(recipe, precision="bf16")
    model = _built(trial, task)
    try:
        with without_values() as live:
            run = Rehearsal(live, emptied(model), task, recipe, micro_batch, device)
            training = run.training(counts[0])
            scoring = run.scoring(trial, counts[1], free_bytes)
    except Exception as error:
        raise NoEstimate(f"no estimate of its memory: {one_line(error)}") from error
    return Footprint(
        run.state_bytes,
        run.activation_bytes,
        training - run.state_bytes - run.activation_bytes,
        image_bytes,
        training + image_bytes,
        scoring + image_bytes,
        WORKSPACE[device],
        run.batch,
    )


def _built(trial: Trial, task: Task) -> nn.Module:
    """Return the model, without memory if its code allows that."""
    space = space_of(trial.architecture).without_files()
    try:
        with torch.device("meta"):
            return space.build(trial.architecture, task)
    except (NotImplementedError, RuntimeError):  # it computes with its weights while it is built
        return space.build(trial.architecture, task)
