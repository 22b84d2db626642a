"""A search that is disturbed in every way we know ends with the table of one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from drivers import Driver, compare
from helpers import TINY, search_here

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]
PSINAS = Path(sys.executable).with_name("psinas")
TIMINGS = ["train_seconds", "score_seconds", "seconds"]
LIMIT = 300


@pytest.fixture
def document():
    """Return a search of 24 trials of about two seconds."""
    return TINY | {
        "data": {"name": "digits", "limit": {"train": 400, "validation": 100}},
        "recipe": {"epochs": 5, "batch_size": 40, "epsilon": 0.1, "steps": 3},
        "vary": {"repeat": list(range(6))},
        "resources": {"workers": 2},
        "keep": {"reserve_bytes": 0},  # on a disk of 900 kB
    }


def half(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_signals_kills_and_half_written_files(document, tmp_path):
    expected = search_here(tmp_path / "undisturbed", document)
    config, run = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(document))

    for sent in [signal.SIGTERM] * 3 + [signal.SIGHUP]:
        driver = Driver(config, run)
        driver.busy()
        driver.process.send_signal(sent)
        driver.end(128 + sent)
    driver = Driver(config, run)
    driver.busy()
    driver.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    driver.process.send_signal(signal.SIGINT)
    driver.end(130)

    driver = Driver(config, run)
    driver.busy()
    for _ in range(2):  # of a worker, and of another that goes on with its trial
        until = time.monotonic() + LIMIT
        while not (workers := driver.workers()):
            assert time.monotonic() < until
            time.sleep(0.2)
        os.kill(workers[0], signal.SIGKILL)
        time.sleep(4)
    driver.process.kill()
    driver.end(-signal.SIGKILL)

    with (run / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 8, "worker_id": "')
    for name in ("trials.csv", "trials.parquet"):
        half(run / name)
    outcomes = sorted((run / "trials").glob("*/outcome.json"))
    weights = sorted((run / "trials").glob("*/weights.safetensors"))
    for path in (*outcomes, *weights[:1]):
        half(path)
    driver = Driver(config, run)
    driver.end(None)  # 2 where the winner's are the weights that were cut
    compare(run, expected)


@pytest.fixture
def disk(tmp_path):
    """Return a small file system and a function that mounts it anew with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("needs root and mount")
    yield (
        place,
        lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(place)], check=True
        ),
    )
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_and_a_read_only_one(document, disk, tmp_path):
    expected = search_here(tmp_path / "undisturbed", document)
    place, mount = disk
    config, run = tmp_path / "run.yaml", place / "run"
    config.write_text(yaml.safe_dump(document))
    driver = Driver(config, run)
    driver.busy()
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"0" * 4096):
                pass
        except OSError:  # it is full
            pass
    driver.process.wait(timeout=LIMIT)
    filler.unlink(missing_ok=True)
    mount("size=50m")
    driver = Driver(config, run)
    driver.busy()
    driver.process.terminate()
    driver.end(128 + signal.SIGTERM)
    mount("ro")  # with files open for writing it cannot be
    Driver(config, run).end(2)
    mount("rw")
    Driver(config, run).end(0)
    compare(run, expected)
