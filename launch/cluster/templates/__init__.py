"""Files that launch a search on other machines: a Slurm job, a cloud cluster, a Kubernetes job.

Open this to add one: a file beside this one and a line in ``FILES``. ``psinas template`` hands them
out; the first comment line of a file is what it says of itself.
"""

from __future__ import annotations

from importlib import resources

from nas.errors import InputError

FILES = {
    "hosts": "hosts.sh",
    "slurm": "slurm.sbatch",
    "slurm-elastic": "slurm-elastic.sbatch",
    "on-premise": "on-premise.yaml",
    "aws": "aws.yaml",
    "gcp": "gcp.yaml",
    "kuberay": "kuberay.yaml",
}
"""Name -> file of this folder, from the plainest cluster to the largest."""


def template(name: str) -> str:
    """Return the text of a template.

    Raises:
        InputError: no such template.
    """
    if name not in FILES:
        raise InputError(f"expected a template ({', '.join(FILES)}), got {name!r}")
    return resources.files(__name__).joinpath(FILES[name]).read_text(encoding="utf-8")


def about(name: str) -> str:
    """Return a template's first comment line that is not ``#!``."""
    lines = template(name).splitlines()
    return next(line for line in lines if not line.startswith("#!")).lstrip("# ")
