"""Where a cluster of this machine is looked for, and what is said where Ray cannot start."""

from __future__ import annotations

import socket

import pytest
import ray

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
