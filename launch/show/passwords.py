"""A password on the command line: out of the process list, and of what Ray writes down."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from nas.errors import InputError
from nas.ledger.address import ENVIRONMENT, parsed, scrubbed, without_password


def out_of_sight() -> None:
    """Start this program again with ``PSINAS_STORAGE`` for the password that it was given.

    Everybody on the machine can read a command line, and Ray keeps that of its driver.
    """
    changed = [_without(argument) for argument in sys.orig_argv]
    given = [url for _, url in changed if url is not None]
    if os.name != "posix" or not given or sys.argv[1:] != sys.orig_argv[-len(sys.argv) + 1 :]:
        return
    os.environ[ENVIRONMENT] = given[-1]
    os.execv(sys.executable, [sys.executable, *(argument for argument, _ in changed[1:])])


def scrub_tracebacks() -> None:
    """Let Python print an uncaught error without passwords."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(scrubbed("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = hook


def _without(argument: str) -> tuple[str, str | None]:
    """Return an argument without its URL's password, and that URL if it had one."""
    before, found, url = argument.partition("storage=")
    if not found:
        before, url = "", argument
    try:
        address = parsed(url)
    except InputError:
        return argument, None
    if address.password is None and not address.secrets:
        return argument, None
    return f"{before}{found}{without_password(url)}", address.url(password=True)
