"""A driver in a process of its own: a plain loop over a shared search, with trivial trials.

Called with a JSON object; prints a line for each event. Ends when nothing is left.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from nas.data.config import DataConfig
from nas.errors import LedgerLost
from nas.ledger.drivers import Drivers
from nas.ledger.patience import be_patient
from nas.ledger.study import open_study
from nas.ledger.turns import turn_of
from nas.samplers.registry import SAMPLERS
from nas.search.plan import SearchPlan
from nas.search.shared import SharedSearch
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels

SPACE = DepthChannels(depth=(1, 2, 3, 4), channels=(8, 16, 32))


def plan(sampler: str, trials: int | None, space: DepthChannels = SPACE) -> SearchPlan:
    """Return a search over twelve architectures, or those of another space."""
    template = Trial(next(iter(space)), Recipe(), DataConfig(), ())
    return SearchPlan(space, template, {}, {"accuracy": "max"}, SAMPLERS[sampler], trials=trials)


def tell(*words: object) -> None:
    print(*words, flush=True)


def drive(
    storage: str,
    name: str,
    me: str,
    sampler: str = "random",
    trials: int | None = None,
    seconds: float = 0.05,
    patience: float = 60.0,
    hang_after: int | None = None,
) -> None:
    """Work on a study until nothing is left; after so many trials sleep within one."""
    the_plan = plan(sampler, trials)
    study = open_study("", directions=the_plan.directions, storage=storage, name=name)
    waits = be_patient(study, "here", tell, patience)
    drivers = Drivers(study, me, Path(me), beat_seconds=0.2, misses=8)
    search = SharedSearch(study, the_plan, drivers, turn_of(study, waits), pause_seconds=0.05)
    finished = 0
    while (proposal := search.propose()) is not None or search.waits():
        if proposal is None:
            time.sleep(0.05)
            continue
        key = proposal.trial.key
        tell("began", proposal.number, key)
        time.sleep(600 if finished == hang_after else seconds)
        choices = dict(proposal.trial.architecture.choices)
        scores = {"accuracy": choices["depth"] / 10 + choices["channels"] / 100}
        search.finish(proposal.number, {"status": "complete", "reason": "", "scores": scores})
        finished += 1
        tell("ended", proposal.number, key)
    search.close()


if __name__ == "__main__":
    try:
        drive(**json.loads(sys.argv[1]))
    except LedgerLost as error:
        sys.exit(f"lost: {error}")
