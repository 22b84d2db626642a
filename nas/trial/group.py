"""Several processes that train one model: data parallelism, written out.

All of them do the same, with the same random numbers, but for their rows of every batch: each
attacks and back-propagates its own, gradients are summed, each image counting the same, and each
takes the same step. So without batch norm the weights are those of one process up to rounding.
Batch norm normalises by a process's own rows (as Goyal et al. 2017); its running statistics are
averaged over processes in every step, so that all of them attack one and the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _NormBase

from metrics.attacks import Attack
from metrics.attacks.geometry import drawn_among
from nas.trial.adversary import Adversary
from nas.trial.recipe import Recipe

FEWEST = 2  # images of a batch that a process has, or none: batch norm has no variance of one
T = TypeVar("T")


class Watch(Protocol):
    """Who looks after the other processes."""

    def waits(self) -> None:
        """Note that the others are waited for; raise where one of them is gone."""

    def lost(self, error: Exception) -> BaseException:
        """Return what became of the others, of whom torch gave an error."""


@dataclass(frozen=True)
class Group:
    """The processes that train one model, as one of them sees them.

    Attributes:
        rank: of this process; 0 judges and reports.
        size: how many there are.
        watch: who looks after the others.
    """

    rank: int = 0
    size: int = 1
    watch: Watch | None = None

    def check(self, recipe: Recipe) -> None:
        """Raise ValueError for a recipe that several processes do not train as one would."""
        if self.size == 1:
            return
        if recipe.awp:
            raise ValueError(
                f"awp: expected 0 where {self.size} processes train a trial, got {recipe.awp:g}: "
                "each would perturb weights by its own images"
            )
        if recipe.carry_perturbations:
            raise ValueError(
                f"carry_perturbations: expected false where {self.size} processes train a trial, "
                "got true: images go to another process in every epoch"
            )

    def part(self, count: int) -> Part | None:
        """Return which rows of a batch of ``count`` images are this process's; None: all."""
        if self.size == 1:
            return None
        taking = max(1, min(self.size, count // FEWEST))
        return Part(self, self.rank, taking, count)

    def summed(self, model: nn.Module, loss: Tensor, part: Part | None) -> Tensor:
        """Sum gradients and losses over the processes, and average batch norm's statistics.

        A parameter that has no gradient here has one of zero afterwards.

        Args:
            model: whose ``.grad`` are of this process's rows, as their share of the batch's.
            loss: the same.
            part: the rows.

        Returns:
            The loss of the batch.
        """
        if part is None:
            return loss
        for p in model.parameters():
            if p.requires_grad and p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        kept = _statistics(model)
        for statistic in kept:
            statistic.mul_(part.share)
        loss = loss.reshape(1).clone()
        tensors = [*gradients, *kept, loss]
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in same])
            self._together(lambda flat=flat: distributed.all_reduce(flat))  # type: ignore[misc]
            for tensor, piece in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(piece.view_as(tensor))
        return loss[0]

    def copied(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.size == 1:
            return
        for tensor in tensors:
            flat = tensor.detach().contiguous()
            self._together(lambda flat=flat: distributed.broadcast(flat, 0))  # type: ignore[misc]
            if flat.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(flat)

    def told(self, value: T) -> T:
        """Return the first process's value, which is pickled on its way; the others wait for it."""
        if self.size == 1:
            return value
        box = [value if self.rank == 0 else None]
        cpu = torch.device("cpu")
        self._together(lambda: distributed.broadcast_object_list(box, 0, device=cpu))
        found: T = box[0]  # type: ignore[assignment]
        return found

    def same_draws(self, generator: torch.Generator) -> None:
        """Let a generator go on as in the first process."""
        if self.size > 1:
            generator.set_state(self.told(generator.get_state()))

    def _together(self, work: Callable[[], object]) -> None:
        if self.watch is not None:
            self.watch.waits()
        try:
            work()
        except (RuntimeError, ValueError) as error:  # the latter of a group that was aborted
            if self.watch is None:
                raise
            raise self.watch.lost(error) from error


ALONE = Group()


@dataclass(frozen=True)
class Part:
    """The rows of a batch that a process has: every ``taking``-th, from its own rank on.

    So each has as many of the first rows, which are attacked, as the others.

    Attributes:
        group: of the process.
        rank: of the process; from ``taking`` on it has none.
        taking: how many processes have some: as many as have :data:`FEWEST`, and one at least.
        of: images of the batch.
    """

    group: Group
    rank: int
    taking: int
    of: int

    @property
    def share(self) -> float:
        """The share of the batch that these rows are."""
        return len(self.among(self.of)) / self.of

    def among(self, first: int) -> range:
        """Return which of the first rows of the batch are this process's."""
        return range(self.rank, first, self.taking) if self.rank < self.taking else range(0)

    def take(self, tensor: Tensor) -> Tensor:
        """Return this process's rows of a batch's ``tensor``."""
        rows = self.among(self.of)
        return tensor[rows.start : rows.stop : rows.step].contiguous()

    def attacked(
        self,
        attack: Attack | Adversary,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        first: int,
        *,
        generator: torch.Generator,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return adversarial images of this process's rows among the first of the batch.

        Each has the random numbers that it has where one process attacks all of them. An attack
        that draws for whole batches does so for each process, by numbers of its own.

        Args:
            attack: any, or what is called as one.
            model: see :class:`Attack`.
            x: these rows, ``(len(among(first)), C, H, W)``.
            labels: the same, or None.
            first: rows of the batch that are attacked, by all processes.
            generator: the same in all processes, before and after; but for those that have no rows
                of a batch, whose go on with the others' in the next epoch.
            batch_size: images at a time.
        """
        rows = self.among(first)
        if not attack.draws_by_image:
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            own = torch.Generator(generator.device).manual_seed(int(seed) + self.rank)
            if not rows:
                return x
            return attack(model, x, labels, generator=own, batch_size=batch_size)
        if rows:
            places = torch.arange(rows.start, rows.stop, rows.step, device=x.device)
            with drawn_among(places, first):
                x = attack(model, x, labels, generator=generator, batch_size=batch_size)
        if first < self.group.size:
            self.group.same_draws(generator)  # a process without such rows has drawn nothing
        return x


def _statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances that a step of training changes."""
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.training]
    both = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in both if statistic is not None]
