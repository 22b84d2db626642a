"""The formats of an exported model, each written and then read back and held against the model.

Adding a format is one function and one line in ``WRITERS``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas.errors import InputError, first_line
from nas.export.agreement import Agreement, Answering, Questions, agreement
from nas.export.place import CHECK, ONNX, PROGRAM, SOURCE
from nas.export.source import write_source
from nas.export.writing import Unwritable

OPSET = 18  # of ONNX: the one that torch writes without converting, of 2022
STORED = 4  # images with their logits, for model.py to check itself
LARGEST_ONNX = 2**31 - 2**20  # bytes of weights: a file of this kind ends at 2 GiB


class LeftOut(Exception):
    """A format that cannot be written, or is not the model."""


@dataclass(frozen=True)
class Original:
    """The model that is exported.

    Attributes:
        model: in ``eval()``, on the CPU.
        questions: what each format is asked.
        facts: name -> text, written into files that have room for it.
        title: of ``model.py``: one line of letters, digits and spaces.
    """

    model: nn.Module
    questions: Questions
    facts: Mapping[str, str]
    title: str

    @cached_property
    def program(self) -> ExportedProgram:
        """The exported program, of any batch size, without where its code lies on this machine."""
        images = self.questions.images[:2]
        batch = Dim("batch")
        try:
            program = torch.export.export(self.model, (images,), dynamic_shapes=({0: batch},))
        except Exception:  # noqa: BLE001  some ask for the name, others for none
            dynamic = ({0: Dim.DYNAMIC},)
            program = torch.export.export(self.model, (images,), dynamic_shapes=dynamic)
        for node in program.graph.nodes:
            for key in ("stack_trace", "from_node"):  # files and lines of this machine
                node.meta.pop(key, None)
        return program


def write_onnx(original: Original, directory: Path) -> Answering:
    """Write ``model.onnx``: one file, any batch size, images in and logits out.

    Raises:
        LeftOut: onnx, onnxscript or onnxruntime is missing, or the model is too large.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LeftOut(f"it needs onnx, onnxscript and onnxruntime: {error}") from error
    if sum(t.nbytes for t in original.model.state_dict().values()) > LARGEST_ONNX:
        raise LeftOut("its weights are more than the 2 GiB that a file of this format holds")
    made: Any = torch.onnx.export(
        original.program,
        (original.questions.images[:2],),
        None,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    _plain(made.model, original.facts)
    made.save(str(directory / ONNX), external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal alone: it writes past Python to the terminal
    session = onnxruntime.InferenceSession(
        str(directory / ONNX), options, providers=["CPUExecutionProvider"]
    )

    def answer(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return answer


def _plain(model: Any, facts: Mapping[str, str]) -> None:
    """State what the file is; take out where the code of its nodes lies on this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update({**facts, "opset": str(OPSET)})
    model.graph.name, model.producer_name = "psinas", "psinas"
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape[0] = "batch"


def write_program(original: Original, directory: Path) -> Answering:
    """Write ``model.pt2``, what ``torch.export.load`` reads."""
    extra = {"psinas.json": json.dumps(dict(original.facts), indent=2)}
    torch.export.save(original.program, directory / PROGRAM, extra_files=extra)
    read: Answering = torch.export.load(directory / PROGRAM).module()
    return read


def write_python(original: Original, directory: Path) -> Answering:
    """Write ``model.py`` and what it checks itself with; ``directory`` holds the weights.

    The stored images are random ones, seeded: pictures of a dataset are not ours to give away.

    Raises:
        LeftOut: it cannot be written with torch alone.
    """
    from safetensors.torch import save

    try:
        text = write_source(original.model, original.title, lambda: original.program)
    except Unwritable as error:
        raise LeftOut(f"it uses {error}") from error
    (directory / SOURCE).write_text(text, encoding="utf-8")
    shape = (STORED, *original.questions.images.shape[1:])
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)
    with torch.no_grad():
        logits = original.model(images.float() / 255)
    stored = {"images": images, "logits": logits.contiguous()}
    (directory / CHECK).write_bytes(save(stored))
    found = importlib.util.spec_from_file_location("psinas_exported_model", directory / SOURCE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    exec(compile(text, SOURCE, "exec"), module.__dict__)  # no __pycache__ beside it
    read: nn.Module = module.load(directory)
    difference, most = module.largest_difference(read, directory)
    if not difference <= most:
        raise LeftOut(f"its logits of stored images differ by {difference:.3g}")
    return read


WRITERS: dict[str, tuple[Callable[[Original, Path], Answering], tuple[str, ...]]] = {
    "onnx": (write_onnx, (ONNX,)),
    "program": (write_program, (PROGRAM,)),
    "python": (write_python, (SOURCE, CHECK)),
}
"""Format -> what writes it and returns it as read back, and its files."""

ALL = tuple(WRITERS)


def known_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return the formats of these names, ``weights`` being there in any case.

    Raises:
        InputError: an unknown name.
    """
    if unknown := [name for name in names if name not in (*ALL, "weights")]:
        raise InputError(
            f"--formats: expected some of weights, {', '.join(ALL)}, got {', '.join(unknown)}"
        )
    return tuple(name for name in ALL if name in names)


def write_format(name: str, original: Original, directory: Path) -> Agreement:
    """Write a format, and read it back; where it is not the model no file of it is left.

    Raises:
        LeftOut: it cannot be written, or differs; in one line.
    """
    write, files = WRITERS[name]
    try:
        with quiet():
            found = agreement(write(original, directory), original.questions)
        if found.problem:
            raise LeftOut(found.problem)
    except LeftOut as error:
        _remove(directory, files)
        raise LeftOut(f"{files[0]} left out: {error}") from error
    except Exception as error:  # noqa: BLE001  of torch, onnx or anybody's forward
        _remove(directory, files)
        raise LeftOut(f"{files[0]} left out: {first_line(error)}") from error
    return found


def _remove(directory: Path, files: Sequence[str]) -> None:
    for file in files:
        (directory / file).unlink(missing_ok=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch and onnx say while they write: what matters is asked for afterwards."""
    names = ("torch", "onnxscript", "onnx_ir", "onnxruntime", "torch.onnx", "torch.export")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
