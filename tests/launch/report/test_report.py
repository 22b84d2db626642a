"""What a report says of a run, of an odd one too, and that nothing in a name becomes markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from report_runs import write_run

from launch.report.contents import sections_of, write_report
from launch.report.findings import gather
from launch.report.page import (
    Chart,
    Details,
    Paragraph,
    Section,
    is_page,
    json_for_html,
    page,
    write_page,
)
from launch.report.sections.cost import where_time_went
from launch.report.sections.distributions import histogram
from launch.report.sections.parallel import best_tenth
from launch.report.sections.progress import best_so_far
from launch.report.sections.summary import overlapping, sentences
from nas.errors import InputError

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"onload="alert(1)',
    "<b>é\u2028ψ</b>",
    "a\x00b\x1b%",
)


class Tags(HTMLParser):
    """Counts the tags of a page, and keeps its texts and data."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: list[tuple[str, str]] = []
        self.data: dict[str, str] = {}
        self.texts: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(k, v or "") for k, v in attrs]
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data):
        self.data[self._inside] = self.data.get(self._inside, "") + data
        self.texts.append(data)


@pytest.fixture(autouse=True)
def _light(monkeypatch, request):
    """Write pages without plotly's 4.8 MB, which take a second to parse, but where they matter."""
    if "whole" not in request.fixturenames:
        monkeypatch.setattr("launch.report.page.plotly_script", lambda: "var Plotly = null;")


@pytest.fixture
def whole():
    """Pages have plotly's script in them."""


def read(path):
    tags = Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    return tags


def words(section):
    return " ".join([section.lead, *(b.text for b in section.blocks if isinstance(b, Paragraph))])


def section(found, name):
    return next(s for s in sections_of(found) if s.id == name)


def test_a_report_has_its_sections_and_one_plotly(tmp_path):
    run = write_run(tmp_path / "made")
    out = write_report([run])
    assert out == run / "report.html"
    tags = read(out)
    assert tags.tags["h1"] == 1
    assert tags.tags["script"] == 3  # data, plotly, ours
    assert tags.tags["th"] > 40
    assert {"src", "srcset", "action"}.isdisjoint(k for k, _ in tags.attributes)
    links = {v for k, v in tags.attributes if k == "href"}
    assert all(link.startswith(("#", "data:")) for link in links)
    figures = json.loads(tags.data["data"])["figures"]
    ids = [v for k, v in tags.attributes if k == "id"]
    assert set(figures) <= set(ids)
    assert len(ids) == len(set(ids))
    assert all(figure["data"] for figure in figures.values())


def test_every_chart_has_a_picture_with_a_title(tmp_path):
    for made in sections_of(gather([write_run(tmp_path / "made")])):
        for block in made.blocks:
            for chart in block.blocks if isinstance(block, Details) else [block]:
                if isinstance(chart, Chart):
                    assert chart.svg.startswith("<svg")
                    assert "<title>" in chart.svg
                    assert "NaN" not in chart.svg and "nan" not in chart.svg.split("<desc>")[0]  # noqa: PT018
                    assert chart.caption


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(tmp_path, name):
    plain = read(write_report([write_run(tmp_path / "plain", choices=["sgd", "adam"], score="x")]))
    keeps = name.encode("utf-8", "replace").decode()
    run = write_run(tmp_path / "made", reason=name, choices=[name, "adam"], score=keeps)
    tags = read(write_report([run]))
    assert tags.tags == plain.tags
    names = {k for k, _ in tags.attributes}
    assert names == {k for k, _ in plain.attributes}
    figures = json.loads(tags.data["data"])["figures"]
    assert len(figures) == len(json.loads(plain.data["data"])["figures"])


def test_data_is_no_markup_and_comes_back():
    value = {"a<b>&c": ["</script>", "\u2028", float("nan"), 1.5, None, True]}
    text = json_for_html(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a<b>&c": ["</script>", "\ufffd", None, 1.5, None, True]}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"n": 0}, "no trial has begun"),
        ({"n": 1}, "There is no other complete trial"),
        ({"n": 4, "failing": 1}, "there is no winner"),
        ({"n": 5, "running": 2}, "2 left"),
    ],
)
def test_an_odd_run_is_told_as_it_is(tmp_path, over, says):
    run = write_run(tmp_path / "made", over.pop("n"), **over)
    found = gather([run])
    assert says in words(section(found, "summary"))
    assert is_page(write_report([run]))


def test_a_run_without_a_ledger_is_said(tmp_path):
    run = write_run(tmp_path / "made")
    (run / "study.journal").unlink()
    assert "there is no ledger yet" in words(section(gather([run]), "summary"))
    assert is_page(write_report([run]))


def test_no_run_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="run directory"):
        write_report([tmp_path])


def test_several_runs_are_told_apart_by_colour_and_shape(tmp_path):
    (tmp_path / "b").mkdir()
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b" / "a", seed=1)]
    found = gather(runs)
    labels = [searched.label for searched in found.runs]
    assert len(set(labels)) == 2
    figure = section(found, "progress").blocks[0].figure
    marks = [t["marker"] for t in figure["data"] if t["mode"] == "markers"]
    lines = [t["line"] for t in figure["data"] if t["mode"] == "lines"]
    assert len({m["symbol"] for m in marks}) == len({m["color"] for m in marks}) == 2
    assert len({line["dash"] for line in lines}) == 2


