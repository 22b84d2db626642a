"""A run as event files that TensorBoard shows: HParams with scores, and scalars by epoch.

Written by TensorBoard's own messages and records, without TensorFlow or torch: a directory for each
finished trial, and the experiment above them.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.runs.run import Run
from nas.errors import InputError
from nas.files import write_whole
from nas.ledger.records import Record, standing
from nas.search.trust import plain_names
from nas.trial.epochs import NAME, read_epochs

EVENTS = "events.out.tfevents.0.psinas"
"""The one file in a trial's directory: TensorBoard knows it by its second and third words."""
MARK = "psinas-run.json"


@dataclass(frozen=True)
class Written:
    """How many trials there are, and how many files were new or had changed."""

    trials: int
    new: int


def write_events(run: Run, directory: Path) -> Written:
    """Write the finished trials of a run for TensorBoard; what is there and the same stays.

    ``DIR/trial-<number>`` holds what each epoch reported (``epochs/...``) and the scores
    (``scores/...``), at the trial's last epoch; its decisions are hyperparameters.

    Args:
        run: searched, or being searched: run it again for the trials since.
        directory: made where it is not there.

    Raises:
        InputError: no directory, or one with another run's event files.
    """
    _claim(run, directory)
    records = [record for record in standing(run.records) if record.counts]
    names = _scores(records, list(run.legend.objectives))
    _keep(directory / EVENTS, _experiment(run, records, names))
    new = 0
    for record in records:
        where = run.path / "trials" / str(record.number)
        new += _keep(directory / f"trial-{record.number}" / EVENTS, _session(record, where))
    return Written(len(records), new)


# ------------------------------------------------------------------------------------------- parts


def _claim(run: Run, directory: Path) -> None:
    """Make a directory this run's, or refuse it."""
    mine = run.id or str(run.path.resolve())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        mark = directory / MARK
        if mark.exists():
            owner = json.loads(mark.read_text(encoding="utf-8")).get("run_id")
        else:
            owner = mine
            text = json.dumps({"run_id": mine, "name": run.document["name"]}) + "\n"
            write_whole(mark, lambda p: p.write_text(text, encoding="utf-8"))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"--tensorboard: expected a directory to write, got {directory}: {error}"
        ) from error
    if owner != mine:
        raise InputError(
            f"--tensorboard: expected a directory of {run.path}, got {directory}, which holds the "
            "event files of another run: give each run one of its own below one --logdir"
        )


def _keep(path: Path, content: bytes) -> bool:
    """Write a file unless it holds just that; return whether it was written."""
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda p: p.write_bytes(content))
    except OSError as error:
        raise InputError(f"--tensorboard: expected a file to write, got {path}: {error}") from error
    return True


def _scores(records: Sequence[Record], objectives: Sequence[str]) -> list[str]:
    """Return the names of the scores that some trial has, objectives first."""
    found = dict.fromkeys(objectives)
    for record in records:
        found |= dict.fromkeys(plain_names((record.result or {}).get("scores", {})))
    return list(found)


def _experiment(run: Run, records: Sequence[Record], names: Sequence[str]) -> bytes:
    """Return the events of the experiment: which hyperparameters and scores there are."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    choices: dict[str, tuple[Any, ...]] = {}
    for record in records:
        choices = {**record.choices, **choices}
    infos = []
    for name, of in choices.items():
        info = api_pb2.HParamInfo(name=name, type=_type(of))
        if info.type != api_pb2.DATA_TYPE_UNSET and of:
            info.domain_discrete.extend(_plain(value, of) for value in of)
        infos.append(info)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"scores/{name}"), display_name=name)
        for name in names
    ]
    experiment = api_pb2.Experiment(
        description=f"psinas: {run.document['name']}",
        time_created_secs=1.0,  # the same whenever it is written
        hparam_infos=infos,
        metric_infos=metrics,
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    return _records([(0.0, 0, [_plugin(metadata.EXPERIMENT_TAG, data)])])


def _session(record: Record, directory: Path) -> bytes:
    """Return the events of one trial."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    result = record.result or {}
    epochs = read_epochs(directory)
    seconds = sum(row.get("seconds", 0.0) for row in epochs.values())
    ended = _ended(directory)
    clock = ended - (seconds if math.isfinite(seconds) else 0.0)
    start = plugin_data_pb2.SessionStartInfo(
        group_name=f"trial-{record.number}", start_time_secs=clock
    )
    for name, value in record.params.items():
        of = record.choices.get(name) or (value,)
        _set(start.hparams[name], _plain(value, of))
    begin = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    events = [(clock, 0, [_plugin(metadata.SESSION_START_INFO_TAG, begin)])]
    for epoch, row in epochs.items():
        spent = row.get("seconds", 0.0)
        clock += spent if math.isfinite(spent) else 0.0
        known = {n: v for n, v in row.items() if n != "seconds" and not math.isnan(v)}
        events.append((clock, epoch, [_scalar(f"epochs/{n}", v) for n, v in known.items()]))
    scores = result.get("scores", {})
    step = int(result.get("epochs") or 0)
    told = [_scalar(f"scores/{name}", scores[name]) for name in plain_names(scores)]
    well = result["status"] in ("complete", "stopped")
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if well else api_pb2.STATUS_FAILURE, end_time_secs=clock
    )
    over = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    events += [(clock, step, [*told, _plugin(metadata.SESSION_END_INFO_TAG, over)])]
    return _records(events)


def _ended(directory: Path) -> float:
    """Return when a trial wrote its epochs, in seconds since 1970; 0 where it wrote none."""
    try:
        return (directory / NAME).stat().st_mtime
    except OSError:
        return 0.0


def _type(choices: Iterable[Any]) -> int:
    """Return how TensorBoard sees a decision: numbers, truths, or texts."""
    from tensorboard.plugins.hparams import api_pb2

    kinds = {type(value) for value in choices}
    if kinds == {bool}:
        return int(api_pb2.DATA_TYPE_BOOL)
    if kinds and kinds <= {int, float}:
        return int(api_pb2.DATA_TYPE_FLOAT64)
    return int(api_pb2.DATA_TYPE_STRING if kinds else api_pb2.DATA_TYPE_UNSET)


def _plain(value: Any, choices: Iterable[Any]) -> bool | float | str:
    """Return an answer as its decision's type; what is neither number nor truth as JSON."""
    kinds = {type(choice) for choice in choices}
    if kinds == {bool} or kinds <= {int, float}:
        return value if isinstance(value, bool) else float(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _set(value: Any, plain: bool | float | str) -> None:
    """Set a value of protobuf by its type."""
    kind = {bool: "bool_value", str: "string_value"}.get(type(plain), "number_value")
    setattr(value, kind, plain)


def _plugin(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import metadata

    kept = metadata.create_summary_metadata(data)
    return summary_pb2.Summary.Value(tag=tag, metadata=kept, tensor=metadata.NULL_TENSOR)


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto import summary_pb2

    return summary_pb2.Summary.Value(tag=tag, simple_value=float(value))


def _records(events: Iterable[tuple[float, int, Sequence[Any]]]) -> bytes:
    """Return a file of events ``(time, step, values)``, as TensorBoard reads it."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    version = event_pb2.Event(wall_time=0.0, file_version="brain.Event:2")
    writer.write(version.SerializeToString())
    for time, step, values in events:
        summary = summary_pb2.Summary(value=list(values))
        event = event_pb2.Event(wall_time=time, step=step, summary=summary)
        writer.write(event.SerializeToString())
    return file.getvalue()
