"""What several test files share that is no fixture: a tiny search, what a mistake looks like."""

from __future__ import annotations

from functools import partial

import torch

from launch.config.config import parse_config
from launch.config.identity import settle_data
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.searching import finish
from nas.data.arrays import prepare
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluation
from nas.trial.files import save_trial
from nas.trial.repeats import repeated
from nas.trial.training import drain

TINY = {
    "name": "tiny",
    "data": {"name": "digits", "limit": {"train": 128, "validation": 60}},
    "space": {"name": "depth-channels", "depth": [1, 2], "channels": [4, 6], "stem": "small"},
    "recipe": {"epochs": 1, "batch_size": 64, "epsilon": 0.1, "steps": 2, "selection_images": 30},
    "metrics": ["clean", {"name": "pgd", "steps": 2}, {"name": "psi", "limit": 8}, "cost"],
    "objectives": {"pgd_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
}


def search_here(run, document):
    """Search in this process, without Ray, and return the run directory."""
    make_directory(run)
    config = settle_config(run, parse_config(document), resume=False, keep_trials=False)
    search = open_search(run, config)
    images = load_images(config.data)
    settle_data(run / "config.yaml", {config.data.source: images})
    torch.set_num_threads(1)
    while (proposal := search.propose()) is not None:
        run_one = partial(evaluation, data=prepare(images, proposal.trial.data))
        result = drain(repeated(run_one, proposal.trial))
        save_trial(run, proposal.number, proposal.trial, result)
        search.finish(proposal.number, result.to_dict())
    finish(run, search)
    return run


def one_line(result, *parts):
    code, _, err = result
    assert code == 2, result
    assert err.startswith("psinas: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
