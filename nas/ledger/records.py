"""The ledger's trials as plain records, read from the journal without Optuna.

A table, a front or an export only looks: 10,000 trials are read in the time that Optuna takes to be
imported, also while a driver is writing. Studies in another storage of Optuna's are read by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import InputError, NoStudy
from nas.ledger.judged import Judgement, judgements, of_trial
from nas.ledger.operations import Op
from nas.ledger.results import DRIVER, JOURNAL, PLACE, RESULT, RETRY_OF, STUDY, place_of
from nas.ledger.version import check_version

if TYPE_CHECKING:
    from optuna.study import Study

MANY = 8  # decisions of a space that still fit on a line


@dataclass
class Record:
    """A trial of the ledger.

    Attributes:
        number: of the trial: its place among the different ones. A repeat has that of the trial
            that it repeats; in a ledger of before there were places it has one of its own.
        params: decision -> choice, in the order in which they were asked.
        choices: decision -> all its choices.
        result: what became of it; None while it runs.
        retry_of: Optuna's number of the failed trial whose place it takes.
        asked: Optuna's number of the trial, which counts every proposal.
        driver: the id of the driver that runs it, in a storage that several share; None: the run's.
        judged: columns that later judges gave it (:mod:`nas.ledger.judged`).
    """

    number: int
    params: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    retry_of: int | None = None
    asked: int = -1
    driver: str | None = None
    judged: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it is a finished trial of its own, not one answered from another's."""
        return self.result is not None and self.result.get("repeat_of") is None


def read_records(
    run: Path, *, storage: str | None = None, name: str = STUDY, run_id: str | None = None
) -> list[Record]:
    """Return every trial of a run and every repeat of one, in the order of the proposals.

    A proposal that is not decided yet, or waits for the running trial that it repeats, is left out.

    Args:
        run: the run directory.
        storage: the URL of another storage of Optuna's than the run's own journal.
        name: of the study.
        run_id: whose study it must be, where several runs share a storage; None takes any.

    Raises:
        NoStudy: there is none.
        InputError: it is another run's or a newer psinas's, or a line in the middle of the journal
            is broken.
    """
    if storage is not None:
        from nas.ledger.study import check_owner, open_study  # imports Optuna

        study = open_study(run, storage=storage, name=name)
        check_version(study.user_attrs, f"the ledger of {run}")
        check_owner(study, run_id, storage)
        return records_of(study)
    journal = run / JOURNAL
    if not journal.exists():
        raise NoStudy(f"expected a run directory with a {JOURNAL}, got {run}")
    return _replayed(_lines(journal), name, journal)


def has_trials(run: Path, name: str = STUDY) -> bool:
    """Whether a trial was begun in a run's own journal, from the first line that says so.

    Raises:
        InputError: the lines before it are broken.
    """
    journal = run / JOURNAL
    studies: list[str] = []
    for line in _lines(journal) if journal.exists() else ():
        if line["op_code"] == Op.CREATE_STUDY and line["study_name"] not in studies:
            studies.append(line["study_name"])
        elif line["op_code"] == Op.DELETE_STUDY:
            studies[line["study_id"]] = ""  # psinas deletes none that has trials
        elif line["op_code"] == Op.CREATE_TRIAL and studies[line["study_id"]] == name:
            return True
    return False


def records_of(study: Study) -> list[Record]:
    """Return what :func:`read_records` does, of a study that is open."""
    trials = study.get_trials(deepcopy=False)
    every = [
        Record(
            trial.number,
            dict(trial.params),
            {n: tuple(getattr(d, "choices", ())) for n, d in trial.distributions.items()},
            trial.user_attrs.get(RESULT),
            trial.user_attrs.get(RETRY_OF),
            trial.number,
            trial.user_attrs.get(DRIVER),
        )
        for trial in trials
    ]
    places = [place_of(trial.number, trial.user_attrs) for trial in trials]
    return _judged(_numbered(every, places), study.user_attrs)


