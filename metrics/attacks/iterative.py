"""The loop that every iterative attack runs: look at a candidate, drop what is broken, move on.

A look is one forward pass (and, where the attack wants it, one backward pass) over the images that
are left. :meth:`Attack.search` stops at the first look that finds an image misclassified and drops
it from the batch; a call to the attack goes through all steps. An attack writes :meth:`begin`,
where its candidates start, and :meth:`advance`, where they go next.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.answers import (
    answer,
    gradient_of,
    logits_of,
    margin_loss,
    misclassified,
    temperatures,
    useless,
)
from metrics.attacks.base import Attack, Found
from metrics.attacks.geometry import Randomness, column
from metrics.attacks.rows import Rows, unbeaten
from metrics.checks import check_classes

TARGETS = ("labels", "least-likely", "runner-up")


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """An attack in steps, from one or several starts."""

    draws_by_image: ClassVar[bool] = True
    returns_best: ClassVar[bool] = False  # of all candidates looked at, else the last one

    @property
    def rivals(self) -> int:
        """How many other classes it goes towards where ``towards`` is ``others``, a start each."""
        return 1

    @property
    @abstractmethod
    def looks(self) -> int:
        """How many candidates are made in one start, the first aside."""

    @property
    def starts(self) -> int:
        """How often to begin."""
        return 1

    @abstractmethod
    def begin(self, rows: Rows, random: Randomness) -> None:
        """Set ``rows.candidate``, which is ``rows.x`` itself on entry."""

    @abstractmethod
    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        """Set ``rows.candidate`` to what is looked at next.

        Args:
            rows: the images that are left, with ``logits`` and ``losses`` of the last look, and
                its ``gradient`` (zero where it was not finite) if the attack uses gradients.
            step: 0 after the look at the start.
            random: random numbers.
        """

    def losses(self, logits: Tensor, aim: Tensor) -> Tensor:
        """Return ``(N,)``: what the attack wants large.

        Args:
            logits: over the temperatures of the first look (:func:`metrics.answers.temperatures`).
            aim: the class that the loss is taken of.
        """
        loss = margin_loss(logits, aim)
        return loss if self.towards is None else -loss

    def losses_of(self, rows: Rows, logits: Tensor) -> Tensor:
        """Return :meth:`losses` of these rows, for an attack that needs to know more of them."""
        return self.losses(logits, rows.aim)

    def wants_gradient(self, step: int) -> bool:
        """Whether :meth:`advance` of this step needs the gradient of the look before it."""
        return self.uses_gradients

    def breaks(self, rows: Rows) -> Tensor:
        """Return ``(rows,)`` bool: candidates that are misclassified, and may count as found."""
        return misclassified(rows.logits, rows.labels)

    def strength(self, rows: Rows, fooled: Tensor) -> Tensor:
        """Return ``(rows,)``: the candidate of each image for which this is largest is kept."""
        return rows.losses.masked_fill(fooled, torch.inf)

    def cut(self, x: Tensor, images: Tensor) -> Tensor:
        """Return what was kept, moved into the ball, for an attack that looks outside it."""
        return images

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return self.perturb_rows(model, x, labels, Randomness(x, generator))

    def perturb_rows(
        self, model: nn.Module, x: Tensor, labels: Tensor | None, random: Randomness
    ) -> Tensor:
        return _Hunt(self, model, x, labels, random, stop=False).run().images

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        random: Randomness,
        *,
        early_exit: bool = True,
    ) -> Found:
        if self.towards == "labels":
            raise ValueError(
                "target: expected least-likely or runner-up, whose classes are chosen here, "
                "got labels: the labels of an evaluation are the true ones"
            )
        found = _Hunt(self, model, x, labels, random, stop=early_exit).run()
        if early_exit:
            return found
        return replace(found, broken=misclassified(logits_of(model, found.images), labels))


class _Hunt:
    """One call of an iterative attack on one batch."""

    def __init__(
        self,
        attack: Iterative,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        random: Randomness,
        *,
        stop: bool,
    ) -> None:
        self.attack, self.model, self.x, self.stop = attack, model, x, stop
        self.labels = labels
        self.temperatures: Tensor | None = None
        self.aim = labels if attack.towards in (None, "labels") else None
        self.others: Tensor | None = None  # classes to go towards, a column for each start
        self.random = random
        self.judges = stop or attack.returns_best  # at every look; else at the last, if at all
        self.strength = unbeaten(x)
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.found = Found(x.clone(), none, none.clone(), none.clone())

    def run(self) -> Found:
        everything = self.random.rows
        for start in range(self.attack.starts):
            if start and self.stop:
                self.random.keep((~self.found.broken).nonzero().squeeze(1))
            elif start:
                self.random.rows = everything
            if len(self.random.rows) and self._aimed(start):
                self._run_from(start)
        return replace(self.found, images=self.attack.cut(self.x, self.found.images))

    def _aimed(self, start: int) -> bool:
        """Aim at this start's class; False where there are not so many."""
        if self.others is None:  # one class for all starts, or the first look has yet to tell
            return True
        rank = start % self.attack.rivals
        if rank < self.others.shape[1]:
            self.aim = self.others[:, rank]
        return rank < self.others.shape[1]

    def _run_from(self, start: int) -> None:
        attack = self.attack
        rows = self._begin()
        for step in range(attack.looks + 1):
            last = step == attack.looks
            if last and not self.judges and attack.starts == 1:
                self.found = replace(self.found, images=rows.candidate)
                return
            self._look(rows, attack.wants_gradient(step) and not last, first=start == step == 0)
            if self.stop:
                self._drop(rows)
            elif self.judges or last:
                self._judge(rows)
            if len(rows.x) == 0:
                return
            if not last:
                attack.advance(rows, step, self.random)
        if self.stop:
            self.found.images.index_copy_(0, self.random.rows, rows.candidate)

    def _begin(self) -> Rows:
        index = self.random.rows
        x = self.x if len(index) == len(self.x) else self.x.index_select(0, index)
        rows = Rows(x=x, candidate=x)
        self.attack.begin(rows, self.random)
        if (self.labels is None or self.aim is None) and rows.candidate is not x:
            self._choose_classes(logits_of(self.model, x))
        for name in ("labels", "aim", "temperatures"):
            known = getattr(self, name)
            if known is not None:  # else from the first look on, at which all rows are there
                setattr(rows, name, known.index_select(0, index))
        return rows

    def _look(self, rows: Rows, wants_gradient: bool, *, first: bool) -> None:
        """Set ``rows.logits``, ``rows.losses`` and ``rows.gradient`` of the candidates."""
        with torch.set_grad_enabled(wants_gradient):
            candidate = rows.candidate.detach().requires_grad_(wants_gradient)
            logits = answer(self.model, candidate)
            if self.labels is None or self.aim is None:  # all rows are there: the first look
                self._choose_classes(logits.detach())
                assert self.labels is not None
                assert self.aim is not None
                rows.labels, rows.aim = self.labels, self.aim
            elif first and not self.stop:  # a search has looked at its labels before
                check_classes(logits, rows.labels)
            if self.temperatures is None:
                self.temperatures = temperatures(logits)
                rows.temperatures = self.temperatures
            losses = self.attack.losses_of(rows, logits / rows.temperatures)
            if wants_gradient:
                gradient = gradient_of(losses.sum(), candidate)
                if first:
                    zero, nonfinite = useless(gradient)
                    self.found = replace(
                        self.found, zero_gradients=zero, nonfinite_gradients=nonfinite
                    )
                # The sign of NaN is no direction, and a NaN image no adversarial one.
                rows.gradient = gradient.nan_to_num(0, 0, 0)
        rows.logits, rows.losses = logits.detach(), losses.detach()

    def _choose_classes(self, logits: Tensor) -> None:
        """Fill in the label that the model gives, and the class that the attack goes towards."""
        if self.labels is None:
            self.labels = logits.argmax(dim=1)
        elif not self.stop:
            check_classes(logits, self.labels)
        if self.attack.towards == "least-likely":
            self.aim = logits.argmin(dim=1)
        elif self.attack.towards == "runner-up":
            others = logits.scatter(1, self.labels[:, None], -torch.inf)
            self.aim = others.argmax(dim=1)
        elif self.attack.towards == "others":
            others = logits.scatter(1, self.labels[:, None], -torch.inf)
            count = max(min(self.attack.rivals, logits.shape[1] - 1), 1)
            self.others = others.topk(count, dim=1).indices
            self.aim = self.others[:, 0]
        else:
            self.aim = self.labels

    def _drop(self, rows: Rows) -> None:
        """Keep what is broken, and drop it from the rows; one look at the device."""
        fooled = self.attack.breaks(rows)
        count = int(fooled.sum())
        if count:
            order = fooled.int().argsort(stable=True)  # those that still stand, then the broken
            broken, standing = order[-count:], order[:-count]
            at = self.random.rows.index_select(0, broken)
            self.found.images.index_copy_(0, at, rows.candidate.index_select(0, broken))
            self.found.broken.index_fill_(0, at, True)
            rows.keep(standing)
            self.random.keep(self.random.rows.index_select(0, standing))

    def _judge(self, rows: Rows) -> None:
        """Keep what is stronger than what was found: what fools, else what has the larger loss."""
        if self.attack.towards == "labels":
            fooled = rows.logits.argmax(dim=1) == rows.labels
        else:
            fooled = misclassified(rows.logits, rows.labels)
        strength = self.attack.strength(rows, fooled)
        stronger = strength > self.strength  # NaN is not
        self.strength = torch.where(stronger, strength, self.strength)
        images = torch.where(column(stronger), rows.candidate, self.found.images)
        self.found = replace(self.found, images=images)


def check_target(target: str | None) -> None:
    """Raise ValueError for an unknown target."""
    if target is not None and target not in TARGETS:
        raise ValueError(f"target: expected None or one of {list(TARGETS)}, got {target!r}")


def check_counts(**counts: int) -> None:
    """Raise ValueError for a number of steps, restarts, ... that is no integer, or below 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral):
            raise ValueError(f"{name}: expected an integer >= 1, got {count!r}")
        if count < 1:
            raise ValueError(f"expected {name} >= 1, got {count}")
