"""What tests let a worker of a cluster do: modules of a worker's own path."""

from __future__ import annotations

import os

import numpy as np

from nas.data.config import DataConfig
from nas.data.places import data_root
from nas.errors import InputError


def measured(count, *, device, threads, say):
    """Say so, and return an array of the caller's to write to, and where the worker is."""
    for number in range(count):
        say(f"line {number}")
    return np.zeros(1000), device, threads, os.getcwd(), str(data_root(DataConfig()))


def refuses(*, device, threads):
    raise InputError("expected something else")


def breaks(*, device, threads):
    raise RuntimeError("a fault")


def dies(*, device, threads):
    os._exit(3)
