"""What reports of nodes say against a search on them: faults that refuse it, and doubts.

A line names the nodes, what was expected, what came, and the remedy. Nodes of which the same is
true share one. No Ray here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from launch.cluster.node import NodeReport
from launch.config.config import Config

CLOCK_SECONDS = 5.0  # more than this apart, files and logs of two nodes tell another order
LOW_BYTES = 1 << 30
NAMED = 4  # nodes in one line
HARD = ("torch", "ray", "python")
"""What must not differ but for a patch of Python and torch's build, such as +cu126 and +cpu."""
STORAGE = {
    "absent": "expected the run directory {run} on storage that all nodes share, got none there: "
    "mount it there, or give --out on shared storage",
    "other": "expected the driver's run directory {run}, got another directory of that name "
    "there: give --out on storage that all nodes share",
    "unseen": "expected the driver to see what a node writes to {run}, got nothing: give --out on "
    "storage that all nodes share",
    "read-only": "expected a run directory that can be written, got {run} on a read-only file "
    "system there: mount it writable, or give another --out",
    "full": "expected room in {run}, got none there ({error}): free some, or give another --out",
    "quota": "expected room in {run}, got a quota that is used up ({error}): free some, or give "
    "another --out",
    "unreadable": "expected a run directory that can be read, got {run} there: {error}: let the "
    "user that runs Ray there read and write it",
    "unwritable": "expected a run directory that can be written, got {run} there: {error}: let the "
    "user that runs Ray there read and write it",
}
"""State of the storage -> what is wrong with it and what helps."""


def faults_of(
    reports: Sequence[NodeReport], config: Config, driver: NodeReport, run: str = "--out"
) -> list[str]:
    """Return what refuses a search, one line each.

    Args:
        reports: of nodes; what is said of those on which no trial fits is left out.
        config: of the search.
        driver: of its own process, which the nodes are held against.
        run: the directory that was to be shared.
    """
    gpus = needs_gpu(reports, config)
    asked = [r for r in reports if r.cpus >= config.resources.cores and r.gpus >= gpus]
    if asked and all(r.silent for r in asked):
        return _folded(asked, _silence)

    def wrong(report: NodeReport) -> Iterator[str]:
        if report.unready:
            psinas = driver.versions.get("psinas") or "as the driver has it"
            yield (
                f"expected psinas {psinas} in the Python that runs Ray there, got "
                f"{report.unready}: install it there"
            )
        yield from _versions(report, driver)
        if report.storage in STORAGE:
            yield STORAGE[report.storage].format(run=run, error=report.storage_error)
        for name, why in report.modules.items():
            yield (
                f"expected {name} to be imported there, got {why}: install it there, or put its "
                "directory on shared storage"
            )
        for name, checksum in report.module_checksums.items():
            if checksum != driver.module_checksums.get(name, checksum):
                yield f"expected {name} from the driver's file, got one with another text there"
        if uses_gpus(config):
            yield from _driverless(report)

    return _folded(asked, wrong)


def doubts_of(
    reports: Sequence[NodeReport], config: Config, driver: NodeReport, run: str = "--out"
) -> list[str]:
    """Return what a user should know and a search survives; the arguments of :func:`faults_of`."""

    def doubtful(report: NodeReport) -> Iterator[str]:
        yield from _silence(report)
        for name in ("torchvision", "optuna", "numpy", "python", "torch"):
            mine, theirs = driver.versions.get(name), report.versions.get(name)
            same = _hard(name, mine) == _hard(name, theirs)
            if report.versions and mine != theirs and (same or name not in HARD):
                yield f"expected {name} {mine} as on the driver, got {theirs}"
        offset, error = report.clock_offset_seconds, report.clock_error_seconds or 0.0
        if offset is not None and abs(offset) - error > CLOCK_SECONDS:
            way = "ahead of" if offset > 0 else "behind"
            yield (
                f"expected its clock within {CLOCK_SECONDS:g} s of the driver's, got one "
                f"{abs(offset):.1f} s {way} it: set it by NTP"
            )
        for free, where in (
            (report.run_free_bytes, run),
            (report.temporary_free_bytes, "Ray's temporary directory"),
        ):
            if free is not None and free < LOW_BYTES:
                yield f"expected {_gigabytes(LOW_BYTES)} free in {where}, got {_gigabytes(free)}"
        if report.cores and report.cpus > report.cores:
            yield (
                f"Ray counts {report.cpus:g} CPUs, a process there may use {report.cores} cores: "
                f"start it with --num-cpus={report.cores}"
            )
        if report.torch_gpus and not report.gpus:
            number = len(report.torch_gpus)
            yield (
                f"torch can use {number} GPUs, Ray counts none: start it with --num-gpus={number}"
            )
        for name, why in report.data.items():
            yield (
                f"expected {name} there, got none ({why}): a search carries its images along, "
                "psinas score and bracket --address read them there"
            )

    return _folded(reports, doubtful)


