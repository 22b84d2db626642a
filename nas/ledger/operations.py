"""What a line of an Optuna journal does, as far as psinas reads or writes one itself."""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """What a line of Optuna's journal does (optuna.storages.journal, since its 3.1)."""

    CREATE_STUDY = 0
    DELETE_STUDY = 1
    SET_STUDY_ATTR = 2
    CREATE_TRIAL = 4
    SET_PARAM = 5
    SET_STATE = 6
    SET_USER_ATTR = 8
