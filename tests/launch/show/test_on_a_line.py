"""A reason keeps what stands on its first line, and a terminal shows it on one."""

from __future__ import annotations

from launch.show.tables import on_a_line
from nas.errors import one_line


def test_a_carriage_return_ends_no_line_and_moves_no_cursor():
    reason = one_line(RuntimeError("\n 10%\r100%, done\tx; \r\nmore"))
    assert reason == "RuntimeError: 10%\r100%, done\tx;"
    assert on_a_line(reason) == "RuntimeError: 10%\\r100%, done\\tx;"
    assert on_a_line("Ψ̂ é ±") == "Ψ̂ é ±"
