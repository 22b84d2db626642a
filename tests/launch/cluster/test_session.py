"""Where a cluster of this machine is looked for, and what is said where Ray cannot start."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys

import pytest
import ray
from ray._private.utils import check_version_info

from launch.cluster import session
from launch.config.modules import VARIABLE
from nas.errors import InputError


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_auto_looks_where_ray_start_left_its_files(tmp_path, monkeypatch, variable) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as head:
        place = f"127.0.0.1:{head.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(place + "\n")
        assert session._reachable("auto") == place


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "Ray cannot start on this machine: no room"), ("127.0.0.1:1", "--address: expected")],
)
def test_only_a_given_address_is_blamed(monkeypatch, address, said) -> None:
    def fails(**_):
        raise ValueError("no room")

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(session, "_reachable", lambda address: address)
    with pytest.raises(InputError, match=said), session.ray_session(address):
        pass


def test_a_cluster_of_another_ray_is_named_with_its_versions(monkeypatch) -> None:
    """The error is raised by Ray's own check."""

    def init(**_):
        check_version_info({"ray_version": "2.9.3", "python_version": "3.9.1"}, "node 10.0.0.1")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session, "_reachable", lambda address: address)
    mine = f"Ray {ray.__version__} and Python {platform.python_version()}"
    with pytest.raises(InputError) as raised, session.ray_session("10.0.0.1:6379"):
        pass
    assert str(raised.value) == (
        "--address: expected a running Ray cluster, got '10.0.0.1:6379': it was started with Ray "
        f"2.9.3 and Python 3.9.1, this process has {mine}: install the same in both"
    )


def test_workers_of_a_cluster_look_for_modules_where_the_driver_does(monkeypatch) -> None:
    given = {}
    monkeypatch.setattr(ray, "init", lambda **settings: given.update(settings))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "_reachable", lambda address: address)
    monkeypatch.setenv(VARIABLE, '["/mine"]')
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with session.ray_session("127.0.0.1:1"):
        assert given["runtime_env"] == {"env_vars": {VARIABLE: '["/mine"]'}}


def test_ray_puts_no_directory_of_the_driver_on_a_workers_path() -> None:
    """Ray asks its job's configuration; a Ray that no longer does leaves it to ``follow``."""
    assert session._OwnPath()._runtime_env_has_working_dir()


@pytest.mark.parametrize("given", ["file", "variable", "mode", "nothing"])
def test_a_token_that_is_there_is_shown_to_clusters(tmp_path, given) -> None:
    """`ray start` asks for it; ray.init with an address sends it only where the mode is set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    if given in ("file", "mode"):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    if given == "mode":
        environment["RAY_AUTH_MODE"] = "disabled"
    if given == "variable":
        environment["RAY_AUTH_TOKEN"] = "0" * 64
    code = "import os, launch.cluster.environment; print(os.environ.get('RAY_AUTH_MODE'))"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected = {"mode": "disabled", "nothing": "None"}.get(given, "token")
    assert said.stdout.strip() == expected
