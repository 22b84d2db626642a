"""Room on disk while a search runs: what goes first, when it ends, and that nothing is lost."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from helpers import one_line, search_here

from launch.cluster.thrift import Thrift
from launch.config.config import parse_config
from nas.disk import use_of
from nas.errors import InputError
from nas.ledger.table import load_table
from nas.search.winners import best, least_worthy_first
from nas.trial.checkpoint_file import NAME
from nas.trial.files import LAST_WEIGHTS, WEIGHTS, trial_directory

TIMINGS = ["train_seconds", "score_seconds", "seconds"]
BLOCK = 4096
OBJECTIVES = {"pgd_accuracy": "max", "parameters": "min"}


def row(number, accuracy, parameters, **scores):
    scores = {"pgd_accuracy": accuracy, "parameters": parameters, **scores}
    return {"number": number, "status": "complete", "scores": scores}


ROWS = [
    row(0, 0.9, 50),  # on the front
    row(1, 0.8, 60),  # top, behind 0
    row(2, 0.5, 10),  # on the front
    row(3, 0.95, 90),  # the winner
    row(4, 0.99, 80, suspicion_zero_gradient_raised=1.0),  # suspicious
    row(5, 0.7, 20),  # on the front
]


def test_the_winner_goes_last_then_the_front_and_the_suspicious_go_first():
    order = [r["number"] for r in least_worthy_first(ROWS, OBJECTIVES)]
    assert best(ROWS, "pgd_accuracy", "max")["number"] == order[-1] == 3
    assert order == [4, 1, 2, 5, 0, 3]
    assert least_worthy_first([], OBJECTIVES) == []


def saved(run, number, weights=3, last=2):
    """Write what a worker leaves of a trial, weights of so many blocks."""
    directory = trial_directory(run, number)
    directory.mkdir(parents=True)
    (directory / "epochs.csv").write_bytes(b"e" * BLOCK)
    (directory / WEIGHTS).write_bytes(b"w" * (weights * BLOCK))
    (directory / LAST_WEIGHTS).write_bytes(b"l" * (last * BLOCK))


def there(run):
    """Return which weights are there."""
    names = {WEIGHTS: "", LAST_WEIGHTS: " last"}
    found = (run / "trials").glob("*/*.safetensors")
    return sorted(f"{path.parent.name}{names[path.name]}" for path in found)


@pytest.fixture
def config(tiny):
    return lambda **keep: parse_config(
        {**tiny, "objectives": OBJECTIVES, "keep": {"top": 3, "reserve_bytes": 0, **keep}}
    )


def test_weights_go_in_the_stated_order_until_the_run_is_small_enough(config, tmp_path):
    """Against a directory measured by its files, at every limit."""
    (tmp_path / "whole").mkdir()
    for number in range(6):
        saved(tmp_path / "whole", number)
    export = 3 * BLOCK  # a copy of the winner's weights, written at the end
    everything = use_of(tmp_path / "whole").total + export
    order = [4, 1, 2, 5, 0, 3]
    goes = [f"{n} last" for n in order] + [str(n) for n in order[:-1]]
    sizes = [2 * BLOCK] * 6 + [3 * BLOCK] * 5
    for many in range(len(goes) + 1):
        run = tmp_path / str(many)
        subprocess.run(["cp", "-r", str(tmp_path / "whole"), str(run)], check=True)
        limit = everything - sum(sizes[:many])
        thrift = Thrift(config(disk_bytes=limit), run, print, ROWS)
        assert there(run) == sorted({*there(tmp_path / "whole")} - {*goes[:many]})
        assert use_of(run).total == limit - export
        assert thrift.halted is None
    with pytest.raises(InputError, match="keep.disk_bytes: expected .* to take at most"):
        Thrift(config(disk_bytes=limit - 1), run, print, ROWS)
    assert there(run) == ["3"]  # the winner's stay in any case


def test_outcomes_that_come_keep_the_run_below_its_limit_or_halt_it(config, tmp_path):
    said = []
    (tmp_path / "trials").mkdir()
    (tmp_path / "study.journal").write_bytes(b"j" * BLOCK)
    export, table = 3 * BLOCK, BLOCK
    # Room for directories and epochs of six trials, and for the weights of one.
    limit = use_of(tmp_path).total + 6 * 2 * BLOCK + 4 * BLOCK + export + table
    thrift = Thrift(config(disk_bytes=limit), tmp_path, said.append, [])
    for result in ROWS:
        saved(tmp_path, result["number"])
        thrift.finished(result)
        assert use_of(tmp_path).total <= limit - export - table
        assert thrift.halted is None
    assert "3" in there(tmp_path)
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(b"j" * 10 * BLOCK)
    saved(tmp_path, 6)
    thrift.finished(row(6, 0.1, 99))
    assert there(tmp_path) == ["3"]
    assert thrift.halted is not None
    assert len(said) == 1
    assert said[0].startswith("no further trial begins, and what runs comes to its end: expected")


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Return a function that sets what is free."""
    return lambda size: monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, size))


