"""How many trials a GPU pay is found by trials whose speed we set; without Ray."""

from __future__ import annotations

import heapq
import random

import pytest

from launch.cluster.climb import COUNTS, FIRST, GAIN, LEAST, Climb

GPUS = 8


def searched(use, *, epochs=8, trials=900, noise=0.05, loss=0.01, seed=0, first=FIRST):
    """Let trials come and go on GPUs of which each takes a share ``use`` alone; return the climb.

    A GPU holds as many as the climb says when there is room for a new one. With n on it, each
    does 1 / max(1, n use) of its own pace, less ``loss`` for every other.
    """
    draws = random.Random(seed)
    climb, now, left = Climb(first), 0.0, trials
    events: list[tuple[float, int, int, int]] = []
    on: dict[int, set[int]] = {gpu: set() for gpu in range(GPUS)}
    pace: dict[int, float] = {}

    def epoch(number, gpu, done):
        n = len(on[gpu])
        slower = max(1.0, n * use) * (1 + loss) ** (n - 1)
        seconds = pace[number] * slower * draws.lognormvariate(0, noise)
        heapq.heappush(events, (now + seconds, number, gpu, done + 1))

    while left or events:
        for gpu in on:
            while left and len(on[gpu]) < climb.most:
                left, number = left - 1, trials - left
                pace[number] = draws.lognormvariate(0, 1)  # architectures differ by far more
                on[gpu].add(number)
                climb.began(number, now)
                epoch(number, gpu, 0)
        now, number, gpu, done = heapq.heappop(events)
        if done < epochs:
            climb.reported(number, ("node", gpu), now)
            epoch(number, gpu, done)
        else:
            on[gpu].discard(number)
            climb.ended(number, now, gpu=("node", gpu), work=epochs * pace[number])
    return climb


def best(use, loss=0.01):
    """Return the number from which a step up no more raises the work of a GPU by ``GAIN``."""

    def work(n):
        return min(1.0, n * use) * (1 + loss) ** -(n - 1)

    steps = list(zip(COUNTS, COUNTS[1:], strict=False))
    rising = [low for low, high in steps if work(high) / work(low) - 1 < GAIN]
    return max(rising[0], LEAST)


@pytest.mark.parametrize("use", [1.0, 0.4, 0.24, 0.12])
@pytest.mark.parametrize("epochs", [8, 1])
def test_it_finds_what_pays(use, epochs):
    """By pairs of epochs, or by whole trials where they are too short to see two numbers."""
    climb = searched(use, epochs=epochs, trials=900 if epochs > 1 else 3000)
    assert climb.most == best(use)


@pytest.mark.parametrize("seed", range(3))
def test_gains_are_those_of_the_formula(seed):
    """Of pairs: the pace of trials, which differ by a factor of 50, plays no part."""
    gains = searched(0.2, seed=seed, loss=0.02).gains()
    assert gains[3, 4] == pytest.approx(4 / 3 / 1.02 - 1, abs=0.08)
    assert gains[4, 6] == pytest.approx(1 / 0.8 / 1.02**2 - 1, abs=0.06)
    assert gains[6, 8] == pytest.approx(1.02**-2 - 1, abs=0.04)


def test_epochs_among_changing_neighbours_count_for_nothing():
    climb, gpu = Climb(), ("node", 0)
    for number in range(20):
        climb.began(2 * number, 100.0 * number)
        for epoch in range(1, 9):
            if epoch == 5:  # half of this epoch there are two
                climb.began(2 * number + 1, 100 * number + 45.0)
                climb.reported(2 * number + 1, gpu, 100 * number + 46.0)
            slow = 5.0 * max(0, epoch - 5) + 2.5 * (epoch >= 5)
            climb.reported(2 * number, gpu, 100 * number + 10.0 * epoch + slow)
        climb.ended(2 * number + 1, 100 * number + 99.0)
        climb.ended(2 * number, 100 * number + 99.0)
    assert climb.gain(1, 2) == pytest.approx(2 / 1.5 - 1)


def test_a_trial_that_nobody_knows_where_it_runs_is_waited_for():
    """It may have been a neighbour: what was measured beside it is judged once it has reported."""
    climb, gpu = Climb(), ("node", 0)
    climb.began(0, 0.0)
    climb.began(1, 0.0)
    for number in range(2, 40):
        climb.began(number, 100.0 * number)
        for epoch in range(1, 9):
            climb.reported(number, gpu, 100 * number + 10.0 * epoch)
        climb.ended(number, 100 * number + 90.0, gpu=gpu, work=1.0)
    assert not climb._whole
    climb.ended(0, 5000.0)  # it never said where
    climb.ended(1, 5000.0, gpu=gpu)
    assert set(climb._whole) == {2}
    assert len(climb._whole[2]) == 38
