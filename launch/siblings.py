"""The four packages are this installation's own, whatever else on the path has one of their names.

``metrics`` and ``launch`` are common names: of a script in the working directory, or of a package
on PYTHONPATH. And an editable installation is found by a finder behind all of ``sys.path``.
So whoever imports ``launch`` (the command, a worker) finds the other three beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGES = ("search_spaces", "metrics", "nas", "launch")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Siblings(MetaPathFinder):
    """Finds the four packages where this file lies, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`.

        Raises:
            ImportError: one of the four is not here.
        """
        if fullname not in PACKAGES:
            return None
        found = PathFinder.find_spec(fullname, [ROOT])
        if found is None:
            raise ImportError(
                f"expected the package {fullname} of psinas in {ROOT}, got none there: install "
                "psinas again, in an environment of its own",
                name=fullname,
            )
        return found


def pin() -> None:
    """From here on the four packages are those beside this file.

    Raises:
        ImportError: another package of one of their names has been imported already.
    """
    for name in PACKAGES:
        places = list(getattr(sys.modules.get(name), "__path__", ()))
        ours = os.path.realpath(os.path.join(ROOT, name))
        if name in sys.modules and ours not in map(os.path.realpath, places):
            where = getattr(sys.modules[name], "__file__", None) or "memory"
            raise ImportError(
                f"expected the package {name} of psinas, got {where}, which was imported before",
                name=name,
            )
    if not any(type(finder).__name__ == Siblings.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Siblings())


def overwritten() -> str | None:
    """Return which of the four packages another distribution has installed files into, or None.

    Two distributions with one package write into one directory, and the last one wins.
    """
    import importlib.metadata  # takes 40 ms, and is asked after a fault only

    owners = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        others = sorted(set(owners.get(name, ())) - {"psinas"})
        if others:
            return (
                f"the package {name} is also installed by {', '.join(others)}, and one has "
                "overwritten the other: install psinas in an environment of its own"
            )
    return None


pin()
