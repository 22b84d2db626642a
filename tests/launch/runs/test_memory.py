"""What a row keeps of memory: its measured peak, and the micro-batches that replay takes again."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import helpers
import pandas as pd
import pytest
from fake_cuda import PEAK, fake_cuda
from helpers import TINY, search_here

from launch.cluster.worker import TrialActor
from launch.runs.replay import replay
from launch.runs.run import Run
from nas.data.config import DataConfig
from nas.data.datasets import load_images
from nas.ledger.records import Record
from nas.ledger.table import load_table, save_table, table_of
from nas.trial.evaluation import Evaluation, evaluate, evaluation
from nas.trial.repeats import repeated
from nas.trial.runner import TrialRunner
from nas.trial.training import drain

ONE = {**TINY, "space": {**TINY["space"], "depth": [2], "channels": [4]}}


def test_replay_takes_the_micro_batches_of_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "evaluation", partial(evaluation, micro_batch=16))
    run = Run(search_here(tmp_path / "run", ONE))
    row = run.trial(0)
    assert row.result["micro_batch"] == 16
    _, again, different = replay(run, 0)
    assert (different, again.micro_batch) == ([], 16)
    assert evaluate(row.trial).scores["psi"] != row.result["scores"]["psi"]  # batch norm
    table = load_table(run.path)
    assert table["micro_batch"].tolist() == [16]
    assert "peak_memory_bytes" not in table


def test_a_worker_takes_them_from_what_travels_to_it(tmp_path):
    run = Run(search_here(tmp_path / "run", ONE))
    trial = run.trial(0).trial
    images = {trial.data.source: load_images(DataConfig())}
    found = []
    for micro_batch in ({}, {"micro_batch": 16}):
        worker = SimpleNamespace(cleanup=lambda: None, _run=tmp_path, _every=None, _reserve=0)
        worker._runner = TrialRunner(trial, images, device="cpu", threads=1)
        config = {"number": 0, "architecture": trial.architecture.to_dict(), "overrides": {}}
        TrialActor._begin(worker, config | micro_batch)
        found.append(drain(worker._steps).micro_batch)
    assert found == [None, 16]


@pytest.fixture
def trial(tmp_path):
    return Run(search_here(tmp_path / "run", ONE)).trial(0).trial


def test_a_gpus_peak_is_in_the_outcome_and_a_cpu_has_none(trial):
    assert "peak_memory_bytes" not in evaluate(trial).to_dict()
    with fake_cuda():
        outcome = evaluate(trial, device="cuda").to_dict()
    assert json.loads(json.dumps(outcome))["peak_memory_bytes"] == PEAK


@pytest.mark.parametrize(("peaks", "largest"), [((3, 9, 5), 9), ((None,) * 3, None)])
def test_of_repeats_it_is_the_largest(peaks, largest, trial):
    left = list(peaks)

    def run(one):
        yield from ()
        return Evaluation("complete", scores={"a": 1.0}, peak_memory_bytes=left.pop(0))

    assert drain(repeated(run, replace(trial, repeats=3))).peak_memory_bytes == largest


def record(number, **found):
    result = {"status": "complete", "reason": "", "scores": {"a": 0.5}, "epochs": 1, "seconds": 1.0}
    return Record(number=number, params={"depth": 1}, result=result | found)


def test_the_table_has_a_column_only_where_a_trial_was_measured(tmp_path):
    plain = table_of([record(0), record(1)])
    assert not {"peak_memory_bytes", "micro_batch"} & set(plain)
    table = table_of([record(0, peak_memory_bytes=2**35 + 1), record(1)])
    assert list(table)[-2:] == ["peak_memory_bytes", "architecture"]
    save_table(table, tmp_path)
    for read in (
        pd.read_parquet(tmp_path / "trials.parquet"),
        pd.read_csv(tmp_path / "trials.csv", dtype={"peak_memory_bytes": "Int64"}),
    ):
        assert read["peak_memory_bytes"][0] == 2**35 + 1
        assert pd.isna(read["peak_memory_bytes"][1])
