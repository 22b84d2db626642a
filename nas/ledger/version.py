"""The version of what a ledger holds, so that an older psinas refuses what it would misread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.errors import InputError

VERSION_KEY = "ledger_version"
"""The attribute of the study. Ledgers from before there was one are of version 1."""

LEDGER_VERSION = 1
"""Raise it when trials, their keys or their results come to mean something else.

A field that is added to recipe or data is no reason: see :func:`nas.seeds.value_hash`.
"""


def check_version(attributes: Mapping[str, Any], where: object) -> None:
    """Refuse the ledger of a later version.

    Args:
        attributes: of the study.
        where: what the ledger is called in the message.

    Raises:
        InputError: it was made by a newer psinas.
    """
    found = attributes.get(VERSION_KEY, 1)
    if not isinstance(found, int) or found > LEDGER_VERSION:
        raise InputError(
            f"{where} was made by a newer psinas: expected a ledger of version <= "
            f"{LEDGER_VERSION}, got {found}; update psinas to open it"
        )
