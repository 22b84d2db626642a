"""The second of two processes: it trains what the first one, a test, sends it, case by case."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from nas.errors import Diverged
from nas.trial.group import Group
from nas.trial.team import join
from nas.trial.training import drain, train


class Alone:
    """Raises what torch says of the other process."""

    def waits(self):
        """Do nothing."""

    def lost(self, error):
        """Return the error."""
        return error


def serve(place: Path) -> None:
    """Train case after case, and leave the weights beside the meeting place."""
    torch.set_num_threads(1)
    join(place, 1, 2, torch.device("cpu"))
    group = Group(1, 2, Alone())
    while (case := group.told(None)) is not None:
        model, data, recipe, seed, micro_batch = case
        torch.nn.init.zeros_(next(model.parameters()))  # the first one's weights count
        generator = torch.Generator().manual_seed(seed)
        steps = train(
            model, data, recipe, recipe.attack(), generator, micro_batch=micro_batch, group=group
        )
        try:
            training = drain(steps)
        except Diverged:
            continue
        torch.save((training.last_weights, training.epochs), place / "other.pt")
        group.told(None)  # it is written


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
