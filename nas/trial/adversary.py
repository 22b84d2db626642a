"""The attack that training images are made with, run on a fast copy that follows the model.

Only the input's gradient is wanted, of the model in ``eval()``: batch norms are folded, nothing is
allocated for weights, and on devices that compute bfloat16 fast the attack may run in it. Weights
are trained at the precision of the recipe whatever the attack's is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from metrics.attacks import PGD, Attack
from metrics.attacks.geometry import Randomness
from metrics.attacks.rows import Rows
from metrics.checks import check_images
from metrics.engine.following import Follower, follower
from metrics.precision import full_float32
from nas.trial.precision import attack_precision
from nas.trial.recipe import Recipe

LOOKED_AT = 32  # images on which the copy is compared with the model when it is made
LOOKED_AT_AGAIN = 4  # the same at the start of every epoch
LEVELS = 127  # of a carried perturbation, from 0 to epsilon


class Adversary:
    """Makes adversarial images for one training; called as the attack itself is.

    Attributes:
        attack: the recipe's.
        recipe: how training goes on.
        leaks_labels, draws_by_image: as the attack's.
        precision: that attacks run at now: ``float32``, ``bf16``, or ``as trained``, where the
            model has no fast copy and is attacked itself; empty where none is looked at.
    """

    def __init__(self, attack: Attack, model: nn.Module, images: Tensor, recipe: Recipe) -> None:
        self.attack, self.recipe = attack, recipe
        self.leaks_labels, self.draws_by_image = attack.leaks_labels, attack.draws_by_image
        self._model, self._images = model, images.detach().clone()
        self._follower = self._made()
        self._trusted = False
        self._steps: int | None = None
        self._count = 0
        self._rows: Tensor | None = None
        self._carried: Tensor | None = None

    @property
    def precision(self) -> str:
        if not self.attack.looks_at_model:
            return ""
        if self._follower is None or not self._trusted:
            return "as trained"
        return "float32" if self._follower.dtype == torch.float32 else "bf16"

    def begin_epoch(self, number: int) -> None:
        """Compare the copy with the model, which it may have ceased to follow; count steps."""
        self._trusted = self._follower is not None and self._follower.agrees(
            self._images[:LOOKED_AT_AGAIN]
        )
        self._steps = steps_in_epoch(self.recipe, number)

    def at(self, rows: Tensor, count: int) -> None:
        """Say which of ``count`` training images come next, whose perturbations may be kept."""
        self._rows, self._count = rows, count

    @property
    def steady(self) -> bool:
        """Whether every step attacks alike, so that it can be replayed."""
        settings = self.recipe.early_steps, self.recipe.carry_perturbations
        same = self._trusted or not self.attack.looks_at_model
        return settings == (None, False) and same

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor | None,
        *,
        generator: torch.Generator,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return adversarial images against ``model``, which is the one in training.

        They are those of ``attack(model, images, labels)`` up to rounding: of float32, or of
        bfloat16 where the attack runs in it.
        """
        attack = self._attack(images)
        copy = self._follower
        if not attack.looks_at_model:
            x = check_images(images.detach())
            made = attack.on_ready(model, x, labels, generator, batch_size)
        elif copy is None or not self._trusted:
            made = attack(model, images, labels, generator=generator, batch_size=batch_size)
        else:
            x = check_images(images.detach())
            attack.check_reach(x)
            copy.refresh()
            with full_float32(), torch.inference_mode(False), torch.enable_grad():
                made = attack.on_ready(copy.module, x.clone(), labels, generator, batch_size)
        self._keep(images, made)
        return made

    def _made(self) -> Follower | None:
        """Return the copy at the precision asked for, else in float32, else None."""
        if not self.attack.looks_at_model:
            return None
        precision = attack_precision(self.recipe, self._model, self._images)
        if precision == "bf16":
            made = follower(self._model, self._images, torch.bfloat16)
            if made is not None:
                return made
        return follower(self._model, self._images)

    def _attack(self, images: Tensor) -> Attack:
        """Return the attack of this epoch, beginning where the one before ended if that is kept."""
        attack: Any = self.attack
        if self._steps is not None:
            attack = replace(attack, steps=self._steps)
        if self._rows is not None and self._carried is not None:
            kept = self._carried[self._rows[: len(images)]]
            return _Carried.of(attack, images + attack.epsilon / LEVELS * kept)
        found: Attack = attack
        return found

    def _keep(self, images: Tensor, made: Tensor) -> None:
        if not self.recipe.carry_perturbations or self._rows is None:
            return
        if self._carried is None:
            shape = (self._count, *images.shape[1:])
            self._carried = torch.zeros(shape, dtype=torch.int8, device=images.device)
        steps = (made - images) * (LEVELS / self.attack.epsilon if self.attack.epsilon else 0)
        self._carried[self._rows[: len(images)]] = steps.round().to(torch.int8)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next epoch needs of this one: the perturbations carried on."""
        return {} if self._carried is None else {"carried": self._carried}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        self._carried = state["carried"].clone() if "carried" in state else None


def steps_in_epoch(recipe: Recipe, number: int) -> int | None:
    """Return the attack's steps in an epoch, from 1 on; None where they are always the recipe's.

    They rise linearly from ``early_steps`` in the first epoch to ``steps`` in the last.
    """
    if recipe.early_steps is None:
        return None
    share = (number - 1) / max(1, recipe.epochs - 1)
    return round(recipe.early_steps + share * (recipe.steps - recipe.early_steps))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Carried(PGD):
    """PGD that begins at given images."""

    start: Tensor

    @classmethod
    def of(cls, attack: PGD, start: Tensor) -> _Carried:
        settings = {f.name: getattr(attack, f.name) for f in fields(PGD)}
        return cls(**settings, start=start)

    def begin(self, rows: Rows, random: Randomness) -> None:
        super().begin(rows, random)  # draws as ever, so that what is drawn later stays
        rows.candidate = self.inside(rows, self.start.index_select(0, random.places))
