"""What the shell templates do when things end: small scripts play Ray, Slurm and psinas."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.cluster.templates import FILES, template

PSINAS = f"""#!{sys.executable}
# Until stopped by SIGTERM, which it answers as psinas does: by way of SIGINT.
import os, pathlib, signal, sys, time
place = pathlib.Path(os.environ["PLACE"])
with (place / "psinas.log").open("a") as log:
    print(*sys.argv[2:], file=log)
signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
try:
    (place / "psinas.began").touch()
    while not (place / "psinas.done").exists():
        time.sleep(0.02)
except KeyboardInterrupt:
    sys.exit(143)
sys.exit(int((place / "psinas.done").read_text()))
"""
RAY = f"""#!{sys.executable}
# `symmetric-run ... -- COMMAND` runs the command; as Ray's, it exits with 0 where it cannot start.
# `start --block`: until SIGTERM.
import os, pathlib, subprocess, sys, time
place = pathlib.Path(os.environ["PLACE"])
with (place / "ray.log").open("a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1] == "symmetric-run":
    if (place / "ray.broken").exists():
        sys.exit(0)
    sys.exit(subprocess.run(sys.argv[sys.argv.index("--") + 1 :]).returncode)
if sys.argv[1] == "start":
    if (place / "ray.broken").exists():
        sys.exit("no such address")
    print("Ray runtime started.", flush=True)
    time.sleep(600)
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec env --default-signal=INT "$@"  # tasks are not children of the shell that made them wait
"""
NOTE = """#!/bin/bash
echo "$0 $*" >> "$PLACE/slurm.log"
"""
"""Programs that the templates call."""


@pytest.fixture
def place(tmp_path):
    """Return a directory with the programs, first on the path by an environment to activate."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    for name, text in {"psinas": PSINAS, "ray": RAY, "srun": SRUN, "scontrol": NOTE}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name in ("hosts", "slurm"):
        (tmp_path / FILES[name]).write_text(template(name))
    (tmp_path / "home").mkdir()
    yield tmp_path
    (tmp_path / "psinas.done").write_text("0")  # what a failed test left running
    shutil.rmtree(f"/tmp/psinas-{os.getpid()}", ignore_errors=True)  # Ray's, of a job that failed


def until(what, seconds=20):
    """Wait for something; it is seldom more than a moment."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "did not come"
        time.sleep(0.02)
    return found


class Job:
    """A batch script as Slurm runs it: a shell with Slurm's variables."""

    def __init__(self, place: Path, *arguments: str) -> None:
        variables = {
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURMD_NODENAME": "localhost",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_CPUS_PER_TASK": "2",
            "RUN": str(place / "runs" / "mine"),
            "VENV": str(place / "venv"),
            "HOME": str(place / "home"),
            "PLACE": str(place),
        }
        self.place = place
        self.process = subprocess.Popen(
            ["bash", place / FILES["slurm"], *arguments],
            env={**os.environ, **variables},
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begun(self) -> Job:
        until((self.place / "psinas.began").exists)
        return self

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_job_ends_with_the_exit_code_of_its_search(place, code):
    job = Job(place, "digits", "--trials", "3").begun()
    (place / "psinas.done").write_text(str(code))
    ended, out = job.end()
    assert ended == code, out
    given = (place / "psinas.log").read_text()
    assert given.startswith("digits --trials 3 --resume --out ")
    assert "--address 127.0.0.1:" not in given  # where no other node would find the head
    assert not list((place / "runs").glob("*.exit*"))
    assert not (place / "slurm.log").exists()


def test_a_job_whose_ray_does_not_start_fails(place):
    """`ray symmetric-run` itself ends with 0 then."""
    (place / "ray.broken").touch()
    code, out = Job(place, "digits").end()
    assert code == 1
    assert "Ray did not start" in out


def test_near_its_limit_a_job_stops_in_order_and_is_requeued(place):
    job = Job(place, "digits").begun()
    job.process.send_signal(signal.SIGUSR1)
    code, out = job.end()
    assert code == 0, out
    assert (place / "slurm.log").read_text().split()[1:] == ["requeue", str(os.getpid())]


def test_a_job_that_is_ended_stops_its_search_in_order(place):
    job = Job(place, "digits").begun()
    job.process.send_signal(signal.SIGTERM)
    code, out = job.end()
    assert code == 143, out
    assert not (place / "slurm.log").exists()


def test_a_job_without_a_preset_says_so(place):
    code, out = Job(place).end()
    assert (code, out) == (
        2,
        "expected a preset or a CONFIG.yaml: sbatch slurm.sbatch digits\n",
    )


# ---- hosts.sh


@pytest.fixture
def hosts(place):
    """Return a function that calls hosts.sh for one host, which is this machine."""
    ssh = place / "ssh"
    ssh.write_text('#!/bin/bash\nshift\nexec bash -c "$*"\n')
    ssh.chmod(0o755)
    settings = {
        "HOSTS": "here",
        "HEAD": "here",
        "SSH": str(ssh),
        "VENV": str(place / "venv"),
        "SHARED": str(place),
        "STATE": str(place / "state"),
        "RUN": str(place / "runs" / "mine"),
        "PLACE": str(place),
    }

    def call(*arguments: str, **others: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", place / FILES["hosts"], *arguments],
            env={**os.environ, **settings, **others},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    yield call
    for file in (place / "state").glob("*.pid"):
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_hosts_end_what_they_started_and_nothing_else(place, hosts):
    programs = place / "venv" / "bin"
    other = subprocess.Popen(
        [programs / "ray", "start", "--head"], env={**os.environ, "PLACE": str(place)}
    )
    try:
        assert hosts("up")[0] == 0
        ray = int((place / "state" / "ray.pid").read_text())
        assert hosts("up") == (0, hosts("run", "hostname")[1].strip() + ": Ray is there\n")
        assert int((place / "state" / "ray.pid").read_text()) == ray

        assert hosts("search", "digits", "--trials", "3")[0] == 0
        until((place / "psinas.began").exists)
        code, out = hosts("search", "digits")
        assert code == 1
        assert "runs already" in out
        assert len((place / "psinas.log").read_text().splitlines()) == 1

        search = int((place / "state" / "search.pid").read_text())
        assert hosts("down")[0] == 0  # the search first, in order
        for process in (search, ray):
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_hosts_keep_the_token_of_the_cluster_to_their_user(place, hosts):
    assert hosts("up")[0] == 0
    assert stat.S_IMODE((place / ".ray-token").stat().st_mode) == 0o600
    assert len((place / ".ray-token").read_text().strip()) == 64
    assert stat.S_IMODE((place / "state").stat().st_mode) == 0o700


def test_hosts_say_why_ray_did_not_start(place, hosts):
    (place / "ray.broken").touch()
    code, out = hosts("up")
    assert code == 1
    assert "no such address" in out


def test_hosts_hand_words_on_as_they_are(place, hosts):
    assert hosts("up")[0] == 0
    assert hosts("search", "a b.yaml", "--set", "vary={x: ['$HOME', 2]}")[0] == 0
    until((place / "psinas.began").exists)
    given = (place / "psinas.log").read_text()
    assert given.startswith("a b.yaml --set vary={x: ['$HOME', 2]} --resume --out ")
    assert hosts("run", 'echo "$RUN"') == (0, f"{place}/runs/mine\n")
    assert hosts("moon") == (
        2,
        "expected up, search, watch, run, fetch, stop or down, got 'moon'\n",
    )
