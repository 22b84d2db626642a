"""An export's directory: what is somebody's own is never replaced, what is ours always can be."""

from __future__ import annotations

import json

import pytest

from nas.errors import InputError
from nas.export.place import MANIFEST, STAGING, check_place, replace_export

OURS = {"architecture": {}, "task": {}, "trial": {}}


def export(out, **files):
    def write(directory):
        (directory / "architecture.json").write_text(json.dumps(OURS))
        for name, text in files.items():
            (directory / name.replace("_", ".")).write_text(text)

    replace_export(out, write)


def names(out):
    return {p.name for p in out.iterdir()}


def test_fewer_files_replace_more(tmp_path):
    out = tmp_path / "out"
    export(out, model_onnx="1", model_py="1", README_md="1")
    (out / "notes.txt").write_text("mine")
    export(out, README_md="2")
    assert names(out) == {"architecture.json", "README.md", MANIFEST, "notes.txt"}
    assert (out / "README.md").read_text() == "2"


def test_a_changed_file_is_named_and_kept(tmp_path):
    out = tmp_path / "out"
    export(out, README_md="1", model_py="1")
    (out / "README.md").write_text("1, and what I found out about it")
    with pytest.raises(InputError, match=r"^--out: .* README\.md changed or added since"):
        export(out, README_md="2")
    assert (out / "README.md").read_text().endswith("about it")
    assert (out / "model.py").read_text() == "1"
    assert not (out / STAGING).exists()


def test_a_file_in_the_way_that_no_export_wrote_is_kept(tmp_path):
    out = tmp_path / "out"
    export(out, README_md="1")
    (out / "model.onnx").write_text("mine")
    with pytest.raises(InputError, match=r"model\.onnx changed or added"):
        check_place(out, ["model.onnx"])
    with pytest.raises(InputError, match=r"model\.onnx changed or added"):
        export(out, README_md="2", model_onnx="2")
    assert (out / "model.onnx").read_text() == "mine"
    assert (out / "README.md").read_text() == "1"
    export(out, README_md="2")  # which needs no such place
    assert (out / "model.onnx").read_text() == "mine"


def test_a_file_that_was_deleted_is_no_matter(tmp_path):
    out = tmp_path / "out"
    export(out, README_md="1", model_py="1")
    (out / "model.py").unlink()
    export(out, README_md="2")
    assert names(out) == {"architecture.json", "README.md", MANIFEST}


def test_an_export_from_before_manifests_is_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "architecture.json").write_text(json.dumps(OURS))
    (out / "README.md").write_text("old")
    (out / "cell.svg").write_text("old")
    (out / ".README.md.partial").write_text("of a kill")
    (out / "model.py").write_text("mine")  # no export wrote such a file then
    with pytest.raises(InputError, match=r"model\.py"):
        export(out, model_py="2")
    export(out, README_md="2")
    assert names(out) == {"architecture.json", "README.md", MANIFEST, "model.py"}


@pytest.mark.parametrize("text", ["[]", "{", '{"psinas export": 3}', '{"files": {"a": "b"}}'])
def test_somebodys_manifest_is_no_export(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match="an earlier export"):
        export(tmp_path, README_md="1")
    assert (tmp_path / MANIFEST).read_text() == text


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    out = tmp_path / "out"
    export(out, README_md="1")
    (tmp_path / "mine").write_text("mine")
    document = json.loads((out / MANIFEST).read_text())
    document["psinas export"]["files"]["../mine"] = ["0" * 64]
    (out / MANIFEST).write_text(json.dumps(document))
    export(out, README_md="2")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_failure_leaves_the_earlier_export(tmp_path):
    out = tmp_path / "out"
    export(out, README_md="1")
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def fail(directory):
        (directory / "README.md").write_text("2")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        replace_export(out, fail)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    with pytest.raises(OSError, match="full"):
        replace_export(tmp_path / "new", fail)
    assert not (tmp_path / "new").exists()


def test_somebodys_files_in_a_directory_of_our_name_are_kept(tmp_path):
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="files of yours"):
        export(tmp_path, README_md="1")
    assert (tmp_path / STAGING / "thesis.tex").read_text() == "mine"


def test_what_a_kill_left_before_anything_moved_goes(tmp_path):
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / "model.onnx").write_text("half")
    export(tmp_path, README_md="1")
    assert names(tmp_path) == {"architecture.json", "README.md", MANIFEST}