def needs_gpu(reports: Sequence[NodeReport], config: Config) -> float:
    """Return what of a GPU a node must have for a trial; ``auto`` wants one where one is there."""
    if config.resources.gpu != "auto":
        return float(config.resources.gpu)
    return float(config.resources.processes) if any(r.gpus for r in reports) else 0.0


def uses_gpus(config: Config) -> bool:
    """Whether models of a search run on the GPUs that Ray counts."""
    return config.resources.device != "cpu" and config.resources.gpu != 0


def _versions(report: NodeReport, driver: NodeReport) -> Iterator[str]:
    mine, theirs = driver.versions, report.versions
    if not theirs:
        return
    if mine.get("sources") != theirs.get("sources"):
        yield (
            f"expected {_psinas(mine)} as on the driver, got {_psinas(theirs)}: install the "
            "driver's there"
        )
    for name in HARD:
        expected, got = _hard(name, mine.get(name)), _hard(name, theirs.get(name))
        if expected != got:
            yield f"expected {name} {expected} as on the driver, got {got}: install it there"


def _hard(name: str, version: str | None) -> str | None:
    """Return the part of a version that must not differ."""
    if version is None or name not in HARD:
        return version
    return ".".join(version.split(".")[:2]) if name == "python" else version.partition("+")[0]


def _psinas(versions: Mapping[str, str | None]) -> str:
    """Return psinas, its version, its commit and the checksum of its sources."""
    commit = f"commit {found[:7]}, " if (found := versions.get("commit")) else ""
    return f"psinas {versions.get('psinas')} ({commit}sources {versions.get('sources')})"


def _driverless(report: NodeReport) -> Iterator[str]:
    usable = report.torch_gpus
    if usable is None or len(usable) >= report.gpus:
        return
    why = f" ({report.cuda_error})" if report.cuda_error else ""
    yield (
        f"Ray counts {_plural(report.gpus)}, torch can use {len(usable) or 'none'}{why}: mend its "
        f"driver, start the node with --num-gpus={len(usable)}, or --set resources.gpu=0"
    )


def _silence(report: NodeReport) -> Iterator[str]:
    if report.silent:
        yield f"expected an answer, got none: {report.silent}"


def _folded(reports: Sequence[NodeReport], of: Callable[[NodeReport], Iterator[str]]) -> list[str]:
    """Return a line for every text that is true of some nodes, naming them."""
    names = node_names(reports)
    nodes: dict[str, list[str]] = {}
    for report in reports:
        for text in of(report):
            nodes.setdefault(text, []).append(names[report.node])
    return [f"{_several(found)}: {text}" for text, found in nodes.items()]


def node_names(reports: Sequence[NodeReport]) -> dict[str, str]:
    """Return what to call each node: its host's name, told apart where several share one."""
    hosts = [report.host for report in reports]
    return {
        r.node: (r.host or r.node[:8] or "driver")
        if hosts.count(r.host) == 1 or not r.host
        else f"{r.host} ({r.node[:6]})"
        for r in reports
    }


def _several(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _plural(gpus: float) -> str:
    return f"{gpus:g} GPU" if gpus == 1 else f"{gpus:g} GPUs"


def _gigabytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
