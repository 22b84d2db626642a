"""A headless Chromium, told what to do over chromedriver's plain HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run "
    "--hide-scrollbars"
).split()


class Browser:
    """One session. ``do`` is a command of the WebDriver protocol."""

    def __init__(self, address: str, session: str) -> None:
        self._address = f"{address}/session/{session}"

    def do(self, command: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        return ask(f"{self._address}/{command}", body, method)

    def open(self, page: Path) -> None:
        self.do("url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns; the page's own policy does not bind it."""
        return self.do("execute/sync", {"script": script, "args": list(arguments)})

    def emulate(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.do("goog/cdp/execute", {"cmd": command, "params": parameters})

    def errors(self) -> list[str]:
        """Return what the console heard since it was asked: errors and refusals."""
        return [f"{e['level']} {e['message']}" for e in self.do("se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("screenshot", method="GET")))

    def pdf(self) -> bytes:
        return base64.b64decode(self.do("print", {}))


def ask(url: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
    data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["value"]


@contextmanager
def chromium(profile: Path, *, scripts: bool = True) -> Iterator[Browser]:
    """Start a browser with a profile of its own, or skip where there is none."""
    driver, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or binary is None:
        pytest.skip("needs Chromium and chromedriver")
    with subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = next(
                line.rstrip(".\n").rpartition(" ")[2]
                for line in process.stdout
                if "started successfully on port" in line
            )
            address = f"http://127.0.0.1:{port}"
            settings: dict[str, Any] = {
                "binary": binary,
                "args": [*ARGUMENTS, f"--user-data-dir={profile}"],
            }
            if not scripts:
                settings["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
            always = {"goog:chromeOptions": settings, "goog:loggingPrefs": {"browser": "ALL"}}
            started = ask(f"{address}/session", {"capabilities": {"alwaysMatch": always}})
            browser = Browser(address, started["sessionId"])
            try:
                yield browser
            finally:
                ask(f"{address}/session/{started['sessionId']}", method="DELETE")
        finally:
            process.terminate()
