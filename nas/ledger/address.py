"""Where a ledger lies: the URL of its storage, and its password, which is kept nowhere but here.

A URL is written down, shown and compared without its password. The password comes from the URL
that this process was given, else from ``PSINAS_STORAGE`` (a whole URL), else from what the
database's own driver reads (``PGPASSWORD``, ``~/.pgpass``; ``REDISCLI_AUTH`` for Redis).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from nas.errors import InputError, first_line

ENVIRONMENT = "PSINAS_STORAGE"
REDIS = ("redis", "rediss", "unix")
REDIS_PASSWORDS = ("REDISCLI_AUTH", "REDIS_PASSWORD")
KNOWN = "postgresql://, mysql://, redis://, sqlite:///PATH or journal:///PATH"
HIDDEN = "***"

_SECRET_KEYS = ("password", "passwd", "pass", "pwd", "sslpassword")
_URL = re.compile(r"([A-Za-z][\w+.-]*)://(?:([^:/@]*)(?::(.*))?@)?(.*)", re.DOTALL)
_IN_TEXT = re.compile(r"([A-Za-z][\w+.-]*://[^:/@\s]*):[^\s]*@")
_IN_QUERY = re.compile(rf"([?&](?:{'|'.join(_SECRET_KEYS)})=)[^&\s'\"]*", re.IGNORECASE)
_given: dict[str, str] = {}  # a URL without its password -> as this process was given it


@dataclass(frozen=True)
class Address:
    """The parts of a storage's URL.

    Attributes:
        scheme: what is before ``://``: a database, perhaps with ``+`` and its driver.
        user, password: None where there is none; a password as it is typed, not percent-encoded.
        rest: host, port and database, or the path of a file behind its slash.
        query: what is behind ``?``, those of its settings aside that are secret.
        secrets: the settings of the query that are secret.
    """

    scheme: str
    user: str | None
    password: str | None
    rest: str
    query: str = ""
    secrets: str = ""

    @property
    def kind(self) -> str:
        """The database, whatever its driver: ``postgresql``, ``redis``, ``sqlite``, …"""
        kind = self.scheme.partition("+")[0].lower()
        return {"postgres": "postgresql", "mariadb": "mysql"}.get(kind, kind)

    @property
    def path(self) -> str | None:
        """The file of ``sqlite`` or ``journal``; None of a server."""
        if self.kind == "sqlite":
            return self.rest.removeprefix("/")
        if self.kind == "journal":
            return os.path.expanduser(re.sub(r"^/+", "/", self.rest))
        return None

    def url(self, *, hidden: bool = False, password: bool = False) -> str:
        """Return the URL without its password, with ``***`` for it, or with it."""
        secret = "" if self.password is None else quote(self.password, safe="")
        own = f":{secret}" if password and self.password is not None else ""
        own = f":{HIDDEN}" if hidden and self.password is not None else own
        user = "" if self.user is None else f"{self.user}{own}@"
        settings = [part for part in (self.query, self.secrets if password else "") if part]
        query = f"?{'&'.join(settings)}" if settings else ""
        return f"{self.scheme}://{user}{self.rest}{query}"


def parsed(url: str) -> Address:
    """Return the parts of a URL.

    Raises:
        InputError: it is none; the message has no password.
    """
    head, mark, query = url.partition("?")
    if "@" not in head and "@" in query and re.match(r"[\w+.-]+://[^:/]*:(?!\d+(/|$))", head):
        host = url.rpartition("@")[2]  # a password with a question mark, not encoded
        tail, mark, query = host.partition("?")
        head = url[: len(url) - len(host)] + tail
    match = _URL.fullmatch(head)
    if match is None or not match[4]:
        raise InputError(f"storage: expected {KNOWN}, got {scrubbed(url)!r}")
    scheme, user, password, rest = match.groups()
    settings = query.split("&") if mark else []
    secrets = [s for s in settings if s.partition("=")[0].lower() in _SECRET_KEYS]
    public = [s for s in settings if s and s not in secrets]
    return Address(
        scheme,
        user,
        None if password is None else unquote(password),
        rest,
        "&".join(public),
        "&".join(secrets),
    )


def without_password(url: str) -> str:
    """Return a URL as it is written down; this process remembers its password.

    Raises:
        InputError: it is no URL.
    """
    address = parsed(url)
    public = address.url()
    if address.password is not None or address.secrets:
        _given[public] = address.url(password=True)
    return public


def with_password(url: str) -> str:
    """Return the URL to connect to, with the password wherever it is known from."""
    public = without_password(url)
    if public in _given:
        return _given[public]
    asked, offered = parsed(public), os.environ.get(ENVIRONMENT)
    if offered and same_place(offered, public):
        return parsed(offered).url(password=True)
    if asked.kind in REDIS:
        for name in REDIS_PASSWORDS:
            if password := os.environ.get(name):
                return replace(asked, user=asked.user or "", password=password).url(password=True)
    return public


def take_password() -> None:
    """Remember ``PSINAS_STORAGE`` and take it from the environment: workers have no use for it."""
    if offered := os.environ.pop(ENVIRONMENT, None):
        _given[without_password(offered)] = parsed(offered).url(password=True)
        os.environ[ENVIRONMENT] = without_password(offered)


def same_place(offered: str, asked: str) -> bool:
    """Whether two URLs name one database; ``asked`` may leave the user to ``offered``."""
    a, b = parsed(offered), parsed(asked)
    same_user = b.user is None or a.user == b.user
    return (a.kind, _with_port(a), a.path) == (b.kind, _with_port(b), b.path) and same_user


def absolute(url: str) -> str:
    """Return a URL whose file does not depend on the current directory.

    Raises:
        InputError: a ledger in memory, which ends with its process.
    """
    address = parsed(url)
    if address.path is None or "uri=true" in address.query:
        return url
    if address.path in ("", ":memory:"):
        raise InputError(f"storage: expected the path of a file, got {url!r}")
    slash = "/" if address.kind == "sqlite" else ""
    return replace(address, rest=slash + os.path.abspath(address.path)).url(password=True)


def is_relative(url: str) -> bool:
    """Whether a URL names a file from the current directory on."""
    path = parsed(url).path
    return path is not None and not os.path.isabs(path)


def ends_alike(relative: str, saved: str) -> bool:
    """Whether a relative URL may be what an absolute one was made of."""
    a, b = parsed(relative), parsed(saved)
    if a.path is None or b.path is None or a.kind != b.kind:
        return False
    tail = os.path.normpath(a.path).split(os.sep)
    return ".." in tail or os.path.normpath(b.path).split(os.sep)[-len(tail) :] == tail


def shown(url: str) -> str:
    """Return a URL as a person may see it, ``***`` for its password."""
    given = _given.get(url, url)
    try:
        return parsed(given).url(hidden=True)
    except InputError:
        return scrubbed(url)


def scrubbed(text: str) -> str:
    """Return a text without passwords: those of any URL in it, and those that are known here."""
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_TEXT.sub(rf"\1:{HIDDEN}@", text))
    for url in [*_given.values(), os.environ.get(ENVIRONMENT, "")]:
        match = _URL.fullmatch(url)
        password = match[3] if match else None
        for secret in {password or "", unquote(password or "")}:
            if len(secret) > 3:  # a shorter one would take the letters of every word
                text = text.replace(secret, HIDDEN)
    return text


def reason(error: BaseException) -> str:
    """Return the first line of what a database says, without passwords."""
    return scrubbed(first_line(error))


def _with_port(address: Address) -> str:
    ports = {"postgresql": "5432", "mysql": "3306", "redis": "6379", "rediss": "6379"}
    host, slash, database = address.rest.partition("/")
    port = ports.get(address.kind)
    if port and host and not re.search(r":\d+$", host):
        host = f"{host}:{port}"
    return f"{host}{slash}{database}"
