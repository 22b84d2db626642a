"""A policy-gradient controller: a recurrent policy that is taught by how its proposals fared.

Zoph and Le 2017 (REINFORCE); Zoph et al. 2018 and Cubuk et al. 2017 (PPO, Schulman et al. 2017).
What it has learned follows from the seed and the ledger alone: trials are taught in batches in the
order in which they ended, and each is credited to the policy that was in force when it started.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial
from scipy.stats import rankdata
from torch import Tensor

from nas.samplers.base import LedgerSampler, scalarise
from nas.samplers.decisions import Decisions
from nas.samplers.history import History
from nas.samplers.policy import Policy, of_answers
from nas.types import FloatArray

Moment = tuple[datetime, int]

ALGORITHMS = ("ppo", "reinforce")
SETTLED = 20  # repeats in a row
FARTHEST = 2.0  # log of the largest ratio: that of somebody else's trial would overflow
REDRAWS = 10  # of a proposal that is known: it costs a search nothing and teaches it little


class ReinforceSampler(LedgerSampler):
    """Proposes what a policy draws that is taught by policy gradients.

    The reward of a trial is its rank among all that have ended by then, so neither the unit nor
    the scale of an objective matters; several objectives are first joined by :func:`scalarise` with
    equal weights. A trial that failed or was stopped early has no values and ranks lowest, so the
    policy learns to avoid it. A repeated architecture is a trial like any other, as is one that
    somebody else proposed. The advantage is the reward less its moving average, divided by the
    moving standard deviation.

    Optuna tells when a trial was asked for, not when it chose: one that is updated in between is
    credited to the older policy, and has all batches taught again.

    A proposal that is known already is drawn again, ten times at most. After twenty known ones in a
    row one choice is changed: a policy that has settled would end the search.

    Args:
        decisions: see :class:`LedgerSampler`.
        seed: also draws the initial weights.
        algorithm: ``ppo``, or ``reinforce``: one step a batch, for which ``batch_size=1`` is best.
        hidden_units: of the LSTM.
        learning_rate: of Adam.
        entropy_weight: of the mean entropy of a decision, in nats, in what is maximised.
        baseline_decay: of the moving averages, a trial.
        batch_size: trials an update.
        epochs: steps that ``ppo`` makes on each batch.
        clip: how far from 1 the probability ratio of a decision may go before ``ppo`` ignores it.

    Raises:
        ValueError: an unknown algorithm or a setting out of range.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        algorithm: str = "ppo",
        hidden_units: int = 100,
        learning_rate: float = 3.5e-4,
        entropy_weight: float = 0.03,
        baseline_decay: float = 0.95,
        batch_size: int = 5,
        epochs: int = 20,
        clip: float = 0.2,
    ) -> None:
        super().__init__(decisions, seed)
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected one of {list(ALGORITHMS)}, got {algorithm!r}")
        for name, count in (
            ("hidden_units", hidden_units),
            ("batch_size", batch_size),
            ("epochs", epochs),
        ):
            if count < 1:
                raise ValueError(f"{name}: expected >= 1, got {count}")
        for name, number in (("learning_rate", learning_rate), ("clip", clip)):
            if not number > 0:
                raise ValueError(f"{name}: expected > 0, got {number}")
        if not entropy_weight >= 0:
            raise ValueError(f"entropy_weight: expected >= 0, got {entropy_weight}")
        if not 0 < baseline_decay <= 1:
            raise ValueError(f"baseline_decay: expected a share in (0, 1], got {baseline_decay}")
        self._algorithm = algorithm
        self._hidden_units = hidden_units
        self._learning_rate = learning_rate
        self._entropy_weight = entropy_weight
        self._baseline_decay = baseline_decay
        self._batch_size = batch_size
        self._epochs = epochs
        self._clip = clip
        self._controller: _Controller | None = None

    def forget(self) -> None:
        self._controller = None

    def propose(self, history: History, rng: np.random.Generator) -> dict[str, Any]:
        policy = self._taught(history).policy
        for _ in range(1 + REDRAWS):
            answers = zip(history.decisions.items(), policy.sample(rng), strict=True)
            params = {name: choices[answer] for (name, choices), answer in answers}
            if history.decisions.key(params) not in history.known:
                return params
        latest = history.finished[-SETTLED:]
        if len(latest) == SETTLED and all(seen.repeat for seen in latest):
            changed = history.near(params, rng)
            return changed if history.decisions.key(changed) not in history.known else params
        return params

    def _taught(self, history: History) -> _Controller:
        """Return the controller after every whole batch of trials that have ended."""
        if self._controller is None or not self._controller.note(history):
            self._controller = self._begin(history.decisions)
            self._controller.note(history)
        while len(self._controller.ended) >= self._batch_size:
            self._teach(self._controller)
        return self._controller

    def _begin(self, decisions: Decisions) -> _Controller:
        sizes = [len(choices) for choices in decisions.values()]
        generator = torch.Generator().manual_seed(self._seed)
        policy = Policy(sizes, self._hidden_units, generator)
        optimizer = torch.optim.Adam(policy.parameters, lr=self._learning_rate, fused=True)
        return _Controller(policy, optimizer)

    def _teach(self, controller: _Controller) -> None:
        """Update the policy by the next batch."""
        answers, before = controller.next_batch(self._batch_size)
        gained = advantages(controller.values, self._baseline_decay)[-self._batch_size :]
        advantage = torch.tensor(gained, dtype=torch.float32)[:, None]
        for _ in range(self._epochs if self._algorithm == "ppo" else 1):
            log_p = controller.policy.log_probabilities(answers)
            entropy = -(log_p.exp() * log_p).sum(dim=2)
            chosen = of_answers(log_p, answers)
            gain = chosen * advantage
            if self._algorithm == "ppo":
                ratio = (chosen - before).clamp(max=FARTHEST).exp()
                near = ratio.clamp(1 - self._clip, 1 + self._clip)
                gain = torch.minimum(ratio * advantage, near * advantage)
            controller.optimizer.zero_grad()
            (-gain - self._entropy_weight * entropy).mean().backward()
            controller.optimizer.step()


