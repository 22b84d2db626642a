"""optuna-dashboard over a view of a run's ledger, also while its search runs: it only shows."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from launch.runs.left import left_in
from launch.runs.run import Run
from launch.show.shown_columns import DETAIL, INTERNAL
from launch.show.tables import on_a_line
from nas.errors import InputError, NoStudy, first_line
from nas.ledger.formats import writable
from nas.ledger.results import MEMORY_STEPS, REUSED_FROM, STUDY
from nas.search.running_file import seen
from nas.search.trust import plain_names, suspicions
from nas.trial.epochs import judged_by, read_epochs

if TYPE_CHECKING:
    from nas.ledger.study_view import StudyView

EXTRA = "pip install 'psinas[live]'"
READING = ("GET", "HEAD", "OPTIONS")
REASON = "psinas shows the ledger and lets nobody change it here: nothing was written"
MEASURED = ("epochs", "seconds", "peak_memory_bytes", "micro_batch", REUSED_FROM)
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def need(module: str, what: str) -> None:
    """Refuse what the extra ``live`` would bring, where it is not installed.

    Raises:
        InputError: the module is not there.
    """
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{what}: expected {module.replace('_', '-')} installed: {EXTRA}")


def view_of(run: Run) -> StudyView:
    """Return a run's ledger as a read-only study: named as the run, scores as flat attributes.

    Its intermediate values are robust accuracies after each epoch, of the images that choose the
    epoch; clean ones where there was no adversary to judge by, losses where no images do.

    Raises:
        InputError: a ledger that cannot be read.
    """
    from nas.ledger.study_view import Shown, StudyView  # imports Optuna

    document = run.document
    storage = document.get("storage")
    shown = Shown(
        on_a_line(str(document["name"])),
        document["objectives"],
        about(run),
        flat_attributes,
        _Epochs(run),
        lambda: _left(run),
    )
    name = str(document["name"]) if storage else STUDY
    return StudyView(run.path, shown, storage=storage, name=name, run_id=run.id)


def about(run: Run) -> dict[str, Any]:
    """Return what a study says of the run behind it."""
    document = run.document
    parts = {part: document.get(part) or {} for part in ("data", "space", "sampler")}
    return {
        "run": on_a_line(str(run.path)),
        **{
            part: on_a_line(writable(str(values.get("name", "-"))))
            for part, values in parts.items()
        },
        "trials": document.get("trials"),
        "seed": document.get("seed"),
        "intermediate values": "robust accuracy after each epoch, else clean accuracy, else loss",
        "changes": "none can be made here: the ledger is shown, a search writes it",
    }


def flat_attributes(result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a trial's result says, one attribute each; a running trial has its status.

    Control characters, and what turns the direction of a text, stand as ``\\u202e``. Scores of
    suspicion are told as the names of the raised flags, under ``flags``.
    """
    if result is None:
        return {"status": "running"}
    scores = result.get("scores", {})
    found: dict[str, Any] = {"status": result["status"]}
    if result.get("reason"):
        found["reason"] = on_a_line(writable(result["reason"]))
    if flags := suspicions(scores):
        found["flags"] = ", ".join(flags)
    names = plain_names(scores)
    details = [name for name in names if name.endswith((*DETAIL, *INTERNAL))]
    for name in (*(n for n in names if n not in details), *details):
        found[on_a_line(name)] = scores[name]
    found |= {name: result[name] for name in MEASURED if result.get(name) is not None}
    if result.get(MEMORY_STEPS):
        found[MEMORY_STEPS] = ", ".join(result[MEMORY_STEPS])
    if digest := result.get("architecture", {}).get("hash"):
        found["architecture"] = digest
    return found


def server_of(view: StudyView, host: str, port: int) -> WSGIServer:
    """Return a server of the dashboard that listens; ``serve_forever`` answers.

    Args:
        view: of a run's ledger.
        host: the address to listen at.
        port: 0 takes any that is free.

    Raises:
        InputError: the extra is not installed, or nobody can listen there.
    """
    need("optuna_dashboard", "psinas dashboard")
    from optuna_dashboard import wsgi

    for name in ("optuna", "optuna_dashboard"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return make_server(
            host, port, only_reading(wsgi(view)), server_class=_Server, handler_class=_Quiet
        )
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--port: expected a free port of {host}, got {port} ({first_line(error)}): "
            "--port 0 takes any"
        ) from error


def only_reading(application: Application) -> Application:
    """Return an application that answers what would change something with a refusal."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return application(environ, start_response)
        body = json.dumps({"reason": REASON}).encode()
        length = str(len(body))
        head = [("Content-Type", "application/json"), ("Content-Length", length)]
        start_response("403 Forbidden", head)
        return [body]

    return answer


# ------------------------------------------------------------------------------------------- parts


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return None


class _Epochs:
    """What trials had after their epochs: of their files, and of what a driver tells meanwhile."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._told: dict[int, dict[int, float]] = {}

    def __call__(self, number: int, ended: bool) -> dict[int, float]:
        if ended:
            self._told.pop(number, None)
            return judged_by(read_epochs(self._run.path / "trials" / str(number)))[1]
        for row in seen(self._run.path).rows:
            value = row.robust_accuracy
            if row.epoch and value is not None and math.isfinite(value):
                self._told.setdefault(row.number, {})[row.epoch] = value
        return dict(self._told.get(number, {}))


def _left(run: Run) -> set[int]:
    try:
        return left_in(Run(run.path))
    except NoStudy:
        return set()
