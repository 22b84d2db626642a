"""What --out writes over, and what it does not."""

from __future__ import annotations

import os

import pytest
from helpers import one_line, search_here

from launch.show.outputs import write_file
from launch.show.view import check_csv
from nas.errors import InputError


def test_parts_of_a_run_are_not_written_over(tmp_path, tiny, psinas) -> None:
    run = search_here(tmp_path / "run", {**tiny, "metrics": ["clean", "pgd"], "trials": 1})
    ledger, weights = run / "study.journal", run / "best" / "model.safetensors"
    before = ledger.read_bytes(), weights.read_bytes()
    for format in ("csv", "json", "parquet"):
        one_line(psinas("trials", run, "--format", format, "--out", ledger), "a part of a run")
    one_line(psinas("score", run / "best", "--out", weights), "a part of a run")
    assert (ledger.read_bytes(), weights.read_bytes()) == before


def test_a_file_is_there_whole_or_as_it_was(tmp_path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("before")

    def fails(partial):
        partial.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_file(out, fails)
    assert out.read_text() == "before"


@pytest.mark.skipif(os.name == "nt", reason="links and devices")
def test_links_and_devices_stay_what_they_are(tmp_path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", lambda p: p.write_text("after"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", lambda p: p.write_text("through"))
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_somebodys_picture_beside_a_new_table_stays(tmp_path) -> None:
    (tmp_path / "mine.png").write_text("a photograph")
    with pytest.raises(InputError, match="expected no mine.png without its table"):
        check_csv(tmp_path / "mine.csv", other_than=tmp_path)
    (tmp_path / "mine.csv").write_text("")  # both: an earlier call's
    check_csv(tmp_path / "mine.csv", other_than=tmp_path)
