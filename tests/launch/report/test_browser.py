"""The report as a browser shows it: wide, on a phone, dark, printed, and without scripts."""

from __future__ import annotations

import re
import time

import pytest
from chromium import chromium
from report_runs import write_run

from launch.report.contents import write_report

pytestmark = pytest.mark.browser

OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
DRAWN = "return document.querySelectorAll('.interactive .main-svg').length"
SEEN = """
return [...document.querySelectorAll(arguments[0])]
  .filter((e) => e.getBoundingClientRect().width > 0).length
"""


def wait_for(browser, script, *arguments):
    for _ in range(200):
        if found := browser.run(script, *arguments):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never true: {script}")


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)))


def phone(browser):
    browser.emulate(
        "Emulation.setDeviceMetricsOverride",
        width=390, height=844, deviceScaleFactor=1, mobile=True,
    )  # fmt: skip


def test_a_report_works_wide_narrow_dark_printed_and_hostile(tmp_path):
    name = "<img src=x onerror=window.injected=1>"
    run = write_run(
        tmp_path / "made",
        reason="</script><script>window.injected=1</script>",
        choices=[name, 'a"dam'],
        score='<b>"é"</b>',
        flagged=[2],
    )
    report = write_report([run])
    with chromium(tmp_path / "profile") as browser:
        browser.open(report)
        wait_for(browser, DRAWN)
        assert browser.run("return window.injected") is None
        assert browser.run("return document.querySelectorAll('img').length") == 0
        browser.run("document.getElementById('front-chart').scrollIntoView()")
        wait_for(browser, "return document.querySelectorAll('#front-chart .main-svg').length")
        assert browser.run(SEEN, "#front-chart .picture svg") == 0  # the figure has its place
        # another pair of scores: the front is computed anew, as Python has it
        browser.run(
            "const s = document.querySelector('.choose select'); s.value = 'parameters';"
            "s.dispatchEvent(new Event('change'))"
        )
        title = "return document.querySelector('#front-chart .xtitle').textContent"
        assert browser.run(title) == "parameters (less is better)"
        light = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.emulate("Emulation.setEmulatedMedia", features=features)
        dark = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
        assert (
            sum(map(int, re.findall(r"\d+", dark))) < 200 < sum(map(int, re.findall(r"\d+", light)))
        )
        phone(browser)
        browser.open(report)
        wait_for(browser, DRAWN)
        assert browser.run("return window.innerWidth") == 390
        browser.run("document.getElementById('front-chart').scrollIntoView()")
        wait_for(browser, "return document.querySelectorAll('#front-chart .main-svg').length")
        assert browser.run(OVERFLOW) == 0
        browser.emulate("Emulation.setEmulatedMedia", media="print")
        assert browser.run(SEEN, "#front-chart .picture svg") == 1
        assert browser.run(SEEN, "#front-chart .interactive") == 0
        browser.emulate("Emulation.setEmulatedMedia", media="")
        assert browser.pdf().startswith(b"%PDF")
        assert browser.errors() == []


def test_a_report_shows_every_picture_without_scripts(tmp_path):
    report = write_report([write_run(tmp_path / "made")])
    with chromium(tmp_path / "profile", scripts=False) as browser:
        phone(browser)
        browser.open(report)
        assert browser.run(DRAWN) == 0
        pictures = browser.run("return document.querySelectorAll('figure.chart').length")
        folded = browser.run("return document.querySelectorAll('details figure.chart').length")
        assert pictures > 10
        assert browser.run(SEEN, "figure.chart .picture svg.plot") >= pictures - folded
        assert browser.run(SEEN, ".choose") == 0
        assert browser.run(OVERFLOW) == 0
        assert browser.errors() == []
