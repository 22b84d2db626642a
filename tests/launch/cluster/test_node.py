"""What a node answers, without a cluster: storage, GPUs, modules, data, versions."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

from launch.cluster import devices, elsewhere, node, probe, worker
from launch.cluster.before import check_travels, questions_of
from launch.cluster.node import DRIVER, NodeReport, Questions, answer, exchange, leave, read_token
from launch.cluster.place import Place
from launch.config import versions as running
from launch.config.config import parse_config
from nas.device import why_no_gpu
from nas.errors import InputError


@pytest.fixture
def tokens(tmp_path) -> Path:
    """Return the directory of tokens in a run directory, the driver's in it."""
    found = tmp_path / "run" / "tokens"
    found.mkdir(parents=True)
    leave(found / DRIVER, "token")
    return found


def test_what_a_node_writes_is_what_the_driver_reads(tokens):
    state, why, said = exchange(tokens, "token", "n1")
    assert (state, why) == ("shared", "")
    assert read_token(tokens / "n1") == said != exchange(tokens, "token", "n2")[2]
    assert (tokens / "n1").stat().st_size > 1 << 16  # a quota counts blocks


def test_storage_that_is_not_shared(tokens, tmp_path):
    assert exchange(tmp_path / "elsewhere" / "tokens", "token", "n1")[0] == "absent"
    assert exchange(tmp_path / "tokens", "token", "n1")[0] == "other"  # not the driver's directory
    assert exchange(tokens, "of another start", "n1")[0] == "other"
    assert not (tokens / "n1").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk(tokens):
    (tokens / "n1").symlink_to("/dev/full")
    assert exchange(tokens, "token", "n1") == ("full", "No space left on device", "")


@pytest.mark.parametrize(
    ("code", "state"),
    [(errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EACCES, "unwritable")],
)
def test_storage_that_cannot_be_written(tokens, monkeypatch, code, state):
    """Simulated: the system's own errors, as if a write had met them."""

    def refused(path, text):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(node, "leave", refused)
    assert exchange(tokens, "token", "n1") == (state, os.strerror(code), "")


def test_a_driver_without_room_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, text):
        path.write_text("a part")
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(probe, "leave", full)
    with pytest.raises(InputError, match=f"--out: .* {tmp_path}, got none: Disk quota exceeded"):
        probe._leave(tmp_path, "0")
    assert list(tmp_path.iterdir()) == []


def asked(**questions):
    document = json.loads(json.dumps(asdict(Questions(**{"gpus": False, **questions}))))
    return NodeReport.of(json.loads(json.dumps(answer(document))))  # as plain JSON, both ways


def test_modules_are_imported_and_told_apart_by_their_text(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (("own_a", "class T: pass"), ("own_b", "class T: pass "), ("own_c", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(text)
    names = ("own_a:T", "own_a:U", "own_b:T", "own_c:T", "own_d:T")
    found = asked(modules=names)
    assert found.modules == {
        "own_a:U": "AttributeError: module 'own_a' has no attribute 'U'",
        "own_c:T": "ZeroDivisionError: division by zero",
        "own_d:T": "ModuleNotFoundError: No module named 'own_d'",
    }
    assert found.module_checksums.keys() == {"own_a:T", "own_b:T"}
    assert found.module_checksums["own_a:T"] != found.module_checksums["own_b:T"]


def test_data_that_are_not_there(tmp_path):
    sources = (("digits", None, None), ("mnist", str(tmp_path), None), ("npz:no.npz", None, None))
    found = asked(data=sources)
    assert found.data.keys() == {"mnist", "npz:no.npz"}
    assert found.data["mnist"].startswith("data: mnist was not found: expected its files in")


def test_a_node_says_what_it_runs_and_has_free(tmp_path):
    found = asked(run=str(tmp_path / "later" / "run"))
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    stat = os.statvfs(tmp_path)
    assert found.run_free_bytes == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)
    assert 1 <= found.cores <= os.cpu_count()
    assert found.torch_gpus is None


def test_torch_is_asked_for_its_gpus_in_another_process():
    found = asked(gpus=True)
    names = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    assert found.torch_gpus == names
    assert len(found.gpu_memory_bytes) == len(names)
    assert bool(found.cuda_error) == (not names)
    assert found.cuda_error == why_no_gpu()
    mine = NodeReport.of(node.gpus_here())
    told = ("torch_gpus", "gpu_memory_bytes", "cuda_error")
    assert [getattr(mine, name) for name in told] == [getattr(found, name) for name in told]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ('print(\'[["H100"], [85], ""]\')', ""),
        ("raise ImportError('libcudart.so.12: no such file')", "torch gave no answer: ImportErr"),
        ("import os; os._exit(3)", "torch gave no answer: exit code 3"),
        ("import time; time.sleep(60)", "TimeoutExpired: "),
    ],
    ids=["usable", "broken", "crashes", "hangs"],
)
def test_a_broken_torch_or_a_driver_that_hangs_is_an_answer(program, why, monkeypatch):
    monkeypatch.setattr(node, "_LOOK_AT_GPUS", program)
    monkeypatch.setattr(node, "ASKING_SECONDS", 60.0 if why != "TimeoutExpired: " else 0.5)
    found = node.gpus_apart()
    assert found["cuda_error"].startswith(why)
    assert found["torch_gpus"] == ([] if why else ["H100"])


