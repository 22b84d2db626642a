"""What a policy-gradient controller has been taught by a ledger, and what waits to be taught."""

from __future__ import annotations

import bisect
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime

import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from nas.samplers.decisions import Decisions
from nas.samplers.history import History
from nas.samplers.learned import Learned, set_state, state_of
from nas.samplers.policy import Policy, of_answers
from nas.types import FloatArray

Moment = tuple[datetime, int]


@dataclass(eq=False)
class Lesson:
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
class Controller:
    """A policy, what it was taught, and the lessons to come.

    Attributes:
        read: how many of the history's finished trials were noted.
        running: number -> lesson.
        ended: in the order in which they ended.
        values: of all trials that were taught, in that order.
        until: the end of the last of them.
        batches: how many there were.
        digest: of the settings and of all that the batches taught.
    """

    policy: Policy
    optimizer: torch.optim.Optimizer
    digest: str
    batches: int = 0
    read: int = 0
    running: dict[int, Lesson] = field(default_factory=dict)
    ended: list[Lesson] = field(default_factory=list)
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
                self.running[trial.number] = Lesson(answers, (start, trial.number))
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

    def turn_to(self, size: int) -> tuple[list[Lesson], list[Lesson]]:
        """Return the next lessons, and all that have started by their end and lack a credit."""
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
        values = [None if lesson.values is None else lesson.values.tolist() for lesson in batch]
        taught = [
            [str(b.start), str(b.end), b.answers, v] for b, v in zip(batch, values, strict=True)
        ]
        self.digest = hashed([self.digest, taught, [str(lesson.start) for lesson in started]])
        self.batches += 1
        return batch, started

    def learned(self) -> Learned:
        """Return what a file keeps: taken up again, it goes on to the last bit as this does."""
        steps, arrays = state_of(self.optimizer)
        open_ = (*self.running.values(), *self.ended)
        credits = {x.start[1]: x.credit.numpy() for x in open_ if x.credit is not None}
        return Learned(self.digest, self.batches, steps, arrays, credits)

    def take(self, learned: Learned) -> bool:
        """Take up what was learned from the batches turned over; return whether it was."""
        credited = [x for x in (*self.running.values(), *self.ended) if x.credit is not None]
        if self.digest != learned.digest or {x.start[1] for x in credited} != {*learned.credits}:
            return False
        for lesson in credited:
            lesson.credit = torch.from_numpy(learned.credits[lesson.start[1]])
        set_state(self.optimizer, learned)
        return True

    def next_batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next lessons' answers and credits, each ``(size, D)``; an update must follow.

        All that has started by now is credited to the policy as it is.
        """
        batch, started = self.turn_to(size)
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


def hashed(value: object) -> str:
    """Return 64 hex digits over JSON values."""
    return hashlib.sha256(json.dumps(value, default=repr).encode()).hexdigest()
