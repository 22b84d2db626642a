"""Errors of plain nets over ε: from two tiny searches on digits to lines, table and picture."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import search_here

from launch.config.config import load_config
from launch.papers.cubuk import nets as nets_module
from launch.papers.cubuk.figure2 import figure_2
from launch.papers.cubuk.nets import ATTACKS, measured, nets
from launch.runs.run import Run
from launch.show.reporter import Reporter
from metrics import FGSM, PGD, correct, robust_accuracy
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.errors import InputError

TEST = 60
SMALL = [
    f"data={{name: digits, limit: {{train: 400, validation: 40, test: {TEST}}}}}",
    "space.units=[16]",
    "recipe.epochs=3",
    "metrics=[clean, cost]",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("cubuk-figure2")
    own = {
        "cubuk-figure2-quick": [*SMALL, "space.kinds=[dense]"],
        "cubuk-figure2-shuffled-quick": [*SMALL, "data.shuffled_labels=true", "recipe.epochs=60"],
    }
    return [
        Run(search_here(place / name, load_config(name, sets).resolved()))
        for name, sets in own.items()
    ]


@pytest.fixture(scope="module")
def view(runs):
    return figure_2(runs, Reporter())


def test_errors_are_those_of_robust_accuracy(runs, view):
    for net in nets(runs[0]):
        x, y = net.images("test").images(), net.images("test").labels
        model, own = net.model(), view.table[view.table["number"] == net.row.number]
        own = own[(own["attack"] == "FGSM") & (own["search"] == "cubuk-figure2-quick")]
        clean = correct(model, x, y).double().mean().item()
        assert len(y) == TEST
        assert own["clean_accuracy"].tolist() == [clean] * len(own)
        for row in own.iloc[[3, 15, 20]].itertuples():
            accuracy = robust_accuracy(model, x, y, FGSM(epsilon=row.epsilon)).accuracy
            assert row.accuracy == accuracy
            assert row.adversarial_error == pytest.approx(clean - accuracy)


def test_pgd_within_epsilon_never_recovers(view):
    own = view.table[view.table["attack"] == "PGD-20"]
    for _, curve in own.groupby(["search", "number"]):
        assert curve["accuracy"].is_monotonic_decreasing


def test_shuffled_labels_are_asked_on_what_was_trained_on(runs, view):
    (net,) = nets(runs[1])
    data = prepare(load_images(net.row.trial.data), net.row.trial.data)
    right = correct(net.model(), data.train.images(), data.train.labels).double().mean().item()
    own = view.table[view.table["search"] == "cubuk-figure2-shuffled-quick"]
    assert own["part"].eq("train").all()
    assert own["clean_accuracy"].iloc[0] == right
    assert own["images"].iloc[0] == 400
    assert right > 0.15  # learned by heart; guessing is .1


def test_the_lines_name_net_attack_and_the_papers_exponent(view):
    text = "\n".join(view.lines)
    row = next(line for line in view.lines if line.startswith("dense 16-16") and "PGD-20" in line)
    assert "1.3" in row  # the paper's
    assert "linear, plain" in text
    assert "dense 16-16, shuffled labels, training images" in text
    assert len(view.figure.axes) == 3


def test_a_second_look_measures_nothing(runs, view, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(nets_module, "error_curve", refuse)
    again = figure_2(runs, Reporter())
    assert again.lines == view.lines
    assert again.table.equals(view.table)


def test_another_attack_or_part_is_measured_anew(runs, view):
    few = {"PGD-20": PGD(steps=1, random_start=False)}
    (weak, *_) = measured(nets(runs[0])[:1], Reporter(), few)
    strong = view.table[(view.table["attack"] == "PGD-20") & (view.table["number"] == 0)]
    assert list(weak.accuracies) != strong["accuracy"].tolist()[: len(weak.accuracies)]
    assert sum(weak.accuracies) >= strong["accuracy"].head(len(weak.accuracies)).sum()


def test_a_torn_file_is_measured_again(runs, view):
    net = nets(runs[0])[0]
    (path,) = [p for p in (runs[0].path / "trials" / "0").glob("error-*.json")
               if json.loads(p.read_text())["found"]["total"] == TEST][:1]  # fmt: skip
    whole = path.read_text()
    path.write_text(whole[:40])
    measured([net], Reporter(), ATTACKS)
    assert json.loads(path.read_text()) == json.loads(whole)


def test_a_net_without_weights_is_named(runs, tmp_path):
    (runs[0].path / "trials" / "0" / "weights.safetensors").rename(tmp_path / "kept")
    try:
        with pytest.raises(InputError, match="expected the weights of every trial .* none of 0"):
            nets(Run(runs[0].path))
    finally:
        (tmp_path / "kept").rename(runs[0].path / "trials" / "0" / "weights.safetensors")


def test_random_starts_are_the_same_each_time(runs):
    (a, *_), (b, *_) = (
        measured(nets(runs[0])[:1], Reporter(), {"PGD-20": PGD(steps=steps)}) for steps in (2, 2)
    )
    assert a == b


def test_torch_has_the_threads_of_a_trial_while_it_measures(runs):
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        nets(runs[0])[0].kept("threads", {}, lambda: seen.append(torch.get_num_threads()))
        assert seen == [runs[0].config.resources.cpu] == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
