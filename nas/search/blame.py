"""Whose fault it is where asking a sampler fails: the sampler's, where it is the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import PsinasError, SamplerFailure, one_line
from nas.samplers.registry import SAMPLERS


@contextmanager
def blaming(factory: Callable[..., Any], sampler: BaseSampler, number: int) -> Iterator[None]:
    """Raise what goes wrong within as the sampler's failure at a trial.

    What a storage raises passes, and so does what our own samplers raise: that is a fault of ours.

    Raises:
        SamplerFailure: a sampler of the user's raised, or proposed what is no choice.
    """
    try:
        yield
    except (OSError, SQLAlchemyError, StorageInternalError, PsinasError):
        raise
    except Exception as error:
        if factory in SAMPLERS.values():
            raise
        raise SamplerFailure(
            f"the sampler {type(sampler).__name__} failed at trial {number}: {one_line(error)}; "
            "what ran is kept, and --resume goes on"
        ) from error
