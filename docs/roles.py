"""Let docstrings' ``:func:`name``` be plain code in the site, whose pages are Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
LITERAL = re.compile(r"``(.+?)``", re.S)


class Roles(griffe.Extension):
    """Rewrite every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **others: Any) -> None:
        """Replace roles and literals of reStructuredText."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = LITERAL.sub(r"`\1`", text)
