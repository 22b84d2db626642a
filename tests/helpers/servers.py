"""Real databases on loopback for tests: started in a directory of their own, stopped by their pid.

A test that needs one is skipped, with the reason, where its programs or its driver are not there.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD = "searcher", "s3cr/t@%{x}?#"
"""A password with everything that a URL, a template or a configuration could trip over."""
ENCODED = "s3cr%2Ft%40%25%7Bx%7D%3F%23"


class Server:
    """A database that can be stopped and started again.

    Args:
        place: its directory.
        command: what runs it in the foreground.
        url: without a password.
    """

    def __init__(self, place: Path, command: list[str], url: str, port: int) -> None:
        self.place, self.command, self.public, self.port = place, command, url, port
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, *, user: str = USER, password: str = ENCODED) -> str:
        """Return the URL with user and password."""
        scheme, rest = self.public.split("://")
        return f"{scheme}://{user}:{password}@{rest}"

    def start(self) -> None:
        """Run it; return when it answers."""
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.place)
        for _ in range(200):
            if self._answers():
                return
            assert self.process.poll() is None, (self.place / "log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.place / "log").read_text())

    def stop(self) -> None:
        """End it and its clients, and wait until it has gone."""
        assert self.process is not None
        os.kill(self._pid(), signal.SIGINT)
        self.process.wait(timeout=20)
        self.process = None

    def _pid(self) -> int:
        file = self.place / "data" / "postmaster.pid"
        assert self.process is not None
        return int(file.read_text().split()[0]) if file.exists() else self.process.pid

    def _answers(self) -> bool:
        if self.public.startswith("postgresql"):
            file = self.place / "data" / "postmaster.pid"
            return file.exists() and "ready" in file.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Yield a PostgreSQL with the database ``ledgers`` and a user with a password."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs psycopg: pip install 'psinas[postgresql]'")
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL's programs: initdb and postgres")
    as_user, account = [], None
    if os.geteuid() == 0:  # which PostgreSQL refuses
        account = next((a for a in pwd.getpwall() if a.pw_name == "postgres"), None)
        if account is None or shutil.which("runuser") is None:
            pytest.skip("needs a user postgres to run PostgreSQL as, and runuser")
        as_user = ["runuser", "-u", "postgres", "--"]
    with _directory() as place:
        secret = place / "password"
        secret.write_text(PASSWORD)
        if account is not None:
            for path in (place, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        data = str(place / "data")
        made = [*as_user, str(binaries / "initdb"), "-D", data, "-U", USER, "--no-sync"]
        made += [f"--pwfile={secret}", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C"]
        subprocess.run(made, check=True, capture_output=True, cwd=place)
        port = _free_port()
        command = [*as_user, str(binaries / "postgres"), "-D", data, "-p", str(port)]
        command += ["-k", str(place), "-h", "127.0.0.1", "-c", "fsync=off"]
        address = f"postgresql://127.0.0.1:{port}/postgres"
        yield from _running(Server(place, command, address, port))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Yield a Redis with a password, which keeps what it has when it is stopped."""
    if importlib.util.find_spec("redis") is None:
        pytest.skip("needs redis: pip install 'psinas[redis]'")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs the program redis-server")
    with _directory() as place:
        port = _free_port()
        (place / "redis.conf").write_text(
            f"port {port}\nbind 127.0.0.1\nappendonly yes\ndir {place}\n"
            f'user {USER} on ">{PASSWORD}" ~* &* +@all\nrequirepass "{PASSWORD}"\n'
        )
        server = Server(
            place, [program, str(place / "redis.conf")], f"redis://127.0.0.1:{port}/0", port
        )
        yield from _running(server)


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()


def _postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


@contextmanager
def _directory() -> Iterator[Path]:
    """Yield a directory that another user may enter, with a name short enough for a socket."""
    place = Path(tempfile.mkdtemp(prefix="psinas-db-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
