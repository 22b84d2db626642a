"""What judges found later stands beside the results, in any storage, and changes none of them."""

from __future__ import annotations

import math

import pytest

from nas.ledger.judged import JUDGED, Judgement, judge_id, judgements
from nas.ledger.records import read_records, records_of
from nas.ledger.results import PLACE, RESULT
from nas.ledger.study import open_study
from nas.ledger.table import table_of

APGD = {"metric": {"name": "apgd", "steps": 100}, "images": None}


def found(number, key, accuracy=0.25):
    return Judgement(number, key, "apgd", APGD, {"apgd_accuracy": accuracy}, 50, 200.0)


@pytest.fixture(params=["journal", "sqlite"])
def storage(request, tmp_path):
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/all.db"


@pytest.fixture
def study(tmp_path, storage):
    """Return a study of two complete trials and a repeat of the first."""
    made = open_study(tmp_path, directions=["maximize"], storage=storage, name="psinas")
    for number, (place, repeat_of) in enumerate([(0, None), (1, None), (None, 0)]):
        trial = made.ask()
        result = {
            "status": "complete", "reason": "", "scores": {"a": 0.5}, "repeat_of": repeat_of,
            "key": f"key-{0 if repeat_of == 0 else number}",
        }  # fmt: skip
        made._storage.set_trial_user_attr(trial._trial_id, RESULT, result)
        made._storage.set_trial_user_attr(trial._trial_id, PLACE, place)
        made.tell(trial, 0.5)
    return made


def test_a_trial_gets_its_own_columns_and_keeps_its_result(study, tmp_path, storage):
    before = read_records(tmp_path, storage=storage)
    judgement = found(1, "key-1")
    study.set_user_attr(judgement.attribute, judgement.to_dict())
    records = read_records(tmp_path, storage=storage)
    assert records == records_of(study)
    assert [r.result for r in records] == [r.result for r in before]
    assert [r.judged for r in records] == [{}, judgement.columns, {}]
    table = table_of(records)
    assert table["judge_apgd_accuracy"].tolist()[1] == 0.25
    assert math.isnan(table["judge_apgd_accuracy"][0])
    assert table.loc[1, ["judge_apgd_images", "judge_apgd_passes"]].tolist() == [50, 200]
    assert judgements(study.user_attrs) == [judgement]


def test_what_is_of_another_trial_or_of_a_later_version_is_passed_over(study, tmp_path, storage):
    before = read_records(tmp_path, storage=storage)
    study.set_user_attr(found(0, "another").attribute, found(0, "another").to_dict())
    later = {**found(1, "key-1").to_dict(), "new": 1}
    study.set_user_attr(f"{JUDGED}1:{judge_id(APGD)}", later)
    study.set_user_attr(f"{JUDGED}x:y", 1)
    assert read_records(tmp_path, storage=storage) == before


def test_judges_are_told_apart_by_settings_and_images():
    ids = [
        judge_id(APGD),
        judge_id({**APGD, "images": 100}),
        judge_id({**APGD, "metric": {"name": "apgd", "steps": 50}}),
    ]
    assert len(set(ids)) == 3
    assert judge_id({"images": None, "metric": {"steps": 100, "name": "apgd"}}) == ids[0]
