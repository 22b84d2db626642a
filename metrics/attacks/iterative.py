"""The loop that every iterative attack runs: look at a candidate, drop what is broken, move on.

A look is one forward pass (and, where the attack wants it, one backward pass) over the images that
are left. :meth:`Attack.search` stops at the first look that finds an image misclassified and drops
it from the batch; a call to the attack goes through all steps. An attack writes :meth:`begin`,
where its candidates start, and :meth:`advance`, where they go next.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics.answers import gradient_of, logits_of, misclassified, useless
from metrics.attacks.base import Attack, Found
from metrics.attacks.geometry import Randomness
from metrics.checks import check_logits

TARGETS = ("labels", "least-likely", "runner-up")


class Rows:
    """What an attack knows of the images that are left, one row an image in every tensor.

    Always there: ``x`` (the images), ``labels``, ``aim`` (the class that the loss is taken of) and
    ``candidate`` (what is looked at next). An attack adds its own.
    """

    def __init__(self, **tensors: Tensor) -> None:
        vars(self).update(tensors)

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Tensor) -> None:
        vars(self)[name] = value

    def keep(self, kept: Tensor) -> None:
        """Drop the rows where ``kept`` ``(N,)`` is False."""
        for name, tensor in vars(self).items():
            vars(self)[name] = tensor[kept]


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """An attack in steps, from one or several starts."""

    returns_best: ClassVar[bool] = False  # of all candidates looked at, else the last one

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
        """Return ``(N,)``: what the attack wants large."""
        loss = functional.cross_entropy(logits, aim, reduction="none")
        return loss if self.towards is None else -loss

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return _Hunt(self, model, x, labels, generator, stop=False).run().images

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
        *,
        early_exit: bool = True,
    ) -> Found:
        if self.towards == "labels":
            raise ValueError(
                "target: expected least-likely or runner-up, whose classes are chosen here, "
                "got labels: the labels of an evaluation are the true ones"
            )
        found = _Hunt(self, model, x, labels, generator, stop=early_exit).run()
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
        generator: torch.Generator | None,
        *,
        stop: bool,
    ) -> None:
        self.attack, self.model, self.x, self.stop = attack, model, x, stop
        self.labels = labels
        self.aim = labels if attack.towards in (None, "labels") else None
        self.random = Randomness(x, generator)
        self.judges = stop or attack.returns_best  # at every look; else at the last, if at all
        self.strength = torch.full((len(x),), -torch.inf, device=x.device)
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.found = Found(x.clone(), none, none.clone(), none.clone())

    def run(self) -> Found:
        everything = torch.arange(len(self.x), device=self.x.device)
        for start in range(self.attack.starts):
            self.random.rows = everything[~self.found.broken] if self.stop else everything
            if len(self.random.rows):
                self._run_from(start)
        return self.found

    def _run_from(self, start: int) -> None:
        attack = self.attack
        rows = self._begin()
        for step in range(attack.looks + 1):
            last = step == attack.looks
            if last and not self.judges and attack.starts == 1:
                self.found.images[self.random.rows] = rows.candidate
                return
            self._look(rows, attack.uses_gradients and not last, first=start == step == 0)
            if self.judges or last:
                self._judge(rows)
            if len(rows.x) == 0:
                return
            if not last:
                attack.advance(rows, step, self.random)
        if self.stop:
            self.found.images[self.random.rows] = rows.candidate

    def _begin(self) -> Rows:
        index = self.random.rows
        x = self.x if len(index) == len(self.x) else self.x[index]
        rows = Rows(x=x, candidate=x)
        self.attack.begin(rows, self.random)
        if (self.labels is None or self.aim is None) and rows.candidate is not x:
            self._choose_classes(logits_of(self.model, x))
        for name, classes in (("labels", self.labels), ("aim", self.aim)):
            if classes is not None:
                setattr(rows, name, classes[index])
        return rows

    def _look(self, rows: Rows, wants_gradient: bool, *, first: bool) -> None:
        """Set ``rows.logits``, ``rows.losses`` and ``rows.gradient`` of the candidates."""
        with torch.set_grad_enabled(wants_gradient):
            candidate = rows.candidate.detach().requires_grad_(wants_gradient)
            # A copy, for a model that writes to its input.
            logits = self.model(candidate.clone()).float()
            if self.labels is None or self.aim is None:  # all rows are there: the first look
                self._choose_classes(logits.detach())
                assert self.labels is not None
                assert self.aim is not None
                rows.labels, rows.aim = self.labels, self.aim
            elif first:
                check_logits(logits, rows.labels)
            losses = self.attack.losses(logits, rows.aim)
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
        none = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        check_logits(logits, none if self.labels is None else self.labels)
        if self.labels is None:
            self.labels = logits.argmax(dim=1)
        if self.attack.towards == "least-likely":
            self.aim = logits.argmin(dim=1)
        elif self.attack.towards == "runner-up":
            others = logits.scatter(1, self.labels[:, None], -torch.inf)
            self.aim = others.argmax(dim=1)
        else:
            self.aim = self.labels

    def _judge(self, rows: Rows) -> None:
        """Keep what is stronger than what was found; drop what is broken, if asked to stop."""
        if self.attack.towards == "labels":
            fooled = rows.logits.argmax(dim=1) == rows.labels
        else:
            fooled = misclassified(rows.logits, rows.labels)
        index = self.random.rows
        if not self.stop:
            strength = rows.losses.masked_fill(fooled, torch.inf)
            fooled = strength > self.strength[index]  # NaN is not
            self.strength[index] = torch.where(fooled, strength, self.strength[index])
        if fooled.any():
            self.found.images[index[fooled]] = rows.candidate[fooled]
            if self.stop:
                self.found.broken[index[fooled]] = True
                rows.keep(~fooled)
                self.random.rows = index[~fooled]


def check_target(target: str | None) -> None:
    """Raise ValueError for an unknown target."""
    if target is not None and target not in TARGETS:
        raise ValueError(f"target: expected None or one of {list(TARGETS)}, got {target!r}")


def check_counts(**counts: int) -> None:
    """Raise ValueError for a number of steps, restarts, ... below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"expected {name} >= 1, got {count}")
