"""What training does so that the host need not wait for a GPU in every step.

A GPU computes behind the host, which stays ahead as long as it asks for no number. Training asks
whether images and labels are what they should be, once before its first step, and whether a loss is
finite, every :data:`CHECK_EVERY` steps and on a GPU so many steps late.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nas.data.arrays import Data
from nas.errors import Diverged

CHECK_EVERY = 16  # steps between looks at the loss


class LossWatch:
    """Looks at the losses of one epoch.

    On a GPU a loss is copied to the host behind the step that it is of, and looked at with the
    next one: the host waits only where it is :data:`CHECK_EVERY` steps ahead.

    Args:
        epoch: for the message.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._copied: tuple[int, Tensor, torch.cuda.Event] | None = None

    def note(self, step: int, loss: Tensor) -> None:
        """Look at a loss, or begin to; ``step`` is 0 for the first of the epoch.

        Raises:
            Diverged: it, or on a GPU the one before it, is not finite.
        """
        if step % CHECK_EVERY:
            return
        if not loss.is_cuda:
            self._check(step, loss)
            return
        if self._copied is not None:
            earlier, copy, event = self._copied
            event.synchronize()
            self._check(earlier, copy)
        copy, event = loss.to("cpu", non_blocking=True), torch.cuda.Event()
        event.record()
        self._copied = step, copy, event

    def _check(self, step: int, loss: Tensor) -> None:
        if not math.isfinite(value := loss.item()):
            raise Diverged(f"the loss is {value} in epoch {self._epoch}, step {step + 1}")


def values_fine(data: Data) -> bool:
    """Whether training images are in [0, 1] and labels of the task: attacks need not look then.

    Augmented images stay in [0, 1]. What is not fine an attack puts right, or refuses in its own
    words.
    """
    pixels, labels = data.train.pixels, data.train.labels
    fine = (labels >= 0).all() & (labels < data.task.classes).all()
    if pixels.dtype != torch.uint8:
        low, high = pixels.aminmax()
        fine = fine & (low >= 0) & (high <= 1)
    return bool(fine.item())
