"""Whether searches can run: this machine, the nodes of a cluster, a configuration, its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from launch.cluster.before import check_travels, datasets_of
from launch.cluster.checks import doubts_of, faults_of, node_names
from launch.cluster.node import NodeReport, Questions
from launch.cluster.nodes import Cluster
from launch.cluster.probe import check_room, here, living, probe
from launch.cluster.session import ray_session
from launch.cluster.slots import Slots
from launch.config.config import Config
from launch.config.modules import check_found, code_in
from launch.show.columns import aligned
from nas.data.config import DataConfig
from nas.data.datasets import load_test_images
from nas.data.places import data_root
from nas.errors import InputError

SEARCH = "configuration"
LOOKED_FOR = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100")


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        search: its name; None where machines alone were looked at.
        directory: where a run would be written.
        driver: this process.
        nodes: of the cluster; None where no address was given.
        slots: how the search's trials fit there.
        root: where files of datasets are looked for.
        data: dataset -> what of it was found here.
        faults: what refuses a search, in lines.
        doubts: what a user should know.
    """

    search: str | None
    directory: Path
    root: Path
    driver: NodeReport
    nodes: Sequence[NodeReport] | None
    slots: Slots | None
    data: Mapping[str, str]
    faults: Sequence[str]
    doubts: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "search": self.search,
            "directory": str(self.directory),
            "data_root": str(self.root),
            "driver": self.driver.to_dict(),
            "nodes": [node.to_dict() for node in self.nodes or ()],
            "slots": None if self.slots is None else asdict(self.slots),
            "data": dict(self.data),
            "faults": list(self.faults),
            "doubts": list(self.doubts),
        }


def examine(config: Config | None, *, run: Path, address: str | None) -> Examined:
    """Return what stands against a search.

    Args:
        config: of the search; None looks at machines alone.
        run: its directory, or where it would be; nothing stays in it.
        address: of a Ray cluster; None asks this machine alone, and starts no Ray.

    Raises:
        InputError: no such cluster.
    """
    directory = next(p for p in (run.resolve(), *run.resolve().parents) if p.is_dir())
    faults = list(_faults_here(config, directory))
    used = () if config is None else datasets_of(config.plan())
    sources = tuple(dict.fromkeys(data.source for data in used))
    modules = () if config is None else tuple(code_in(config.model_dump()))
    questions = Questions(str(directory), sources, modules, True)
    driver = here(questions)
    faults += [f"this machine: {why}" for why in driver.data.values()]
    data = {name: "not there" if name in driver.data else "there" for name, *_ in sources}
    asked, where = config or Config(), str(directory)
    alone = replace(driver, gpus=float(len(driver.torch_gpus or ())), data={})
    doubts = doubts_of([alone], asked, driver, where)
    nodes = slots = None
    if address is not None:
        with ray_session(address):
            try:
                nodes = probe(living(), questions)
            except InputError:  # no room, which was said of this machine
                nodes = probe(living(), replace(questions, run=None))
            if config is not None:
                cluster = Cluster(config.resources)
                slots, lack = cluster.slots(), cluster.lacks()
                doubts += [f"{lack}: a search waits for one"] if lack else []
        faults += faults_of(nodes, asked, driver, where)
        doubts += doubts_of(nodes, asked, driver, where)
    if config is None:
        data = {name: _found(name) for name in LOOKED_FOR}
    name, root = (None, DataConfig()) if config is None else (config.name, config.data)
    return Examined(name, directory, data_root(root), driver, nodes, slots, data, faults, doubts)


def lines_of(examined: Examined) -> list[str]:
    """Return what a person reads."""
    driver = examined.driver
    lines = [f"{name}  {version}" for name, version in driver.versions.items()]
    lines += [
        f"cores  {driver.cores}",
        f"GPUs  {_gpus(driver)}",
        f"disk  {_size(driver.run_free_bytes)} free in {examined.directory}, "
        f"{_size(driver.temporary_free_bytes)} for Ray's temporary files",
        f"data  {examined.root}",
    ]
    lines += [f"  {name}  {found}" for name, found in examined.data.items()]
    if examined.search is not None and not any(f.startswith(SEARCH) for f in examined.faults):
        lines += [f"{SEARCH}  {examined.search} can travel to workers"]
    if examined.nodes is not None:
        lines += ["", *table_of(examined.nodes)]
    if (slots := examined.slots) is not None:
        share = f"{slots.gpu:g} GPU and " if slots.gpu else ""
        lines += ["", f"{slots.count} trials at a time, {share}{slots.cpu} cores each"]
    told = {"fault": examined.faults, "doubt": examined.doubts}
    if found := [f"{kind}  {line}" for kind, each in told.items() for line in each]:
        return [*lines, "", *found]
    return [*lines, "", "nothing is wrong"]


def table_of(nodes: Sequence[NodeReport]) -> list[str]:
    """Return one line a node, under a head."""
    names = node_names(nodes)
    columns: dict[str, list[str]] = {
        "node": [names[node.node] for node in nodes],
        "address": [node.address for node in nodes],
        "CPUs": [f"{node.cpus:g}" for node in nodes],
        "cores": [str(node.cores or "-") for node in nodes],
        "GPUs": [f"{node.gpus:g}" for node in nodes],
        "torch's GPUs": ["-" if node.torch_gpus is None else _gpus(node) for node in nodes],
        "storage": [node.storage or "-" for node in nodes],
        "free": [_size(node.run_free_bytes) for node in nodes],
        "clock": [_clock(node) for node in nodes],
    }
    for name in ("python", "ray", "torch", "psinas"):
        columns[name] = [node.versions.get(name) or "-" for node in nodes]
    return aligned(columns, right=["CPUs", "cores", "GPUs", "free", "clock"])


def _faults_here(config: Config | None, directory: Path) -> Iterator[str]:
    """Return what is wrong with the configuration, and with the directory on this machine."""
    try:
        check_room(directory)
    except InputError as error:
        yield f"this machine: {error}"
    if config is None:
        return
    for check in (
        partial(check_found, config.model_dump()),
        partial(check_travels, config.plan().template),
    ):
        try:
            check()
        except InputError as error:
            yield f"{SEARCH}: {error}"


def _found(name: str) -> str:
    try:
        return f"{len(load_test_images(DataConfig(name=name)).labels)} test images"
    except InputError:
        return "not there"


def _gpus(node: NodeReport) -> str:
    if not node.torch_gpus:
        return f"none ({node.cuda_error})" if node.cuda_error else "none"
    sizes = zip(node.torch_gpus, node.gpu_memory_bytes, strict=True)
    return ", ".join(f"{name} {_size(size)}" for name, size in sizes)


def _size(number: int | None) -> str:
    return "-" if number is None else f"{number / 2**30:.1f} GiB"


def _clock(node: NodeReport) -> str:
    if node.clock_offset_seconds is None:
        return "-"
    return f"{node.clock_offset_seconds:+.2f} s"
