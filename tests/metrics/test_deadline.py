"""Limits of wall time: on a clock of the test's own, which ticks once whenever it is read."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from metrics import METRICS, PGD, deadline
from metrics.deadline import TimeUp, check, doing, limited, until, within


class Ticking:
    """A clock whose n-th reading is n."""

    def __init__(self):
        self.read = 0

    def monotonic(self):
        self.read += 1
        return float(self.read)


@pytest.fixture
def clock(monkeypatch):
    clock = Ticking()
    monkeypatch.setattr(deadline, "time", clock)
    return clock


def checks_until_time_is_up(most=100):
    for number in itertools.count(1):
        try:
            check()
        except TimeUp as late:
            return number, late.seconds
        if number == most:
            return None


@pytest.mark.parametrize(("outer", "inner", "passed"), [(9, 4, 4), (4, 9, 4)])
def test_of_limits_inside_one_another_the_earliest_holds(outer, inner, passed, clock):
    with until(outer, outer), until(inner, inner):
        assert checks_until_time_is_up() == (passed + 1, passed)
    clock.read = 0
    with until(outer, outer):
        with until(inner, inner):
            pass
        assert checks_until_time_is_up() == (outer + 1, outer)
    assert checks_until_time_is_up() is None


def test_without_a_limit_nothing_reads_the_clock(clock):
    check()
    doing("something")
    assert clock.read == 0


def test_no_handler_of_exceptions_takes_it_for_a_failure(clock):
    def swallows():
        try:
            doing("while trying")
        except Exception:  # noqa: BLE001  as a network's code may
            pass

    with within(0.5), pytest.raises(TimeUp) as late:
        swallows()
    assert str(late.value) == "the limit of 0.5 s was passed while trying"


def test_other_threads_have_no_limit(clock):
    found = []
    with until(-1, 1):
        thread = threading.Thread(target=lambda: found.append(checks_until_time_is_up()))
        thread.start()
        thread.join()
    assert found == [None]


def test_a_limited_generator_limits_its_own_turns_and_nobody_elses(clock):
    def steps():
        for number in range(10):
            check()
            try:
                yield number
            finally:
                closed.append(number)
        return "whole"

    closed = []
    seen = []

    def take_all():
        for number in limited(steps(), 5.0):
            seen.append(number)
            assert checks_until_time_is_up(20) is None

    with pytest.raises(TimeUp):
        take_all()
    assert seen == [0, 1, 2, 3, 4]  # at readings 2 ... 6: the first is the beginning
    assert closed == seen
    closed.clear()
    going = limited(steps(), None)
    assert [next(going) for _ in range(10)] == list(range(10))
    with pytest.raises(StopIteration) as end:
        next(going)
    assert end.value.value == "whole"


FEW = {"steps": 5, "targets": 2}
QUICK = {"apgd-t": FEW, "fab": FEW, "autoattack": {**FEW, "queries": 20}}
"""Settings of those that take thousands of passes."""


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"cost"}))
def test_a_metric_ends_anywhere_in_its_course_and_leaves_the_model(name, clock, digits_net, digits):
    metric = METRICS[name](**QUICK.get(name, {}))
    x, y = digits.validation.images(slice(16)), digits.validation.labels[:16]

    def scores():
        return metric(digits_net, x, y, generator=torch.Generator().manual_seed(0))

    with within(1e9):
        expected = scores()
    checks = clock.read - 1  # the first reading is the beginning
    assert checks > 1
    hooks = len(digits_net._forward_hooks)
    for share in (0.2, 0.9):
        clock.read = 0
        with pytest.raises(TimeUp), until(share * checks, 1):
            scores()
        assert clock.read == int(share * checks) + 1
        assert len(digits_net._forward_hooks) == hooks
    assert scores() == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_an_attack_looks_at_every_step(clock, digits_net, digits):
    x, y = digits.validation.images(slice(8)), digits.validation.labels[:8]
    forwards = []
    counted = digits_net.register_forward_hook(lambda *_: forwards.append(clock.read))
    with within(1e9):
        PGD(epsilon=0.1, steps=5)(digits_net, x, y)
    counted.remove()
    assert len(forwards) >= 5
    assert len(set(forwards)) == len(forwards)
