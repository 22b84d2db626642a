"""A ledger as a storage of Optuna's that only reads, laid out for people who look at studies.

The ledger holds what is known of a trial in one attribute, under a study of one name for every run
(:mod:`nas.ledger.study`): one durable write a trial. What Optuna's tools show are flat attributes,
named objectives and intermediate values. So they are shown this view; nothing in it is ever
written, to the ledger or elsewhere.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from nas.errors import InputError, NoStudy
from nas.ledger.journal import Journal, Line
from nas.ledger.journal_storage import LedgerStorage
from nas.ledger.results import JOURNAL, RESULT, RETRY_OF, STUDY, place_of
from nas.ledger.study import check_owner, open_study
from nas.ledger.version import check_version

METRIC_NAMES = "study:metric_names"  # where Study.set_metric_names keeps them
VIEW_ID = 0  # of the one study that a view has
REFUSAL = "this is a view of a psinas ledger, which only a search writes"


class ReadOnly(InputError):
    """Something was to be written through a view of a ledger."""


@dataclass(frozen=True)
class Shown:
    """What a view adds to the ledger.

    Attributes:
        name: of the study, as people see it.
        objectives: score -> ``max`` or ``min``.
        about: attributes of the study.
        attributes: from a trial's result (None while it runs) to its flat attributes.
        epochs: from a trial's number, and whether it has ended, to its intermediate values.
        left: returns the numbers of the trials that an ended driver left.
    """

    name: str
    objectives: Mapping[str, str]
    about: Mapping[str, Any]
    attributes: Callable[[Mapping[str, Any] | None], dict[str, Any]]
    epochs: Callable[[int, bool], dict[int, float]]
    left: Callable[[], Collection[int]]


class StudyView(BaseStorage):
    """The study of a run, with what :class:`Shown` adds; every write is refused.

    A trial has the number by which psinas knows it; repeats and failures that were tried again are
    left out, as in the trial table. One that an ended driver left is ``WAITING``: for a resume.

    Args:
        run: the run directory; it may have no ledger yet.
        shown: what is added.
        storage: the URL of another storage than the run's own journal.
        name: of the study in it.
        run_id: whose study it must be there; None takes any.

    Raises:
        InputError: a ledger that cannot be read, another run's, or a newer psinas's.
    """

    def __init__(
        self,
        run: Path,
        shown: Shown,
        *,
        storage: str | None = None,
        name: str = STUDY,
        run_id: str | None = None,
    ) -> None:
        self._run, self._shown = run, shown
        self._url, self._name, self._owner = storage, name, run_id
        self._source: tuple[BaseStorage, int] | None = None
        self._ended: dict[int, FrozenTrial] = {}  # Optuna's number -> as it is shown
        self._lock = threading.Lock()
        self.get_all_trials(VIEW_ID)

    # ---------------------------------------------------------------------------------- the study

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                self._shown.name,
                None,
                self.get_study_user_attrs(VIEW_ID),
                self.get_study_system_attrs(VIEW_ID),
                VIEW_ID,
                directions=self.get_study_directions(VIEW_ID),
            )
        ]

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._shown.name:
            raise KeyError(study_name)
        return VIEW_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        _check(study_id)
        return self._shown.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        _check(study_id)
        ways = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        return [ways[way] for way in self._shown.objectives.values()]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        _check(study_id)
        return dict(self._shown.about)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        _check(study_id)
        return {METRIC_NAMES: list(self._shown.objectives)}

    # --------------------------------------------------------------------------------- its trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        _check(study_id)
        with self._lock:
            found = self._trials()
        if states is not None:
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial(self, trial_id: int) -> FrozenTrial:
        for trial in self.get_all_trials(VIEW_ID, deepcopy=False):
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(f"expected the id of a trial, got {trial_id}")

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        for trial in self.get_all_trials(study_id, deepcopy=False):
            if trial.number == trial_number:
                return trial._trial_id
        raise KeyError(f"expected the number of a trial, got {trial_number}")

    def _trials(self) -> list[FrozenTrial]:
        source = self._opened()
        if source is None:
            return []
        every = source[0].get_all_trials(source[1], deepcopy=False)
        replaced = {trial.user_attrs.get(RETRY_OF) for trial in every}
        running: list[tuple[int, FrozenTrial]] = []
        found: dict[int, FrozenTrial] = {}
        for trial in every:
            if trial.number in replaced:
                continue
            if (known := self._ended.get(trial.number)) is not None:
                found[known.number] = known
                continue
            place = place_of(trial.number, trial.user_attrs)
            result = trial.user_attrs.get(RESULT)
            if place is None or (result or {}).get("repeat_of") is not None:
                continue
            if trial.state.is_finished():
                found[place] = self._ended[trial.number] = self._laid_out(trial, place, result)
            else:
                running.append((place, trial))
        left = self._shown.left() if running else ()
        for place, trial in running:
            found[place] = self._laid_out(trial, place, trial.user_attrs.get(RESULT))
            if place in left:
                found[place].state = TrialState.WAITING
                found[place].set_user_attr("status", "left")
        return [found[place] for place in sorted(found)]

    def _laid_out(
        self, trial: FrozenTrial, place: int, result: Mapping[str, Any] | None
    ) -> FrozenTrial:
        """Return a trial as it is shown: ours to change, the ledger's objects are not."""
        laid = copy.copy(trial)
        laid.number, laid._trial_id = place, trial.number
        laid.user_attrs = self._shown.attributes(result)
        laid.system_attrs = {}
        epochs = self._shown.epochs(place, trial.state.is_finished())
        laid.intermediate_values = {**trial.intermediate_values, **epochs}
        return laid

    def _opened(self) -> tuple[BaseStorage, int] | None:
        """Return the ledger and the id of its study; None where no search has begun it yet."""
        if self._source is None:
            try:
                self._source = self._url_opened() if self._url else self._journal_opened()
            except NoStudy:
                return None
        return self._source

    def _url_opened(self) -> tuple[BaseStorage, int]:
        assert self._url is not None
        study = open_study(self._run, storage=self._url, name=self._name)
        check_version(study.user_attrs, f"the ledger of {self._run}")
        check_owner(study, self._owner, self._url)
        return study._storage, study._study_id

    def _journal_opened(self) -> tuple[BaseStorage, int]:
        path = self._run / JOURNAL
        if not path.exists():
            raise NoStudy(f"expected a run directory with a {JOURNAL}, got {self._run}")
        storage = LedgerStorage(_Watched(path))
        try:
            study_id = storage.get_study_id_from_name(self._name)
        except KeyError:
            raise NoStudy(f"expected a study called {self._name!r} in {path}") from None
        check_version(storage.get_study_user_attrs(study_id), path)
        return storage, study_id

    # ------------------------------------------------------------------------------ what is refused

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        _refuse()

    def delete_study(self, study_id: int) -> None:
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        _refuse()

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        _refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        _refuse()

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()


class _Watched(Journal):
    """A journal that somebody else writes: its new lines are read, the file is never touched."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, make=False)

    def read_logs(self, log_number_from: int) -> Iterator[Line]:
        yield from self._others()

    def append_logs(self, logs: list[Line]) -> None:
        _refuse()


def _check(study_id: int) -> None:
    if study_id != VIEW_ID:
        raise KeyError(f"expected the study {VIEW_ID}, got {study_id}")


def _refuse() -> NoReturn:
    raise ReadOnly(REFUSAL)
