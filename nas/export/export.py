"""The way out: a trained model, its description, formats and model card in one directory."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.cost import macs, parameters
from nas.data.checksum import DATA_CHECKSUM
from nas.errors import InputError, first_line
from nas.export.agreement import IMAGES, Agreement, ask
from nas.export.card import Written, model_card
from nas.export.formats import WRITERS, LeftOut, Original, write_format
from nas.export.metadata import check_licence
from nas.export.place import (
    CARD,
    CELL,
    CLAIMS,
    DESCRIPTION,
    MODEL,
    WRAPPER,
    check_place,
    replace_export,
)
from nas.export.robustbench import refusal, write_robustbench
from nas.trial.files import WEIGHTS, trial_directory
from nas.trial.kept import averaged
from nas.trial.trial import Trial
from search_spaces import load

LARGEST_EPSILON = 0.3  # of FGSM on exported models: radii in L2 are another thing
USUAL_EPSILON = 8 / 255


@dataclass(frozen=True)
class Wanted:
    """What an export shall have beside weights, description and card.

    Attributes:
        formats: of ``nas.export.formats.WRITERS``.
        images: returns images ``(N, C, H, W)`` and labels of the validation part, that formats are
            asked about; raises an InputError where no data are.
        draw: draws the cell into a file; None where the space has none.
        licence: of the weights, an SPDX identifier.
        robustbench: whether to write the wrapper for RobustBench, which needs ``python``.
    """

    formats: tuple[str, ...] = ()
    images: Callable[[], tuple[Tensor, Tensor]] | None = None
    draw: Callable[[Path], object] | None = None
    licence: str | None = None
    robustbench: bool = False


@dataclass(frozen=True)
class Exported:
    """What an export has, and a line for each thing that was asked for and is not there."""

    formats: tuple[str, ...]
    left_out: tuple[str, ...]


def export_trial(
    run: Path,
    number: int,
    trial: Trial,
    result: Mapping[str, Any],
    out: Path,
    *,
    metrics: list[dict[str, Any]],
    data_checksum: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    wanted: Wanted | None = None,
) -> Exported:
    """Write ``architecture.json``, ``model.safetensors``, a model card and what else is wanted.

    Args:
        run: the run directory.
        number: of the trial whose weights are on disk.
        trial: what was trained.
        result: what the ledger holds of it.
        out: the files of an earlier export there are replaced, all others left.
        metrics: the search's metrics, so that ``psinas score`` can repeat them.
        data_checksum: part -> checksum of the trial's data, so that others are refused there.
        modules: directories of the modules that the space and the metrics are in.
        wanted: beside these; nothing by default.

    Raises:
        InputError: the weights were not kept, ``out`` holds something else or files that were
            changed since they were exported, or a licence that is no identifier.
    """
    wanted = Wanted() if wanted is None else wanted
    if wanted.licence is not None:
        check_licence(wanted.licence)
    source = trial_directory(run, number)
    if not (source / WEIGHTS).exists():
        raise InputError(
            f"trial {number}: expected weights in {source}, got none ({result['status']}; a search "
            f"keeps those of the front and the top): `psinas replay {run} --trial {number}` "
            "trains them again"
        )
    files = [DESCRIPTION, MODEL, CARD, *([CELL] if wanted.draw else [])]
    files += [file for name in wanted.formats for file in WRITERS[name][1]]
    check_place(out, [*files, *((WRAPPER, CLAIMS) if wanted.robustbench else ())])
    description = json.loads((source / "architecture.json").read_text(encoding="utf-8"))
    description["trial"] = {
        "number": number,
        "recipe": asdict(trial.recipe),
        "data": asdict(trial.data),
        DATA_CHECKSUM: dict(data_checksum or {}),
        "metrics": metrics,
        "seed": trial.seed,
        "repeat": trial.repeat + (result.get("kept_repeat") or 0),
        "scores": result["scores"],
        "repeats": result.get("repeats", []),
        "environment": result["environment"],
    }
    if averaged(result):
        description["trial"]["averaged_weights"] = True
    if modules:
        description["trial"]["modules"] = list(modules)
    exported = Exported((), ())

    def write(directory: Path) -> None:
        nonlocal exported
        shutil.copyfile(source / WEIGHTS, directory / MODEL)
        text = json.dumps(description, indent=2) + "\n"
        (directory / DESCRIPTION).write_text(text, encoding="utf-8")
        if wanted.draw is not None:
            wanted.draw(directory / CELL)
        written = _write_formats(description, directory, wanted)
        card = model_card(description, written)
        (directory / CARD).write_text(card, encoding="utf-8")
        exported = Exported(tuple(written.formats), tuple(written.left_out))

    replace_export(out, write)
    return exported


def _write_formats(description: Mapping[str, Any], directory: Path, wanted: Wanted) -> Written:
    """Write the formats that are wanted into ``directory``, which holds weights and description."""
    done: dict[str, Agreement] = {}
    left: list[str] = []
    asked, epsilon = "", _epsilon(description)
    cost: dict[str, float] = {}
    if wanted.formats:
        original, cost = _original(description, directory, wanted, epsilon)
        asked = original.questions.whence
        for name in wanted.formats:
            try:
                done[name] = write_format(name, original, directory)
            except LeftOut as error:
                left.append(str(error))
    wrapped = False
    if wanted.robustbench:
        reason = refusal(description) or ("" if "python" in done else "it needs model.py")
        if reason:
            left.append(f"{WRAPPER} left out: {reason}")
        else:
            write_robustbench(description, directory)
            wrapped = True
    return Written(
        formats=done,
        left_out=left,
        asked=asked,
        epsilon=epsilon,
        cell=wanted.draw is not None,
        robustbench=wrapped,
        licence=wanted.licence,
        cost=cost,
    )


def _original(
    description: Mapping[str, Any], directory: Path, wanted: Wanted, epsilon: float
) -> tuple[Original, dict[str, float]]:
    """Return the exported model with what formats are asked, and what it costs."""
    architecture, task, trial = (description[k] for k in ("architecture", "task", "trial"))
    model, labels = load(directory), None
    try:
        if wanted.images is None:
            raise InputError("none are given")
        images, labels = wanted.images()
        whence = f"validation images of {trial['data']['name']}"
    except InputError as error:
        draws = torch.Generator().manual_seed(0)
        images = torch.rand((IMAGES, *task["shape"]), generator=draws)
        whence = f"random images, seed 0, for want of data ({first_line(error)})"
    questions = ask(model, images, labels, epsilon, whence)
    hash_, space = str(architecture["hash"]), str(architecture["space"])
    facts = {
        "psinas.architecture": hash_,
        "psinas.space": space,
        "psinas.trial": str(trial["number"]),
        "psinas.data": str(trial["data"]["name"]),
        "psinas.input": f"images (N, {', '.join(map(str, task['shape']))}) float32 in [0, 1]",
        "psinas.output": f"logits (N, {task['classes']})",
    }
    title = re.sub(r"[^A-Za-z0-9 .,:-]", "", f"{space}, architecture {hash_}, exported by psinas.")
    cost = {"parameters": float(parameters(model)), "macs": float(macs(model, images[:1]))}
    return Original(model, questions, facts, title), cost


def _epsilon(description: Mapping[str, Any]) -> float:
    """Return the radius of the attack on exported models: the recipe's, in L infinity."""
    found = description["trial"]["recipe"].get("epsilon")
    usable = isinstance(found, float | int) and 0 < found <= LARGEST_EPSILON
    return float(found) if usable else USUAL_EPSILON
