"""Where an export goes: only files that an export wrote are ever replaced or deleted.

A manifest beside them has the checksum of each, so that a file somebody changed is not taken for
one of ours. New files are written into a directory of their own first and then moved, the
description last: after a kill at any moment the next export knows each file, old or new, again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nas.errors import InputError

MODEL, DESCRIPTION, CARD, CELL = "model.safetensors", "architecture.json", "README.md", "cell.svg"
MANIFEST = "manifest.json"
STAGING = ".psinas-export"
KIND = "psinas export"
BEFORE_MANIFESTS = (DESCRIPTION, MODEL, CARD, CELL)  # all that an export held before it had one
ONNX, PROGRAM, SOURCE, CHECK = "model.onnx", "model.pt2", "model.py", "check.safetensors"
WRAPPER, CLAIMS = "robustbench_model.py", "robustbench_model_info.json"
FILES = (*BEFORE_MANIFESTS, MANIFEST, ONNX, PROGRAM, SOURCE, CHECK, WRAPPER, CLAIMS)


def check_place(out: Path, names: Iterable[str] = ()) -> None:
    """Refuse to export among somebody's files, or over what somebody changed.

    Args:
        out: the directory.
        names: of the files that will be written.

    Raises:
        InputError: ``out`` is a file, holds something and no export, an export of which files were
            changed since, or a file of these names that no export wrote.
    """
    if not out.exists():
        return
    expected = "--out: expected a new or empty directory, or an earlier export"
    if not out.is_dir():
        raise InputError(f"{expected}, got the file {out}")
    staging = out / STAGING
    if staging.exists() and (not staging.is_dir() or _strangers(staging)):
        raise InputError(f"{expected}, got {out} with files of yours in {staging.name}")
    others = sorted(p.name for p in out.iterdir() if p.name not in _litter())
    if others and not is_export(out):
        raise InputError(f"{expected}, got {out} with {_some(others)}")
    ours = _ours(out)
    changed = [
        name
        for name in sorted({*ours, *(n for n in names if n not in ours)})
        if (out / name).exists() and not _is_one_of(out / name, ours.get(name, []))
    ]
    if changed:
        raise InputError(
            f"--out: expected files that an export wrote, got {out} with {_some(changed)} changed "
            "or added since: move what you want to keep, or choose another directory"
        )


def replace_export(out: Path, write: Callable[[Path], object]) -> None:
    """Write an export: all of it into a directory of its own, then in the place of an earlier one.

    Args:
        out: made where it is not there.
        write: is given an empty directory and writes the files of the export into it.

    Raises:
        InputError: see :func:`check_place`.
    """
    check_place(out)
    made, staging = not out.exists(), out / STAGING
    try:
        old = _settle(out)
        staging.mkdir(parents=True)
        write(staging)
        new = {path.name: [_sum(path)] for path in sorted(staging.iterdir())}
        check_place(out, new)
        _write_manifest(staging, new)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if made and out.exists() and not any(out.iterdir()):
            out.rmdir()
        raise
    # The description goes first and comes last: it is never beside other weights.
    for name in (DESCRIPTION, *({**old, **new}.keys() - {DESCRIPTION})):
        (out / name).unlink(missing_ok=True)
    for name in (*(new.keys() - {DESCRIPTION}), MANIFEST, DESCRIPTION):
        (staging / name).replace(out / name)
    staging.rmdir()


def _settle(out: Path) -> dict[str, list[str]]:
    """Return the files of an earlier export, whole or not, with a manifest of what they are now.

    What a killed export left beside them is deleted.
    """
    found = {n: [_sum(out / n)] for n in _ours(out) if (out / n).is_file()}
    if found:
        _write_manifest(out, found)
    shutil.rmtree(out / STAGING, ignore_errors=True)
    for name in _litter() - {STAGING}:
        if (out / name).exists():
            (out / name).unlink()
    return found


def is_export(out: Path) -> bool:
    """Whether a directory holds an export, whole or half written."""
    if _read(out / MANIFEST) or (out / STAGING).exists():
        return True
    return any(_describes(out / name) for name in (DESCRIPTION, f".{DESCRIPTION}.partial"))


def _describes(description: Path) -> bool:
    """Whether this is the description of an export."""
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"architecture", "task", "trial"} <= found.keys()


def _ours(out: Path) -> dict[str, list[str] | None]:
    """Return the files that an export wrote -> the checksums that they may have; None is any."""
    known: dict[str, list[str] | None] = dict(_read(out / MANIFEST))
    if not known and (_describes(out / DESCRIPTION) or _describes(out / _partial(DESCRIPTION))):
        known = dict.fromkeys(BEFORE_MANIFESTS)
    for name, sums in _read(out / STAGING / MANIFEST).items():
        if known.get(name, []) is not None:
            known[name] = [*(known.get(name) or ()), *sums]
    return known


def _is_one_of(path: Path, sums: list[str] | None) -> bool:
    return sums is None or (path.is_file() and _sum(path) in sums)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(manifest: Path) -> dict[str, list[str]]:
    """Return file -> checksums of a manifest; nothing of what is none."""
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        files = found[KIND]["files"]
        return {
            str(name): [str(s) for s in sums]
            for name, sums in files.items()
            if Path(name).name == name and isinstance(sums, list)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_manifest(directory: Path, files: Mapping[str, list[str]]) -> None:
    text = json.dumps({KIND: {"files": files}}, indent=2) + "\n"
    partial = directory / _partial(MANIFEST)
    partial.write_text(text, encoding="utf-8")
    partial.replace(directory / MANIFEST)


def _strangers(staging: Path) -> list[str]:
    known = {*FILES, *(_partial(name) for name in FILES)}
    return [p.name for p in staging.iterdir() if p.name not in known or not p.is_file()]


def _partial(name: str) -> str:
    return f".{name}.partial"


def _litter() -> set[str]:
    """Return the names of what a killed export leaves."""
    return {STAGING, _partial(MANIFEST), *(_partial(name) for name in BEFORE_MANIFESTS)}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