@dataclass(eq=False)
class _Lesson:
    """A trial that runs, or has ended and is not yet taught.

    Attributes:
        answers: ``(D,)``, choices by index.
        start: when, and the trial's number.
        end: the same of its end; far off while it runs.
        values: of the ended, if it has some.
        credit: ``(D,)``, log p of every answer by the policy that was in force when the trial
            started; None while that policy still is.
    """

    answers: list[int]
    start: Moment
    end: Moment = (datetime.max, 0)
    values: FloatArray | None = None
    credit: Tensor | None = None


@dataclass(eq=False)
class _Controller:
    """A policy, what it was taught, and the lessons to come.

    Attributes:
        read: how many of the history's finished trials were noted.
        running: number -> lesson.
        ended: in the order in which they ended.
        values: of all trials that were taught, in that order.
        until: the end of the last of them.
    """

    policy: Policy
    optimizer: torch.optim.Optimizer
    read: int = 0
    running: dict[int, _Lesson] = field(default_factory=dict)
    ended: list[_Lesson] = field(default_factory=list)
    values: list[FloatArray | None] = field(default_factory=list)
    until: Moment = (datetime.min, 0)

    def note(self, history: History) -> bool:
        """Note what has started and ended; return whether all that was news to those taught.

        It is not where another process wrote meanwhile of a time before the last update.
        """
        ended = history.finished[self.read :]
        self.read = len(history.finished)
        for trial in (*history.running(), *(seen.trial for seen in ended)):
            answers = _answers(trial, history.decisions)
            start = trial.datetime_start or trial.datetime_complete
            if trial.number not in self.running and answers is not None and start is not None:
                self.running[trial.number] = _Lesson(answers, (start, trial.number))
        for seen in ended:
            lesson = self.running.pop(seen.trial.number, None)
            if lesson is not None and seen.trial.datetime_complete is not None:
                lesson.end = (seen.trial.datetime_complete, seen.trial.number)
                lesson.values = seen.values
                bisect.insort(self.ended, lesson, key=lambda lesson: lesson.end)
        return not any(
            lesson.end < self.until or (lesson.credit is None and lesson.start[0] < self.until[0])
            for lesson in (*self.running.values(), *self.ended)
        )

    def next_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next lessons' answers and credits, each ``(size, D)``; an update must follow.

        All that has started by now is credited to the policy as it is.
        """
        batch, self.ended = self.ended[:size], self.ended[size:]
        self.until = batch[-1].end
        self.values += [lesson.values for lesson in batch]
        started = [
            lesson
            for lesson in (*batch, *self.ended, *self.running.values())
            if lesson.credit is None
            and (lesson.start[0] < self.until[0] or lesson.end <= self.until)
        ]
        started.sort(key=lambda lesson: lesson.start)
        if started:  # none where all of the batch began before the last update
            answers = torch.tensor([lesson.answers for lesson in started])
            with torch.no_grad():
                log_p = self.policy.log_probabilities(answers)
            for lesson, credit in zip(started, of_answers(log_p, answers), strict=True):
                lesson.credit = credit
        credits = [lesson.credit for lesson in batch if lesson.credit is not None]  # of all
        return torch.tensor([lesson.answers for lesson in batch]), torch.stack(credits)


def _answers(trial: FrozenTrial, decisions: Decisions) -> list[int] | None:
    """Return choices by index; None of a trial that has other choices, or none yet."""
    try:
        return [choices.index(trial.params[name]) for name, choices in decisions.items()]
    except (KeyError, ValueError):
        return None


def advantages(values: Sequence[FloatArray | None], decay: float) -> FloatArray:
    """Return by how many deviations each trial ranks above the moving average.

    Args:
        values: of trials in the order in which they ended, larger is better; None ranks lowest.
        decay: of the weight of a trial, a trial later.

    Returns:
        ``(n,)``; all 0 where no trial differs from another.
    """
    scored = [value for value in values if value is not None]
    if not scored:
        return np.zeros(len(values))
    joined = scalarise(np.stack(scored), np.full(len(scored[0]), 1 / len(scored[0])))
    rewards = np.full(len(values), joined.min())
    rewards[[value is not None for value in values]] = joined
    ranks = rankdata(rewards)
    weights = decay ** np.arange(len(values))[::-1]
    above = ranks - np.average(ranks, weights=weights)
    deviation = np.sqrt(np.average(above**2, weights=weights))
    # Ranks that differ do so by half or more: what is left below is rounding, or long ago.
    return above / deviation if deviation > 1e-6 else np.zeros(len(values))
