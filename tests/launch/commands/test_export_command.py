"""``psinas export`` as a user sees it: what it writes, says and returns."""

from __future__ import annotations

import json

import onnx
import pytest
from helpers import one_line, search_here

from nas.export import formats
from nas.export.formats import LeftOut
from nas.trial.files import trial_directory


@pytest.fixture
def run(tmp_path, tiny):
    return search_here(tmp_path / "run", {**tiny, "metrics": ["clean", "pgd"], "trials": 1})


@pytest.fixture
def written_quickly(monkeypatch):
    """Let the formats that take seconds be written at once, each by what is given."""

    def onnx(original, directory):
        (directory / "model.onnx").write_text("o")
        return original.model

    def program(original, directory):
        (directory / "model.pt2").write_text("p")
        return original.model

    monkeypatch.setitem(formats.WRITERS, "onnx", (onnx, ("model.onnx",)))
    monkeypatch.setitem(formats.WRITERS, "program", (program, ("model.pt2",)))


def names(out):
    return {p.name for p in out.iterdir()}


LIGHT = {"architecture.json", "model.safetensors", "README.md", "manifest.json"}
PYTHON = {"model.py", "check.safetensors"}


def test_all_formats_by_default(run, psinas, tmp_path):
    out = tmp_path / "out"
    code, said, err = psinas("export", run, "--trial", 0, "--out", out)
    assert (code, err) == (0, "")
    assert said.splitlines() == [f"trial 0 exported to {out} with onnx, program, python"]
    assert names(out) == LIGHT | PYTHON | {"model.onnx", "model.pt2"}
    card = (out / "README.md").read_text()
    assert "validation images of digits" in card
    assert names(run / "best") == LIGHT  # no search waits for more
    assert '| model.pt2 | `torch.export.load("model.pt2").module()`, without psinas | 0 (' in card
    model = onnx.load(out / "model.onnx")
    onnx.checker.check_model(model)
    assert {p.key: p.value for p in model.metadata_props}["opset"] == str(formats.OPSET)
    assert [o.version for o in model.opset_import if not o.domain] == [formats.OPSET]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for name in ("model.onnx", "model.pt2"):  # where the code lies here is nobody's business
        data = (out / name).read_bytes()
        assert b"search_spaces/" not in data
        assert b"site-packages" not in data


def test_formats_by_name(run, psinas, tmp_path, written_quickly):
    out = tmp_path / "out"
    assert psinas("export", run, "--trial", 0, "--out", out)[0] == 0
    code, said, _ = psinas("export", run, "--trial", 0, "--out", out, "--formats", "python")
    assert (code, said) == (0, f"trial 0 exported to {out} with python\n")
    assert names(out) == LIGHT | PYTHON
    one_line(
        psinas("export", run, "--trial", 0, "--out", out, "--formats", "moon"),
        "--formats: expected some of weights, onnx, program, python, got moon",
    )


def test_a_format_that_fails_is_said_and_the_rest_is_there(
    run, psinas, tmp_path, written_quickly, monkeypatch
):
    def missing(*_):
        raise LeftOut("it needs onnx")

    monkeypatch.setitem(formats.WRITERS, "onnx", (missing, ("model.onnx",)))
    out = tmp_path / "out"
    code, said, err = psinas("export", run, "--trial", 0, "--out", out)
    assert (code, err) == (0, "")  # nobody asked for it by name
    assert said.splitlines()[1:] == ["model.onnx left out: it needs onnx"]
    assert names(out) == LIGHT | PYTHON | {"model.pt2"}
    assert "model.onnx left out" in (out / "README.md").read_text()
    for asked, code in (("onnx,python", 1), ("program", 0)):
        assert psinas("export", run, "--trial", 0, "--out", out, "--formats", asked)[0] == code


def test_without_data_random_images_are_asked_and_the_card_says_so(
    run, psinas, tmp_path, monkeypatch
):
    from launch.runs import export
    from nas.errors import InputError

    def gone(*_, **__):
        raise InputError("expected digits, got <none>")

    monkeypatch.setattr(export, "load_as_before", gone)
    out = tmp_path / "out"
    assert psinas("export", run, "--trial", 0, "--out", out, "--formats", "python")[0] == 0
    card = (out / "README.md").read_text()
    assert "random images, seed 0, for want of data (expected digits, got &lt;none&gt;)" in card


def test_robustbench_takes_its_own_data_alone(run, psinas, tmp_path):
    out = tmp_path / "out"
    code, said, _ = psinas(
        "export", run, "--trial", 0, "--out", out, "--formats", "weights", "--robustbench"
    )
    assert code == 1
    assert said.splitlines()[1:] == [
        "robustbench_model.py left out: RobustBench knows cifar10, cifar100, imagenet, and this "
        "model is of digits"
    ]
    assert names(out) == LIGHT | PYTHON


def test_robustbench_of_its_data(run, psinas, tmp_path, monkeypatch):
    from nas.export import export

    monkeypatch.setattr(export, "refusal", lambda description: "")
    monkeypatch.setattr(
        export, "write_robustbench",
        lambda description, directory: (directory / "robustbench_model.py").write_text("w"),
    )  # fmt: skip
    out = tmp_path / "out"
    asked = ("--formats", "python", "--robustbench", "--licence", "MIT")
    assert psinas("export", run, "--trial", 0, "--out", out, *asked)[0] == 0
    assert names(out) == LIGHT | PYTHON | {"robustbench_model.py"}
    card = (out / "README.md").read_text()
    assert "license: mit\n" in card
    assert "MIT, as named by whoever exported" in card


def test_a_changed_card_is_not_written_over(run, psinas, tmp_path):
    out = tmp_path / "out"
    arguments = ("export", run, "--trial", 0, "--out", out, "--formats", "weights")
    assert psinas(*arguments)[0] == 0
    (out / "README.md").write_text("my own words")
    one_line(psinas(*arguments), "README.md changed or added since", str(out))
    assert (out / "README.md").read_text() == "my own words"


def test_a_search_ends_well_beside_a_card_that_somebody_changed(run, psinas, in_process):
    (run / "best" / "README.md").write_text("my own words")
    code, said, err = psinas("search", "--resume", "--out", run, "--trials", 2)
    assert code == 0, err
    assert "not exported (expected files that an export wrote, got" in " ".join(said.split())
    assert (run / "best" / "README.md").read_text() == "my own words"


def test_a_licence_is_an_identifier(run, psinas, tmp_path):
    out = tmp_path / "out"
    one_line(psinas("export", run, "--trial", 0, "--out", out, "--licence", "do what you want"),
             "--licence: expected an SPDX identifier")  # fmt: skip
    assert not out.exists()


def test_scores_and_loading_take_an_old_export(run, psinas, tmp_path):
    out = tmp_path / "out"
    assert psinas("export", run, "--trial", 0, "--out", out, "--formats", "weights")[0] == 0
    (out / "manifest.json").unlink()  # as before there was one
    code, said, err = psinas("score", out, "--metrics", "clean", "--limit", 50)
    assert (code, err) == (0, "")
    assert "clean_accuracy" in said
    assert json.loads((trial_directory(run, 0) / "architecture.json").read_text())
    assert psinas("export", run, "--trial", 0, "--out", out, "--formats", "weights")[0] == 0
    assert names(out) == LIGHT