def results_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return what the ledger holds of every different finished trial, by ``number``."""
    return [{"number": r.number, **(r.result or {})} for r in standing(records) if r.counts]


def standing(records: Iterable[Record]) -> list[Record]:
    """Return those records whose place no later trial has taken, by number."""
    every = list(records)
    replaced = {record.retry_of for record in every if record.retry_of is not None}
    left = [record for record in every if record.asked not in replaced]
    return sorted(left, key=lambda record: record.number)


def told_apart(decisions: Mapping[str, Sequence[Any]], varied: Iterable[str]) -> list[str]:
    """Return the decisions that tell trials apart; ``architecture`` for more than a few of a space.

    Args:
        decisions: name -> choices.
        varied: those that are not of the space.
    """
    several = [name for name, choices in decisions.items() if len(choices) > 1]
    shown = several or list(decisions)
    beside = [name for name in shown if name in set(varied)]
    return shown if len(shown) - len(beside) <= MANY else ["architecture", *beside]


# ------------------------------------------------------------------------------------------- parts


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines; a last one that is being written, or was cut short, is left out."""
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError:
                if line.endswith(b"\n") and file.read(1):
                    raise InputError(
                        f"{journal}: expected one JSON object a line, got a broken line {number}: "
                        "restore the file from a copy"
                    ) from None
                return


def _numbered(records: Iterable[Record], places: Iterable[int | None]) -> list[Record]:
    """Return the records with their numbers, without the proposals that have none."""
    found = []
    for record, place in zip(records, places, strict=True):
        number = place if place is not None else (record.result or {}).get("repeat_of")
        if number is not None:
            record.number = number
            found.append(record)
    return found


def _judged(records: list[Record], attributes: Mapping[str, Any]) -> list[Record]:
    """Return the records, each with what later judges found of it."""
    found: dict[int, list[Judgement]] = {}
    for judgement in judgements(attributes):
        found.setdefault(judgement.number, []).append(judgement)
    for record in records if found else ():
        if record.counts and record.result is not None and record.number in found:
            key = record.result.get("key")
            record.judged = of_trial(found[record.number], record.number, key)
    return records


def _replayed(lines: Iterable[dict[str, Any]], name: str, journal: Path) -> list[Record]:
    studies: dict[int, str] = {}
    trials: list[tuple[int, Record]] = []
    attributes: list[dict[str, Any]] = []  # of each trial: its place
    done: set[int] = set()
    told: dict[str, Any] = {}  # attributes of the study
    count = 0
    for line in lines:
        op = line["op_code"]
        if op == Op.CREATE_STUDY and line["study_name"] not in studies.values():
            studies[count] = line["study_name"]
            count += 1
        elif op == Op.DELETE_STUDY:
            studies.pop(line["study_id"], None)
        elif op == Op.SET_STUDY_ATTR and studies.get(line["study_id"]) == name:
            told |= line["user_attr"]
            check_version(line["user_attr"], journal)
        elif op == Op.CREATE_TRIAL and line["study_id"] in studies:
            record = Record(number=len(trials))
            for decision, distribution in line.get("distributions", {}).items():
                _answer(record, decision, distribution, line["params"][decision])
            given = line.get("user_attrs", {})
            record.result, record.retry_of = given.get(RESULT), given.get(RETRY_OF)
            attributes.append({PLACE: given[PLACE]} if PLACE in given else {})
            trials.append((line["study_id"], record))
        elif "trial_id" in line and line["trial_id"] < len(trials) and line["trial_id"] not in done:
            record = trials[line["trial_id"]][1]
            if op == Op.SET_PARAM:
                value = line["param_value_internal"]
                _answer(record, line["param_name"], line["distribution"], value)
            elif op == Op.SET_USER_ATTR:
                record.result = line["user_attr"].get(RESULT, record.result)
                if PLACE in line["user_attr"]:
                    attributes[line["trial_id"]] = line["user_attr"]
            elif op == Op.SET_STATE and line["state"] in (1, 2, 3):  # COMPLETE, PRUNED, FAIL
                done.add(line["trial_id"])
    found = [study for study, named in studies.items() if named == name]
    if not found:
        raise NoStudy(f"expected a study called {name!r} in {journal}")
    ids = [trial_id for trial_id, (study, _) in enumerate(trials) if study == found[0]]
    records = [trials[trial_id][1] for trial_id in ids]
    for asked, record in enumerate(records):
        record.asked = asked
    places = [place_of(n, attributes[i]) for n, i in enumerate(ids)]
    return _judged(_numbered(records, places), told)


def _answer(record: Record, decision: str, distribution: str, value: Any) -> None:
    choices = _choices(distribution)
    record.choices[decision] = choices
    record.params[decision] = choices[int(value)] if choices else value


@lru_cache(maxsize=4096)
def _choices(distribution: str) -> tuple[Any, ...]:
    """Return the choices, none of a number, from either form that Optuna writes or reads."""
    described = json.loads(distribution)
    return tuple(described.get("attributes", described).get("choices", ()))
