"""The numbers of trials that people see: 0, 1, 2, ... over the different trials of a search.

Optuna numbers every proposal, known architectures too, and samplers go by that. A trial gets a
place of its own when it is handed out, which the ledger keeps from then on; directories, tables
and messages call it the trial's number. See :func:`nas.ledger.results.place_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.ledger.results import PLACE, place_of


class Places:
    """Which trial of a study is at which place.

    Args:
        study: of the run.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._numbers: dict[int, int] = {}  # place -> Optuna's number of the last trial there
        self._places: dict[int, int] = {}  # Optuna's number -> place
        self.next = 0

    def note(self, trials: Iterable[FrozenTrial], *, running: Collection[int] = ()) -> None:
        """Read the places of trials, in the order of Optuna's numbers.

        Args:
            trials: of the ledger.
            running: places whose trial is known, since it runs here: they stay as they are.
        """
        for trial in trials:
            place = place_of(trial.number, trial.user_attrs)
            if place is not None and place not in running:
                self._put(place, trial.number)

    def give(self, number: int) -> int:
        """Return the place of the trial with this number of Optuna's; the next, if it has none.

        A new place is written to the ledger.
        """
        if number not in self._places:
            storage = self._study._storage
            trial_id = storage.get_trial_id_from_study_id_trial_number(
                self._study._study_id, number
            )
            storage.set_trial_user_attr(trial_id, PLACE, self.next)
            self._put(self.next, number)
        return self._places[number]

    def at(self, number: int) -> int | None:
        """Return the place of the trial with this number of Optuna's; None: it has none yet."""
        return self._places.get(number)

    def number(self, place: int) -> int:
        """Return Optuna's number of the trial at a place: of the last one, after a retry."""
        return self._numbers[place]

    def _put(self, place: int, number: int) -> None:
        self._numbers[place], self._places[number] = number, place
        self.next = max(self.next, place + 1)
