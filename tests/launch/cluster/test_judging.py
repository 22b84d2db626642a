"""Judges on Ray: whoever is killed in the middle loses nothing that was found, nor asks twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import TINY, search_here

from nas.ledger.judged import JUDGED
from nas.ledger.results import JOURNAL
from nas.ledger.table import load_table

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]
LIMIT = 300
COMMAND = "from launch.cli import main; main()"


def written(run):
    """Return the judgements that the journal has, in the order in which they were written."""
    lines = [json.loads(line) for line in (run / JOURNAL).read_text().splitlines()]
    attributes = [name for line in lines for name in line.get("user_attr", {})]
    return [name for name in attributes if name.startswith(JUDGED)]


def begin(run, log):
    attack = "{name: apgd, steps: 400, restarts: 3}"
    command = [sys.executable, "-c", COMMAND, "judge", str(run), "--top", "4"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*command, "--attack", attack, "--workers", "2"],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def end(process):
    """Wait for its end; what it started may not outlive it."""
    code = process.wait(timeout=LIMIT)
    time.sleep(1)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return code


def test_a_killed_judge_goes_on_with_what_is_missing(tmp_path):
    run = search_here(tmp_path / "run", {**TINY, "keep": {"top": 4}})
    before, log = load_table(run), tmp_path / "log"
    driver, until = begin(run, log), time.monotonic() + LIMIT
    while not written(run):
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.02)
    driver.kill()
    assert end(driver) == -signal.SIGKILL
    first = written(run)
    assert 1 <= len(first)
    assert end(begin(run, log)) == 0, log.read_text()
    every = written(run)
    assert every[: len(first)] == first
    assert len(every) == len(set(every)) == 4
    after = load_table(run)
    assert after[before.columns].equals(before)
    assert after["judge_apgd_accuracy"].notna().all()
    assert f"{4 - len(first)} judgements added, {len(first)} were known" in log.read_text()
    assert (run / "trials.csv").read_text().count("judge_apgd_accuracy,") == 1