def test_how_many_intervals_overlap_the_winners(tmp_path):
    found = gather([write_run(tmp_path / "made", 40)])
    table = found.complete
    winner = table.loc[table["pgd_accuracy"].idxmax()]
    others = [row for _, row in table.iterrows() if row["number"] != winner["number"]]
    count = sum(
        row["pgd_accuracy_high"] >= winner["pgd_accuracy_low"]
        and row["pgd_accuracy_low"] <= winner["pgd_accuracy_high"]
        for row in others
    )
    assert 0 < count < len(others)
    number = int(winner["number"])
    assert overlapping(found.table, number, "pgd_accuracy") == (count, len(others))
    text = " ".join(t for t, _ in sentences(found, found.runs[0]))
    assert f"Trial {number} wins" in text
    assert f"{count} of the {len(others)} others overlap" in text


def test_a_suspicious_trial_does_not_win_and_is_named(tmp_path):
    found = gather([write_run(tmp_path / "plain")])
    number = found.runs[0].best("pgd_accuracy", "max")["number"]
    doubted = gather([write_run(tmp_path / "made", flagged=[number])])
    text = words(section(doubted, "summary"))
    assert f"Trial {number} wins" not in text
    assert f"such as trial {number}" in text
    assert "zero_gradient" in section(doubted, "flags").blocks[0].rows[0]


def test_the_best_so_far_is_a_running_maximum(tmp_path):
    searched = gather([write_run(tmp_path / "made", 50)]).runs[0]
    rows = best_so_far(searched.results, "pgd_accuracy", "max")
    values = [row[2] for row in rows]
    assert [row[3] for row in rows] == list(np.maximum.accumulate(values))
    every = [r["seconds"] for r in searched.results]
    assert [row[1] for row in rows] == pytest.approx([sum(every[: row[0]]) / 3600 for row in rows])
    least = best_so_far(searched.results, "psi", "min")
    assert least[-1][3] == min(row[2] for row in least)


def test_a_suspicious_trial_is_never_the_best_so_far(tmp_path):
    plain = best_so_far(gather([write_run(tmp_path / "a")]).runs[0].results, "psi", "min")
    number = min(plain, key=lambda row: row[2])[4]
    run = write_run(tmp_path / "b", flagged=[number])
    doubted = best_so_far(gather([run]).runs[0].results, "psi", "min")
    assert doubted[-1][3] == min(row[2] for row in doubted if row[4] != number) > plain[-1][3]


def test_hours_add_up(tmp_path):
    found = gather([write_run(tmp_path / "made", 30)])
    parts = where_time_went(found, found.runs[0])
    assert sum(parts.values()) == pytest.approx(found.table["seconds"].sum() / 3600)
    assert set(parts) == {"training", "scoring", "rest", "diverged"}


def test_a_histogram_counts_every_trial_once(tmp_path):
    found = gather([write_run(tmp_path / "made", 60)])
    trace = histogram(found, "psi", 0).figure["data"][0]
    x, y = np.array(trace["x"]), np.array(trace["y"], dtype=float)
    heights = y[1:-1:2]
    assert heights.sum() == len(found.complete)
    assert x[0] == pytest.approx(found.complete["psi"].min(), rel=1e-5)


def test_the_best_tenth():
    values = np.array([3.0, 1.0, 2.0, 5.0, 5.0, 4.0, 0.0, -1.0, 2.0, 2.0])
    assert list(np.flatnonzero(best_tenth(values, "max"))) == [3, 4]  # equals
    assert list(np.flatnonzero(best_tenth(values, "min"))) == [7]


def test_only_a_report_is_written_over(tmp_path):
    run = write_run(tmp_path / "made", 3)
    mine = tmp_path / "mine.html"
    mine.write_text("<h1>mine</h1>", encoding="utf-8")
    with pytest.raises(InputError, match="which no psinas report wrote"):
        write_report([run], mine)
    assert mine.read_text(encoding="utf-8") == "<h1>mine</h1>"
    first = write_report([run], tmp_path / "r.html")
    assert write_report([run], first) == first


def test_plotly_is_there_once_where_there_are_figures(tmp_path, whole):
    assert len(page("empty", [])) < 100_000
    size = write_report([write_run(tmp_path / "made")]).stat().st_size
    assert 4.5e6 < size < 6e6
    assert is_page(tmp_path / "made" / "report.html")


def test_a_page_holds_any_text(tmp_path):
    write_page(tmp_path / "a.html", "\ud800\x00 é", [Section("s", "\udfff", "\x00", [])])
    assert "é" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_the_command_says_where_and_refuses_unknown_scores(tmp_path, psinas):
    run = write_run(tmp_path / "made")
    code, out, _ = psinas("report", run, "--scores", "parameters,clean_accuracy")
    assert (code, out.strip()) == (0, f"report in {run / 'report.html'}")
    chooser = json.loads(read(run / "report.html").data["data"])["choosers"]["front-chart"]
    assert (chooser["x"], chooser["y"]) == ("parameters", "clean_accuracy")
    code, _, err = psinas("report", run, "--scores", "pgd_acc,psi")
    assert code == 2
    assert "expected two scores" in err


@pytest.mark.slow
def test_ten_thousand_trials_fit(tmp_path, whole):
    import time

    run = write_run(tmp_path / "made", 10_000)
    begin = time.process_time()
    out = write_report([run])
    assert time.process_time() - begin < 10  # of the CPU, whatever else runs
    assert out.stat().st_size < 15e6
    assert "of 9,000 complete trials are drawn" in out.read_text(encoding="utf-8")
