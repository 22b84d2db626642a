"""What Tune is made to forget, on a controller that only has its lists."""

from __future__ import annotations

from types import SimpleNamespace

import launch.cluster.session  # noqa: F401  sets what ray reads when it is imported
from launch.cluster.forgetting import MANY, ForgettingScheduler, forget_finished


class Trial:
    """As much of Tune's trial as is asked for."""

    def __init__(self, number, status, folder):
        self.trial_id, self.status, self.local_path = str(number), status, str(folder / str(number))
        (folder / str(number)).mkdir()

    def is_finished(self):
        return self.status in ("TERMINATED", "ERROR")


class Controller:
    """A controller whose trials are over but for three."""

    def __init__(self, count, folder):
        self.folder = folder
        self._trials, self._live_trials, self._trial_to_actor = [], set(), {}
        self._stopped_trials, self._failed_trials, self._trials_to_cache = set(), set(), set()
        self._trial_metadata = {}
        for number in range(count - 3):
            self.add(number, "ERROR" if number % 10 == 0 else "TERMINATED")
        self._trial_to_actor[self._trials[5]] = "an actor that is being stopped"
        self.add(count - 3, "RUNNING")
        self.add(count - 2, "TERMINATED")
        self._live_trials.add(self._trials[-1])
        self.add(count - 1, "PENDING")

    def add(self, number, status):
        trial = Trial(number, status, self.folder)
        self._trials.append(trial)
        if trial.is_finished():
            (self._failed_trials if status == "ERROR" else self._stopped_trials).add(trial)
        else:
            self._live_trials.add(trial)
        self._trials_to_cache.add(trial)
        self._trial_metadata[trial.trial_id] = "{}"

    def get_trials(self):
        return self._trials

    def get_live_trials(self):
        return self._live_trials


def test_what_is_over_goes_and_what_runs_waits_or_has_an_actor_stays(tmp_path):
    controller = Controller(MANY, tmp_path)
    wrapped = SimpleNamespace(_tune_controller=controller, get_trials=controller.get_trials)
    waiting = ForgettingScheduler().choose_trial_to_run(wrapped)
    left = ["5", str(MANY - 3), str(MANY - 2), str(MANY - 1)]
    assert waiting.trial_id == left[-1]
    assert [trial.trial_id for trial in controller._trials] == left
    assert {trial.trial_id for trial in controller._trials_to_cache} == set(left)
    assert set(controller._trial_metadata) == {path.name for path in tmp_path.iterdir()} == {*left}
    assert {t.trial_id for t in controller._stopped_trials} == {"5", left[2]}
    assert controller._failed_trials == set()


def test_a_few_trials_are_left_alone(tmp_path):
    controller = Controller(MANY - 1, tmp_path)
    forget_finished(controller)
    assert len(controller._trials) == MANY - 1
