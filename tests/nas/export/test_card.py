"""The model card: what the hub reads of it, and that nobody's text becomes markup."""

from __future__ import annotations

import re

import pytest
import yaml

from nas.errors import InputError
from nas.export.agreement import Agreement
from nas.export.card import Written, model_card, plain
from nas.export.metadata import LICENCES, check_licence, papers_of

EVIL = "<script>alert(1)</script> | [x](http://evil.example) `y` *z*\n---\nlicense: mit"
AGREED = Agreement(256, 1e-6, 1e-4, 0, 0, 0, (0.5, 0.5))


def description(**trial):
    scores = {
        "clean_accuracy": 0.9, "clean_accuracy_low": 0.85, "clean_accuracy_high": 0.93,
        "pgd_accuracy": 0.4, "psi": 21.0, "psi_low": 19.0, "psi_high": 23.0, "psi_saturated": 1.0,
        "bracket_lower": 0.01, "bracket_upper": 0.05, "bracket_certified": 0.1,
        "bracket_broken": 0.7, "bracket_unknown": 0.2, "suspicion_not_converged_raised": 1.0,
        "parameters": 1234.0, "macs": 5678.0, "train_seconds": 12.0,
    }  # fmt: skip
    return {
        "architecture": {"space": "nasnet", "choices": {"cells": 2}, "hash": "ab12"},
        "task": {"shape": (3, 32, 32), "classes": 10},
        "trial": {
            "number": 7, "seed": 0, "scores": scores, "repeat": 0, "repeats": [],
            "recipe": {"adversary": "pgd", "loss": "trades", "awp": 0.0, "epsilon": 8 / 255},
            "environment": {"torch": "2.14.1"}, "data": {"name": "cifar10", "classes": None},
            "data_checksum": {"train": "0123456789abcdef"},
            "metrics": [{"name": "pgd", "steps": 20, "restarts": 2, "norm": "linf"}], **trial,
        },
    }  # fmt: skip


def test_the_hub_reads_the_header():
    hub = pytest.importorskip("huggingface_hub")
    written = Written(formats={"onnx": AGREED}, licence="CC-BY-4.0")
    card = hub.ModelCard(model_card(description(), written))
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0", "psinas", "image-classification"
    )  # fmt: skip
    assert data.datasets == ["uoft-cs/cifar10"]
    assert {"adversarial-robustness", "onnx"} <= set(data.tags)
    assert [(r.metric_name, r.metric_value) for r in data.eval_results] == [
        ("clean_accuracy", 0.9), ("pgd_accuracy", 0.4)
    ]  # fmt: skip
    assert {r.dataset_split for r in data.eval_results} == {"validation"}
    assert data.model_name == "nasnet-ab12"
    again = hub.ModelCardData(**card.data.to_dict())
    assert again.to_dict() == card.data.to_dict()


def test_everything_is_on_the_card():
    card = model_card(description(), Written(formats={"onnx": AGREED}, cell=True))
    for text in (
        "| clean_accuracy | 0.9 | 0.85 to 0.93 |",
        "| pgd | steps 20, restarts 2, norm linf |",
        "**Suspicious: not_converged.**",
        "Ψ = 21 (19 to 23)", "**saturated**",
        "0.01 to 0.05", "certified 0.1, broken 0.7, unknown 0.2",
        "`0123456789abcdef`",
        "| trainable parameters | 1,234 |", "| multiply-accumulates for one image | 5,678 |",
        "Unknown: whoever exported these weights named none",
        "arXiv:1707.07012", "arXiv:1706.06083", "arXiv:1901.08573",
        "![The cell that the network repeats](cell.svg)",
        "opset 18",
    ):  # fmt: skip
        assert text in card, text
    assert "arXiv:2004.05884" not in card  # awp 0 is none


def test_nothing_is_made_up():
    bare = description(
        scores={"clean_accuracy": float("nan")}, metrics=[], data={"name": "mine.npz"}
    )
    card = model_card(bare)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "unknown"
    assert not {"datasets", "model-index", "metrics"} & header.keys()
    for text in ("Ψ was not measured", "was not bracketed", "Not recorded.", "Not measured."):
        assert text in card


@pytest.mark.parametrize(
    ("licence", "header"),
    [
        ("MIT", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Hippocratic-2.1", {"license": "other", "license_name": "hippocratic-2.1"}),
    ],
)
def test_a_licence_is_what_the_user_names(licence, header):
    found = yaml.safe_load(model_card(description(), Written(licence=licence)).split("---\n")[1])
    assert {k: v for k, v in found.items() if k.startswith("license")} == header
    assert check_licence(licence) == licence


@pytest.mark.parametrize("name", ["", "MIT\nx: y", "a b", "x" * 99, ": y"])
def test_a_licence_is_no_other_text(name):
    with pytest.raises(InputError, match="^--licence: expected an SPDX identifier"):
        check_licence(name)


def test_licences_are_written_as_the_hub_does():
    assert {name.lower() for name in LICENCES} == LICENCES


def test_nobodys_text_becomes_markup():
    evil = description(
        data={"name": EVIL, "classes": [EVIL]}, environment={"device": EVIL},
        metrics=[{"name": EVIL, "of": EVIL}], recipe={"loss": EVIL},
        scores={EVIL: 1.0, f"{EVIL}_accuracy": 0.5},
    )  # fmt: skip
    evil["architecture"] |= {"space": EVIL, "choices": {EVIL: EVIL}}
    card = model_card(evil, Written(left_out=[EVIL], asked=EVIL))
    _, header, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(header)["license"] == "unknown"
    assert yaml.safe_load(header)["model-index"][0]["results"][0]["dataset"]["name"] == EVIL
    assert "<script" not in body
    assert "[x](" not in body
    assert "---\nlicense" not in body
    for line in body.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4), line


def test_plain_text_stays_legible():
    assert plain("clean_accuracy 0.5, depth 8") == "clean_accuracy 0.5, depth 8"
    assert plain("a | b_\n_c") == r"a \| b\_ \_c"


def test_papers_are_those_of_space_and_recipe():
    assert papers_of("own.module:Space", {}) == []
    assert any("1605.07146" in paper for paper in papers_of("cifar-resnet", {}))
    assert any("2004.05884" in paper for paper in papers_of("resnet", {"awp": 0.005}))
