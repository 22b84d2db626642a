"""A policy-gradient controller: a recurrent policy that is taught by how its proposals fared.

Zoph and Le 2017 (REINFORCE); Zoph et al. 2018 and Cubuk et al. 2017 (PPO, Schulman et al. 2017).
What it has learned follows from the seed and the ledger alone: trials are taught in batches in the
order in which they ended, and each is credited to the policy that was in force when it started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from nas.samplers.base import LedgerSampler, scalarise
from nas.samplers.controller import Controller, hashed
from nas.samplers.history import History
from nas.samplers.learned import load, save
from nas.samplers.policy import Policy, of_answers
from nas.types import FloatArray

ALGORITHMS = ("ppo", "reinforce")
SETTLED = 20  # repeats in a row
FARTHEST = 2.0  # log of the largest ratio: that of somebody else's trial would overflow
LEARNED, KEPT = "sampler.npz", 20  # the file; batches from one writing of it to the next
NOT_YET = torch.empty(0)  # a credit that the file has
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
        self._controller: Controller | None = None
        self._file: Path | None = None

    def keep_in(self, folder: Path) -> None:
        self._file = folder / LEARNED

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

    def _taught(self, history: History) -> Controller:
        """Return the controller after every whole batch of trials that have ended."""
        if self._controller is None or not self._controller.note(history):
            self._controller = self._recalled(history) or self._begin(history)
        while len(self._controller.ended) >= self._batch_size:
            self._teach(self._controller)
            if self._file is not None and self._controller.batches % KEPT == 0:
                save(self._file, self._controller.learned())
        return self._controller

    def _recalled(self, history: History) -> Controller | None:
        """Return the controller as it was kept, if it was taught by the batches of this ledger."""
        learned = None if self._file is None else load(self._file)
        if learned is None:
            return None
        controller = self._begin(history)
        while controller.batches < learned.batches:
            if len(controller.ended) < self._batch_size:
                return None
            for lesson in controller.turn_to(self._batch_size)[1]:
                lesson.credit = NOT_YET
        return controller if controller.take(learned) else None

    def _begin(self, history: History) -> Controller:
        """Return a controller that has noted the ledger and is taught nothing."""
        decisions = history.decisions
        sizes = [len(choices) for choices in decisions.values()]
        generator = torch.Generator().manual_seed(self._seed)
        policy = Policy(sizes, self._hidden_units, generator)
        optimizer = torch.optim.Adam(policy.parameters, lr=self._learning_rate, fused=True)
        settings = [self._seed, self._algorithm, self._hidden_units, self._learning_rate,
                    self._entropy_weight, self._baseline_decay, self._batch_size, self._epochs,
                    self._clip, list(decisions.items())]  # fmt: skip
        controller = Controller(policy, optimizer, digest=hashed(settings))
        controller.note(history)
        return controller

    def _teach(self, controller: Controller) -> None:
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
