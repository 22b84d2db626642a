"""Virtual environments that see a few installed packages, by links, and neither psinas nor more."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

TORCH = (
    "torch torchgen functorch sympy mpmath networkx jinja2 markupsafe fsspec filelock "
    "typing_extensions.py nvidia triton cuda setuptools"
)
ONNX = "onnxruntime numpy numpy.libs flatbuffers google packaging sympy mpmath"
"""onnxruntime asks for protobuf, sympy and more, and imports none of them to run a file."""


def bare_environment(where: Path, packages: str) -> Path:
    """Return the Python of a new environment that has these packages alone."""
    venv.create(where, symlinks=True, with_pip=False)
    installed = Path(sysconfig.get_paths()["purelib"])
    (there,) = where.glob("lib/python*/site-packages")
    for name in packages.split():
        if (installed / name).exists():
            (there / name).symlink_to(installed / name)
    return where / "bin" / Path(sys.executable).name


def run_bare(python: Path, code: str, *arguments: object) -> str:
    """Return what a program prints in such an environment, without a path or variable of ours."""
    command = [str(python), "-I", "-W", "ignore", "-c", code, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=python.parents[1],
                            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
