"""Every reproduction by name: those of each paper stand in its folder's ``reproductions.py``."""

from __future__ import annotations

from launch.papers.cubuk.reproductions import CUBUK
from launch.papers.peck.reproductions import PECK
from launch.papers.psi.reproductions import PSI
from launch.papers.reproduction import Reproduction
from launch.papers.sutton.reproductions import SUTTON
from nas.errors import InputError

REPRODUCTIONS: dict[str, Reproduction] = {**PSI, **CUBUK, **SUTTON, **PECK}


def reproduction(name: str) -> Reproduction:
    """Return the reproduction called ``name``.

    Raises:
        InputError: no such; the message lists the known ones.
    """
    if name not in REPRODUCTIONS:
        raise InputError(f"expected one of {', '.join(REPRODUCTIONS)}, got {name!r}")
    return REPRODUCTIONS[name]
