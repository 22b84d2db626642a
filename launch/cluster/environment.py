"""What ray reads from the environment when it is imported: import this first.

A worker imports this before anything of a user's, and looks for modules where its driver does.
"""

from __future__ import annotations

import os
from pathlib import Path

from launch.config.modules import VARIABLE, follow

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1e9")  # nobody reads Tune's own state
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1000000")  # the searcher counts them itself
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

# `ray start` asks for a token where one is there, and ray.init(address=HOST:PORT) would send none;
# a cluster that asks for none takes one too.
TOKENS = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
if any(os.environ.get(name) for name in TOKENS) or Path("~/.ray/auth_token").expanduser().exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

if VARIABLE in os.environ:
    follow()
