"""A trial that loses its worker, its driver and its driver in order goes on each time, on Ray."""

from __future__ import annotations

import os
import signal
import time

import pytest
import yaml
from drivers import LIMIT, TIMINGS, Driver
from helpers import TINY, search_here

from nas.ledger.table import load_table
from nas.trial.checkpoint_file import checkpoints_in
from nas.trial.files import kept_epochs, trial_directory

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]
EPOCHS = 24


@pytest.fixture
def document():
    """Return a search of one trial of 24 epochs of a fifth of a second."""
    return TINY | {
        "data": {"name": "digits", "limit": {"train": 400, "validation": 100}},
        "space": {**TINY["space"], "depth": [2], "channels": [8]},
        "recipe": {"epochs": EPOCHS, "batch_size": 40, "epsilon": 0.1, "steps": 5},
        "trials": 1,
        "resources": {"workers": 1},
        "keep": {"reserve_bytes": 0, "checkpoint_seconds": 0},
    }


def test_the_numbers_are_those_of_a_trial_that_nothing_cut_off(document, tmp_path):
    expected = search_here(tmp_path / "undisturbed", document)
    config, run = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(document))

    def further(driver, epochs):
        """Wait until a process of this driver has trained so many epochs more."""
        until, before = time.monotonic() + LIMIT, kept_epochs(run, 0)
        while kept_epochs(run, 0) < before + epochs:
            assert driver.process.poll() is None, driver.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)

    driver = Driver(config, run)
    further(driver, 2)
    assert driver.workers()
    for worker in driver.workers():
        os.kill(worker, signal.SIGKILL)
    further(driver, 2)
    assert "trial 0 lost its worker" in driver.log.read_text()
    driver.process.kill()
    driver.end(-signal.SIGKILL)
    driver = Driver(config, run)
    further(driver, 2)
    driver.process.terminate()
    driver.end(128 + signal.SIGTERM)
    before = kept_epochs(run, 0)
    assert 6 <= before < EPOCHS
    Driver(config, run).end(0)
    table, whole = (load_table(out).drop(columns=TIMINGS) for out in (run, expected))
    assert table.equals(whole)
    names = ("epoch", "train_loss", "robust_accuracy")
    for name in names:
        mine, theirs = (column(out, name) for out in (run, expected))
        assert mine == theirs
        assert len(mine) == EPOCHS
    log = driver.log.read_text()
    assert log.count("trial 0 goes on after epoch") == 3
    assert f"trial 0 goes on after epoch {before}, from its checkpoint" in log
    assert not checkpoints_in(trial_directory(run, 0))


def column(run, name):
    """Return a column of the epochs of the first trial, as text."""
    rows = (trial_directory(run, 0) / "epochs.csv").read_text().splitlines()
    place = rows[0].split(",").index(name)
    return [row.split(",")[place] for row in rows[1:]]
