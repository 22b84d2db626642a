"""The Slurm templates on a real Slurm: jobs requeued and nodes that leave change no row.

Wants root, namespaces, and Debian's ``slurm-wlm`` and ``munge``; minutes each. ``slurm.sh`` beside
the helpers starts two nodes, each with a network and processes of its own, and ends them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from helpers import search_here

from nas.ledger.table import load_table

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "launch" / "cluster" / "templates"
DOCUMENT = {
    "name": "tiny",
    "data": {"name": "digits", "limit": {"train": 600, "validation": 200}},
    "space": {"name": "depth-channels", "depth": [1, 2, 3], "channels": [4, 8], "stem": "small"},
    "recipe": {"epochs": 4, "batch_size": 64, "epsilon": 0.1, "steps": 4},
    "metrics": ["clean", "pgd"],
    "objectives": {"pgd_accuracy": "max"},
    "sampler": {"name": "random"},
    "vary": {"recipe.learning_rate": [0.05, 0.1]},
    "trials": 12,
}
PRELUDE = """
cd "$WORK"
finished() {  # COUNT: until so many trials have been written
    for _ in $(seq 600); do
        [ "$(find runs -name outcome.json 2> /dev/null | wc -l)" -lt "$1" ] || return 0
        sleep 0.5
    done
    exit 90
}
requeue() {  # JOB: and start it at once, not in two minutes
    scontrol requeue "$1"
    for _ in $(seq 120); do
        scontrol update JobId="$1" StartTime=now 2> /dev/null
        [[ $(scontrol show job "$1") != *JobState=RUNNING*Restarts=1* ]] || return 0
        sleep 1
    done
    exit 91
}
ended() {  # JOB
    for _ in $(seq 600); do
        [ -n "$(squeue -h -j "$1" 2> /dev/null)" ] || break
        sleep 0.5
    done
    scontrol show job "$1" | grep -E 'JobState|Restarts'
}
submit() { sbatch --parsable --cpus-per-task=1 --time=30 "$@"; }
"""
WHOLE_NODES = """
job=$(submit --nodes=2 --gpus-per-node=0 "$TEMPLATES/slurm.sbatch" tiny.yaml)
finished 3
requeue "$job"
ended "$job"
"""
COME_AND_GO = """
job=$(submit "$TEMPLATES/slurm-elastic.sbatch" head tiny.yaml)
first=$(submit "$TEMPLATES/slurm-elastic.sbatch" worker "$job")
finished 2
second=$(submit "$TEMPLATES/slurm-elastic.sbatch" worker "$job")
finished 4
scancel "$first"
finished 6
requeue "$job"
ended "$job"
ended "$second"
"""


@pytest.fixture
def work():
    """Return a directory with a short name, for sockets."""
    wanted = ("slurmctld", "slurmd", "munged", "unshare", "nsenter", "ip")
    if missing := [name for name in wanted if not shutil.which(name, path=_path())]:
        pytest.skip(f"needs a real Slurm: no {', '.join(missing)}")
    if os.geteuid() or subprocess.run(["unshare", "--net", "--pid", "--fork", "true"]).returncode:
        pytest.skip("needs root and namespaces of its own")
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as directory:
        yield Path(directory)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("script", [WHOLE_NODES, COME_AND_GO], ids=["slurm", "slurm-elastic"])
def test_a_disturbed_search_on_slurm_is_an_undisturbed_one(work, script, tmp_path):
    (work / "slurm").mkdir()
    (work / "home").mkdir()
    (work / "tiny.yaml").write_text(yaml.safe_dump(DOCUMENT))
    variables = {
        "PATH": _path(),
        "WORK": str(work),
        "TEMPLATES": str(TEMPLATES),
        "HOME": str(work / "home"),
        "VENV": sys.prefix,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [ROOT / "tests/helpers/slurm.sh", work / "slurm", "bash", "-c", PRELUDE + script],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    logs = "".join(path.read_text() for path in sorted(work.glob("psinas-*.log")))
    assert process.returncode == 0, (out, logs[-3000:])
    assert "JobState=FAILED" not in out, (out, logs[-3000:])
    assert "Restarts=1" in out

    alone = search_here(tmp_path / "alone", DOCUMENT)
    columns = ["number", "status", "depth", "channels", "recipe.learning_rate", "pgd_accuracy"]
    rows, expected = (load_table(run)[columns] for run in (work / "runs" / "tiny", alone))
    assert rows.equals(expected)
