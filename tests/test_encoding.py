"""Text is UTF-8 wherever it is read and written, and Windows can import every module."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest

from launch.show.console import print_anything

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "metrics", "nas", "launch")
CODE = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
CALLS = {"read_text", "write_text", "open"}
POSIX = {"fcntl", "pwd", "grp", "resource", "termios", "pty"}
SIGNALS = {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT"}


def unnamed(source: str) -> list[int]:
    """Return the lines that read or write text without saying in which encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if name not in CALLS or owner == "Image":
            continue
        given = [k.value for k in node.keywords if k.arg == "mode"] + node.args
        modes = [str(a.value) for a in given if isinstance(a, ast.Constant)]
        binary = name == "open" and any("b" in mode for mode in modes)
        binary |= ".zip.open(" in ast.unparse(node)  # of an archive: bytes
        if not binary and "encoding" not in [k.arg for k in node.keywords]:
            found.append(node.lineno)
    return found


def test_an_encoding_is_missed() -> None:
    assert unnamed("p.read_text()\np.write_text(x)\nopen(p)\np.open('rb')\nopen(p, 'w')") == [
        1,
        2,
        3,
        5,
    ]


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_text_is_utf8(path) -> None:
    assert unnamed(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_of_posix_alone_is_needed_to_import(path) -> None:
    """What Windows lacks is asked for inside functions, behind a question."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.partition(".")[0] for alias in node.names}
            assert not POSIX & {*names, getattr(node, "module", None)}, node.lineno
        if isinstance(node, ast.Attribute):
            assert node.attr not in SIGNALS, node.lineno


def test_a_terminal_without_utf8_gets_all_it_can(monkeypatch) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    print_anything()
    print("0.5 ± 0.1 of Ψ, \udcff")
    shown.flush()
    assert shown.buffer.getvalue() == b"0.5 \\xb1 0.1 of \\u03a8, \\udcff\n"
