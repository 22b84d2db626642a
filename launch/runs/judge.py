"""The best of a search scored again by stronger attacks, from their kept weights.

What comes out stands in the ledger beside the results (:mod:`nas.ledger.judged`), written as each
trial's attack ends: whoever is killed loses the attacks that ran, and the same command does what is
missing. It looks at validation images, since it chooses: test images are for what was chosen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from launch.config.config import Config
from launch.runs.export import has_weights, home_of
from launch.runs.judges import Judge, check_names
from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trial_model
from metrics.metric import Metric
from nas.analysis.judgement import ACCURACY
from nas.data.arrays import prepare
from nas.data.config import DataConfig
from nas.data.datasets import load_as_before
from nas.data.places import located
from nas.device import choose_device
from nas.errors import InputError, PsinasError, one_line
from nas.ledger.journal import repair_journal
from nas.ledger.judged import Judgement, judgements
from nas.ledger.lock import RunLock
from nas.ledger.results import JOURNAL
from nas.ledger.study import check_owner, open_study
from nas.ledger.table import save_table
from nas.search.reuse import fetch_weights
from nas.search.trust import suspicions
from nas.seeds import derive_seed
from nas.trial.scoring import metric_key, score

Say = Callable[[str], None]


@dataclass
class Judged:
    """What became of a call.

    Attributes:
        known: how many judgements were there already.
        done: those that were added.
        without: trials that have no weights.
        failed: (number, label) -> why an attack failed.
    """

    known: int = 0
    done: int = 0
    without: list[int] = field(default_factory=list)
    failed: dict[tuple[int, str], str] = field(default_factory=dict)


def judge_trials(
    run: Run,
    numbers: Sequence[int],
    judges: Sequence[Judge],
    say: Say,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Judged:
    """Score trials by judges that have not judged them yet, and write what they find.

    Args:
        run: a search that nobody runs now.
        numbers: of complete trials.
        judges: of :func:`build_judges`.
        say: is told a line for each judgement, trial without weights and failure.
        address: of a Ray cluster. None is this machine: several attacks at a time where it has the
            cores or GPUs for it, in Ray, else one after another in this process.
        workers: at most so many at a time.

    Raises:
        InputError: a driver is at work, another judge has one of the names, data that have changed
            since the search, or no such cluster.
    """
    with RunLock(run.path, beside=True):
        if repaired := repair_journal(run.path / JOURNAL):
            say(f"{run.path}: {repaired}")
        config = run.config
        study = open_study(run.path, storage=config.storage, name=config.study_name)
        if config.storage is not None:
            check_owner(study, run.id, config.storage)
        attributes = study.user_attrs
        check_names(judgements(attributes), judges)
        outcome = Judged()
        missing: dict[tuple[int, str], tuple[FinishedTrial, Judge, Run]] = {}
        for number in numbers:
            row = run.trial(number)
            wanted = [
                judge for judge in judges if _judgement(row, judge).attribute not in attributes
            ]
            outcome.known += len(judges) - len(wanted)
            if wanted and (home := _home(run, row)) is None:
                outcome.without.append(number)
                say(
                    f"trial {number} has no weights: `psinas replay {run.path} --trial {number}` "
                    "trains them again"
                )
                continue
            for judge in wanted:
                assert home is not None
                missing[number, judge.label] = row, judge, home
        try:
            for key, found in _found(missing, config, run, address, workers, say):
                row, judge, _ = missing[key]
                if isinstance(found, BaseException):
                    outcome.failed[key] = one_line(found)
                    say(f"trial {key[0]}: {key[1]} failed: {outcome.failed[key]}")
                    continue
                scores, images = found
                judgement = _judgement(row, judge, scores, images)
                study.set_user_attr(judgement.attribute, judgement.to_dict())
                outcome.done += 1
                say(f"trial {key[0]}: {_news(judge, scores)} on {images} images")
        finally:
            if outcome.done:
                save_table(Run(run.path).table(), run.path)
    return outcome


def judged_scores(
    model: nn.Module,
    data: DataConfig,
    checksums: Mapping[str, Mapping[str, str]],
    metric: Metric,
    limit: int | None,
    seed: int,
    *,
    device: str,
    threads: int | None,
) -> tuple[dict[str, float], int]:
    """Return the scores of a model on validation images, and how many there were.

    Args:
        model: images to logits.
        data: whose validation images.
        checksums: dataset -> part -> checksum of what the search saw.
        metric: what scores.
        limit: at most so many images.
        seed: of the metric's random draws.
        device, threads: as in :func:`launch.runs.score.score_model`.

    Raises:
        InputError: data that cannot be read, or that have changed.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    images = load_as_before(located(data), checksums, test=False)
    part = prepare(images, data, device).validation
    x, y = part.images(slice(limit)), part.labels[:limit]
    scores = score(model.to(device).eval(), x, y, (metric,), {metric_key(metric): seed})
    return scores, min(len(y), metric.limit or len(y))


# ------------------------------------------------------------------------------------------- parts


def _news(judge: Judge, scores: Mapping[str, float]) -> str:
    name = f"{judge.label}{ACCURACY}"
    if name in scores:
        return f"{name} {scores[name]:.4g}"
    return f"{judge.label}: {', '.join(suspicions(scores)) or 'no flag is raised'}"


def _judgement(
    row: FinishedTrial, judge: Judge, scores: Mapping[str, float] | None = None, images: int = 0
) -> Judgement:
    found = scores or {}
    known_by, key = judge.known_by, row.trial.key
    return Judgement(row.number, key, judge.label, known_by, found, images, judge.passes)


def _home(run: Run, row: FinishedTrial) -> Run | None:
    """Return the run that has a trial's weights; None where none has them any more."""
    home = home_of(run, row)
    if not has_weights(home, row):  # of a reused trial they may lie in its own run
        fetch_weights(run.path, [{"number": row.number, **row.result}])
    if not has_weights(home, row):
        return None
    return run if home == run.path else Run(home)


Found = tuple[dict[str, float], int] | BaseException


def _found(
    missing: Mapping[tuple[int, str], tuple[FinishedTrial, Judge, Run]],
    config: Config,
    run: Run,
    address: str | None,
    workers: int | None,
    say: Say,
) -> Iterator[tuple[tuple[int, str], Found]]:
    """Yield what each judge found, as it ends."""

    def arguments(key: tuple[int, str]) -> tuple[Any, ...]:
        row, judge, home = missing[key]
        model, seed = trial_model(home, row), derive_seed(config.seed, "judge", judge.label)
        return model, row.trial.data, run.checksums, judge.metric, judge.images, seed

    resources = config.resources.for_one()
    at_once = min(len(missing), workers or len(missing), resources.workers or len(missing))
    several = at_once > 1 and (os.cpu_count() or 1) // resources.cpu > 1
    if missing and (address is not None or several):
        from launch.cluster.elsewhere import each_on_worker  # imports ray

        yield from each_on_worker(
            address, resources, judged_scores, missing, arguments, at_once=at_once, say=say
        )
        return
    device = choose_device(resources.gpu != 0 and resources.device != "cpu")
    for key in missing:
        found: Found
        try:
            found = judged_scores(*arguments(key), device=device, threads=resources.cpu)
        except InputError:
            raise
        except (PsinasError, RuntimeError, ValueError) as error:  # of the attack: it is told
            found = error
        yield key, found
