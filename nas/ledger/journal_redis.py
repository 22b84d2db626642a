"""A journal in Redis: one list of JSON lines a study, ``redis://HOST:PORT/DB``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import redis
from optuna.storages.journal import BaseJournalBackend

from nas.errors import LedgerLost

CHUNK = 5000  # lines of one answer
TOKEN_SECONDS = 86_400
APPEND = """
if redis.call('set', KEYS[2], 1, 'NX', 'EX', ARGV[1]) then
    for i = 2, #ARGV do redis.call('rpush', KEYS[1], ARGV[i]) end
end
return redis.call('llen', KEYS[1])
"""


class RedisJournal(BaseJournalBackend):
    """Writes lines all together and once, also when an answer is lost and they are sent again.

    Args:
        url: with its password.
        name: of the study; each has a list of its own.
    """

    patiently: Callable[[Callable[[], Any]], Any] = staticmethod(lambda attempt: attempt())
    """Calls an operation, perhaps again; set by :func:`nas.ledger.patience.be_patient`."""

    def __init__(self, url: str, name: str) -> None:
        self.redis = redis.Redis.from_url(
            url, socket_timeout=30, socket_connect_timeout=10, health_check_interval=30
        )
        self.key = f"psinas:{{{name}}}"
        self._lines = f"{self.key}:journal"
        self._length = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        start = log_number_from
        while True:
            lines: list[bytes] = self.patiently(partial(self._read, start))
            yield from map(json.loads, lines)
            start += len(lines)
            if len(lines) < CHUNK:
                return

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        keys = (self._lines, f"{self.key}:written:{uuid.uuid4().hex}")
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self.patiently(lambda: self.redis.eval(APPEND, len(keys), *keys, TOKEN_SECONDS, *lines))

    def _read(self, first: int) -> list[bytes]:
        both = self.redis.pipeline(transaction=True)
        both.llen(self._lines).lrange(self._lines, first, first + CHUNK - 1)
        length, lines = both.execute()
        if length < self._length:
            raise LedgerLost(
                f"Redis holds {length} lines of the ledger where it held {self._length}: it was "
                "restarted without what it had (appendonly yes keeps it)"
            )
        self._length = int(length)
        return list(lines)