def test_the_sources_tell_two_checkouts_apart(tmp_path):
    def checkout(name, text):
        (tmp_path / name / "nas").mkdir(parents=True)
        (tmp_path / name / "nas" / "x.py").write_text(text)
        return running._sources(tmp_path / name)

    assert checkout("a", "1") == checkout("b", "1") != checkout("c", "2")


def test_a_node_without_psinas_answers_that():
    """The task travels by value; this Python finds no psinas, as on a node without one."""
    code = (
        "import sys\nfrom ray import cloudpickle\n"
        "task = cloudpickle.loads(sys.stdin.buffer.read())\n"
        "sys.modules['launch'] = None\nprint(task({})['unready'])"
    )
    text = cloudpickle.dumps(probe._task())
    command = [sys.executable, "-P", "-c", code]
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    told = subprocess.run(command, input=text, capture_output=True, env=alone, check=True)
    assert told.stdout.startswith(b"ModuleNotFoundError: No module named 'launch.cluster'")


def test_a_report_of_another_version_is_read_as_far_as_it_is_known():
    found = NodeReport.of({"host": "n", "torch_gpus": ["A"], "of_tomorrow": 1})
    assert found == NodeReport(host="n", torch_gpus=("A",))
    assert NodeReport.of(json.loads(json.dumps(found.to_dict()))) == found


def test_a_search_asks_for_gpus_only_where_it_uses_them(tmp_path):
    assert questions_of(parse_config({}), tmp_path).gpus is None  # where Ray counts some
    assert questions_of(parse_config({"resources": {"gpu": 0}}), tmp_path).gpus is False
    document = {"space": {"name": "faulty_spaces:Faulty", "kinds": ["good"]}}
    questions = questions_of(parse_config(document), tmp_path)
    assert questions == Questions(str(tmp_path), (), ("faulty_spaces:Faulty",))


@dataclass(frozen=True)
class Locked:
    """A metric that holds what no process can send another."""

    lock: object = field(default_factory=threading.Lock)


def test_a_metric_that_cannot_travel_is_named():
    template = parse_config({}).plan().template
    check_travels(template)
    metrics = (*template.metrics[:2], Locked())
    line = (
        r"^metrics\[2\]: expected a metric that can be pickled, since it travels to workers, got a "
        r"Locked: TypeError: cannot pickle '_thread.lock' object$"
    )
    with pytest.raises(InputError, match=line):
        check_travels(replace(template, metrics=metrics))


def test_a_worker_on_a_gpu_without_a_driver_names_node_and_remedy(tmp_path, monkeypatch):
    """Simulated: Ray gave it a GPU, and torch has no driver for it."""
    (tmp_path / "config.yaml").touch()
    place = Place("n" * 56, "node-b", (0,))
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(worker.Place, "here", classmethod(lambda cls: place))
    monkeypatch.setattr(worker.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(devices, "why_no_gpu", lambda: "no driver")
    devices.check_device("cpu")  # models that stay on the CPU need none
    shared = {"template": None, "images": {}, "run": str(tmp_path), "threads": 1, "device": "auto"}
    with pytest.raises(InputError) as raised:
        worker.TrialActor.__new__(worker.TrialActor).setup({}, time_limit_seconds=None, **shared)
    assert str(raised.value) == (
        "node-b: Ray counts GPUs there, torch can use none (no driver): mend its driver, start the "
        "node with --num-gpus=0, or --set resources.gpu=0"
    )
    (kind, error), *_ = elsewhere._told(None, (), {"device": "cuda"}, (".", None), False)
    assert kind == "failed"
    assert str(error).startswith("Ray counts GPUs there, torch can use none (no driver): mend its")
    assert str(error).endswith(f"(on node {os.uname().nodename})")
