"""Polite signals end a search, whatever its shell has done to them."""

from __future__ import annotations

import signal

import pytest

from launch.cluster.signals import exit_code, orderly_stops, stopping


@pytest.fixture
def ignored():
    """Let SIGINT be ignored, as a script's shell does for what it starts with ``&``."""
    found = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, found)


def test_sigterm_stops_what_a_script_began_in_the_background(ignored) -> None:
    with orderly_stops():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stopping()
        assert exit_code() == 143