def test_a_reserve_halts_the_search_and_half_of_it_cuts_it(config, tmp_path, free, monkeypatch):
    said = []
    thrift = Thrift(config(reserve_bytes="1 MB"), tmp_path, said.append, [])
    free(10**6)
    assert not thrift.look_now_and_then()
    assert thrift.halted is None
    free(10**6 - 1)
    assert not thrift.look_now_and_then()  # some seconds have to pass
    assert thrift.halted is None
    thrift._looked = -1e9
    assert not thrift.look_now_and_then()
    assert "1 MB are free where" in thrift.halted
    thrift._looked = -1e9
    free(10**6 // 2 - 1)
    assert thrift.look_now_and_then()
    assert len(said) == 1


def test_the_watch_ends_a_search_once_as_ctrl_c_does(config, tmp_path, free):
    from launch.cluster.watch_disk import WatchDisk

    thrift = Thrift(config(reserve_bytes="1 MB"), tmp_path, lambda line: None, [])
    watch = WatchDisk(thrift)
    pickle.dumps(watch)  # as Tune does
    free(10)
    with pytest.raises(KeyboardInterrupt):
        watch.on_step_end(0, [])
    thrift._looked = -1e9
    watch.on_step_end(1, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ------------------------------------------------------------------------------ by the command


@pytest.fixture
def search(psinas, tmp_path, in_process):
    """Return a function that searches by the command, without Ray."""

    def run(document, *arguments):
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(document))
        return psinas("search", config, "--out", tmp_path / "run", *arguments)

    return run


def test_too_little_room_is_refused_in_one_line_and_nothing_is_made(search, tiny, tmp_path, free):
    free(10**6)
    line = "expected at least 1.07 GB free on its file system (keep.reserve_bytes), got 1 MB"
    one_line(search(tiny), line)
    assert not (tmp_path / "run").exists()
    assert search(tiny, "--set", "keep.reserve_bytes=0", "--trials", "1")[0] == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    one_line(search(tiny, "--resume", "--trials", "2"), line)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_a_search_that_halts_says_how_to_go_on_and_does(search, tiny, tmp_path):
    """Its table is then that of a search with room."""
    used = use_of(search_here(tmp_path / "whole", tiny)).total
    code, out, err = search(tiny, "--set", f"keep.disk_bytes={used // 4}")
    assert code == 130, err
    assert "no further trial begins, and what runs comes to its end: expected" in out
    assert f"go on with: psinas search --resume --out {tmp_path / 'run'}" in out
    done = len(load_table(tmp_path / "run"))
    assert 0 < done < 4
    code, out, err = search(tiny, "--resume", "--set", f"keep.disk_bytes={2 * used}")
    assert code == 0, err
    tables = [load_table(tmp_path / n).drop(columns=TIMINGS) for n in ("run", "whole")]
    assert tables[0].equals(tables[1])


def test_what_a_run_takes_is_said_at_its_end_and_by_trials(search, psinas, tiny, tmp_path):
    code, out, _ = search(tiny)
    assert code == 0
    run = tmp_path / "run"
    assert f"disk: {run} takes " in out
    out = psinas("trials", run)[1]
    last = out.splitlines()[-1]
    assert last.startswith(f"disk: {run} takes ")
    assert last.endswith(" are free")
    assert "disk:" not in psinas("trials", run, "--format", "csv")[1]


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (errno.ENOSPC, "study.journal"),
        (errno.EDQUOT, "outcome.json"),
        (errno.ENOSPC, "trials.csv"),
        (errno.EDQUOT, ".trials.parquet"),
    ],
)
def test_no_room_for_a_file_is_one_line_and_nothing_is_lost(
    number, name, search, tiny, tmp_path, monkeypatch
):
    """Planted where the file is opened, after the second trial."""
    whole = search_here(tmp_path / "whole", tiny)
    opened = []

    def fail(path):
        if name in Path(path).name and str(tmp_path / "run") in str(path):
            opened.append(path)
            if len(opened) > (6 if name == "study.journal" else 0):
                raise OSError(number, os.strerror(number), str(path))

    path_open, replace = Path.open, Path.replace

    def planted(self, mode="r", *arguments, **more):
        if mode[0] in "wa":
            fail(self)
        return path_open(self, mode, *arguments, **more)

    def moved(self, target):
        fail(self)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", planted)
        patch.setattr(Path, "replace", moved)
        code, out, err = search(tiny)
    assert opened
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith(f"psinas: DiskFull: no room is left for {tmp_path / 'run'}")
    assert os.strerror(number) in err
    assert f"go on with: psinas search --resume --out {tmp_path / 'run'}" in err
    code, out, err = search(tiny, "--resume")
    assert code == 0, err
    tables = [load_table(run).drop(columns=TIMINGS) for run in (tmp_path / "run", whole)]
    assert tables[0].equals(tables[1])


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("needs root and mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_full_is_one_line_and_a_resume_with_room_goes_on(
    small_disk, psinas, in_process, tiny, tmp_path
):
    whole = search_here(tmp_path / "whole", tiny)
    config, run = tmp_path / "config.yaml", small_disk / "run"
    config.write_text(yaml.safe_dump(tiny | {"keep": {"reserve_bytes": 0}}))
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 200_000)
    code, _, err = psinas("search", config, "--out", run)
    assert code == 1, err
    assert err.count("\n") == 1
    assert err.startswith(f"psinas: DiskFull: no room is left for {run}")
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    code, _, err = psinas("search", config, "--out", run, "--resume")
    assert code == 0, err
    tables = [load_table(r).drop(columns=TIMINGS) for r in (run, whole)]
    assert tables[0].equals(tables[1])


def test_checkpoints_go_with_the_outcome_and_those_left_over_at_a_start(config, tmp_path):
    for number in range(3):
        saved(tmp_path, number)
        for name in (f"{NAME}0", f"{NAME}1", f".{NAME}1.partial"):
            (trial_directory(tmp_path, number) / name).write_bytes(b"c" * BLOCK)
    left = lambda: sorted({p.parent.name for p in tmp_path.glob(f"trials/*/*{NAME}*")})  # noqa: E731
    thrift = Thrift(config(), tmp_path, print, ROWS[:1])
    assert left() == ["1", "2"]
    thrift.finished({"number": 1, "status": "stopped", "scores": {}})
    assert left() == ["2"]  # it runs


def test_running_trials_share_what_the_bound_leaves_to_checkpoints(config, tmp_path):
    (tmp_path / "trials").mkdir()
    here = use_of(tmp_path).total
    thrift = Thrift(config(disk_bytes=here + 1000), tmp_path, print, [])
    assert [thrift.room_each(trials) for trials in (1, 3, 0)] == [1000, 333, 1000]
    assert Thrift(config(), tmp_path, print, []).room_each(3) is None
