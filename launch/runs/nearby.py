"""Which run directories lie near a path, for whoever mistyped one."""

from __future__ import annotations

import difflib
from pathlib import Path

CONFIG = "config.yaml"
SHOWN = 6  # run directories that fit on a line


def nearby_runs(path: Path) -> list[str]:
    """Return the run directories beside ``path``, in ``runs/`` and here, the likeliest first."""
    places = dict.fromkeys([path.parent, Path("runs"), Path()])
    found = dict.fromkeys(str(run) for place in places for run in _runs(place))
    close = difflib.get_close_matches(str(path), found, n=SHOWN, cutoff=0.6)
    return list(dict.fromkeys([*close, *sorted(found)]))


def named_nearby(path: Path) -> str:
    """Return what to add to a line that refuses ``path``: the runs near it, or that none is."""
    runs = nearby_runs(path)
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return f"runs nearby: {', '.join(runs[:SHOWN])}{more}" if runs else "no run is nearby"


def _runs(place: Path) -> list[Path]:
    try:
        return sorted(child for child in place.iterdir() if (child / CONFIG).is_file())
    except OSError:
        return []
