"""Running trials as a person sees them: below the bar, or in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from launch.show import progress as module
from launch.show.progress import Progress
from launch.show.running_lines import on_one_line, running_lines
from nas.search.running import Row, Running

ROWS = [
    Row(7, 20, 80, 5, epoch=3, robust_accuracy=0.4119, host="node-b", gpus=(0,)),
    Row(12, 20, 3700, 1, epoch=19, robust_accuracy=1.0, host="node-a", gpus=(10,)),
    Row(8, 20, 90, 30, epoch=2, robust_accuracy=float("nan"), host="node-b", gpus=(1,)),
    Row(9, 20, 10, 10),
]


def test_a_line_a_trial_by_node_the_latest_news_first():
    told = [line.split("  ") for line in running_lines(ROWS, 9)]
    assert [[cell.strip() for cell in line if cell] for line in told] == [
        ["trial 12", "node-a GPU 10", "epoch 19/20", "robust accuracy 1.000", "1h01m"],
        ["trial 7", "node-b GPU 0", "epoch 3/20", "robust accuracy .412", "1m20"],
        ["trial 8", "node-b GPU 1", "epoch 2/20", "1m30"],
        ["trial 9", "a node that is not known yet", "epoch 0/20", "10 s"],
    ]
    assert len({line.index("epoch") for line in running_lines(ROWS, 9)}) == 1


def test_no_more_lines_than_there_is_room_for():
    many = [Row(number, 20, 100, number, host=f"node-{number % 3}") for number in range(48)]
    lines = running_lines(many, 9)
    assert len(lines) == 9
    assert lines[-1] == "and 40 more"
    assert running_lines(many, 1) == ["and 48 more"]
    assert running_lines([], 5) == []
    assert len(running_lines(many, 48)) == 48


def test_a_log_has_them_on_one_line():
    assert on_one_line(ROWS[:2]) == (
        "2 running: trial 12 node-a GPU 10 epoch 19/20 robust accuracy 1.000 1h01m; "
        "trial 7 node-b GPU 0 epoch 3/20 robust accuracy .412 1m20"
    )
    assert on_one_line(ROWS, 2).endswith("1m20; and 2 more")


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(module, "time", clock)
    return clock


def shown(terminal, clock):
    """Return a progress over a book with one trial, the book, and the console's file."""
    plan = SimpleNamespace(budget=24, objectives={}, told_apart=[])
    search = SimpleNamespace(plan=plan, finished=3, running={5: None, 6: None}, results=list)
    file = io.StringIO()
    console = Console(file=file, width=120, height=30, force_terminal=terminal)
    progress, book = Progress(console), Running(clock.monotonic)
    progress.begin(search, 2, book)
    return progress, book, file


def test_the_bar_counts_what_runs_and_not_what_was_lost(clock):
    progress, book, file = shown(True, clock)
    book.begin(5, 20)
    progress.tick()
    progress._live.refresh()
    assert "3/24 done, 1 running, 0 failed" in file.getvalue()
    assert "trial 5" not in file.getvalue()  # a short one is not worth a line
    clock.now += 61
    book.at(5, "node-b", (0,))
    progress.tick()
    progress._live.refresh()
    assert "trial 5  node-b GPU 0  epoch 0/20    1m01" in file.getvalue()
    book.end(5)
    file.truncate(0)
    progress.tick()
    progress._live.refresh()
    assert "trial 5" not in file.getvalue()
    assert "0 running" in file.getvalue()
    progress.end()
    progress.tick()


def test_a_log_is_silent_for_some_minutes_at_most(clock):
    progress, book, file = shown(False, clock)
    book.begin(5, 20)
    said = []
    for _ in range(1000):  # seconds
        clock.now += 1
        if clock.now == 400:
            progress.say("something else")
        file.seek(0)
        file.truncate()
        progress.tick()
        if file.getvalue():
            said.append((clock.now, file.getvalue()))
    assert [when for when, _ in said] == [301, 701]
    assert said[0][1] == "1 running: trial 5 a node that is not known yet epoch 0/20 5m01\n"
    book.end(5)
    clock.now += 1000
    file.truncate(0)
    progress.tick()
    assert not file.getvalue()
