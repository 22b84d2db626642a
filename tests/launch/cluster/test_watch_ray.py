"""A worker that is stopped as a whole, as Ray Tune and the driver see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nas.ledger.table import load_table
from nas.search.running_file import FILE, seen

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]  # one Ray at a time
LIMIT = 240
TESTS = Path(__file__).parents[2] / "helpers"


@pytest.mark.slow
def test_a_frozen_worker_is_given_up_at_its_limit_and_the_search_goes_on(tmp_path):
    run, config = tmp_path / "run", tmp_path / "search.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "name": "frozen",
                "data": {"name": "digits", "limit": {"train": 128, "validation": 40}},
                "space": {"name": "faulty_spaces:Faulty", "kinds": ["frozen", "good"]},
                "recipe": {"epochs": 2, "batch_size": 64, "adversary": "none", "steps": 1},
                "metrics": ["clean"],
                "objectives": {"clean_accuracy": "max"},
                "sampler": {"name": "grid"},
                "trials": None,
                "resources": {"workers": 1, "time_limit_seconds": 8},
            }
        )
    )
    command = [sys.executable, "-c", "from launch.cli import main; main()", "search", str(config)]
    path = os.pathsep.join([str(Path.cwd()), str(TESTS)])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--out", str(run)], stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
    states = set()
    try:
        ends = time.monotonic() + LIMIT
        while process.poll() is None and time.monotonic() < ends:
            found = seen(run) if run.exists() else None
            if found is not None and found.rows:
                states.add((found.state, found.rows[0].number, found.total))
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    log = (tmp_path / "log").read_text()
    table = load_table(run).set_index("kind")
    assert table["status"]["frozen"] == "timeout", log
    # A machine with much else to do may take the other trial past the limit, but not freeze it.
    assert table["status"]["good"] in ("complete", "timeout"), log
    assert "did not answer" not in table["reason"]["good"]
    assert process.returncode == (0 if table["status"]["good"] == "complete" else 2), log
    assert re.fullmatch(
        r"the limit of 8 s was passed after epoch 0 of 2; "
        r"its worker on .* did not answer and was ended",
        table["reason"]["frozen"],
    )
    assert ("living", 0, 2) in states
    assert not (run / FILE).exists()
