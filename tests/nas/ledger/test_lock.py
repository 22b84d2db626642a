"""A run is locked by one driver, and a file system without locks is not another driver."""

from __future__ import annotations

import errno

import pytest

from nas.errors import InputError
from nas.ledger.lock import RunLock

fcntl = pytest.importorskip("fcntl")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, code) -> None:
    def refuse(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="expected a file system that can lock a file"):
        RunLock(tmp_path).__enter__()
    assert not (tmp_path / "driver.pid").exists()


def test_what_an_older_filelock_hides_is_found_out(tmp_path, monkeypatch) -> None:
    """Up to 3.19 every error but ENOSYS looked as if somebody else held the lock."""
    monkeypatch.setattr(
        fcntl, "flock", lambda *_: (_ for _ in ()).throw(BlockingIOError(errno.EAGAIN, "held"))
    )
    with pytest.raises(InputError, match="expected a file system that can lock a file"):
        RunLock(tmp_path).__enter__()


def test_another_driver_is_named(tmp_path) -> None:
    with RunLock(tmp_path), pytest.raises(InputError, match=r"another driver \(pid \d+ on "):
        RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        pass
    assert {p.name for p in tmp_path.iterdir()} <= {"driver.lock"}
