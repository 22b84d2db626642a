"""psinas on a CUDA card: are its numbers the CPU's, what memory does it take, how fast is it?

    python bench/gpu.py [--data npz:FILE] [--only numbers,attacks] [--seconds 440] [--json FILE]

Seven sections of cases: masks and Ψ on the card against the CPU's; peak memory; attacks against
torchattacks; adversarial training in each precision against a plain loop and the card's peak; what
is learned in each; a trial that runs out of memory, and the next one; a search through Ray with
several trials a GPU. A case that fails is shown as FAILED, the
rest goes on, and the exit code is 1. After ``--seconds`` what is left is skipped, and named. Each
case is told on stderr when it is done, the tables come at the end.

``--device cpu --quick`` runs the same code in little, so that it works the day a card is there.
"""

from __future__ import annotations

import argparse
import copy
import gc
import inspect
import io
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_setting import (
    Case,
    Net,
    Row,
    Setting,
    T,
    built,
    depth_channels,
    nasbench201,
    nasnet,
    ratios,
    resnet,
)
from gpu_training import learning, training
from torch import Tensor, nn

from metrics import (
    APGD,
    FGSM,
    METRICS,
    PGD,
    Attack,
    Noise,
    Square,
    StepLL,
    correct,
    robust_accuracy,
    susceptibility,
)
from metrics.susceptibility import susceptibility_limit
from nas.data.arrays import Images
from nas.data.config import DataConfig, Limit
from nas.errors import one_line
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import Architecture, Task

MIB = 2**20
BATCH = 256  # on both sides: draws depend on it
GRACE = 30  # seconds after the budget's end, when a case that hangs is broken off


def trained(s: Setting, net: Net) -> tuple[nn.Module, float]:
    """Return the net after two epochs of PGD training, and the seconds they took."""
    model = built(s, net, s.data.task)
    recipe = Recipe(
        epochs=2,
        batch_size=s.pick(128, 32),
        epsilon=s.epsilon / 2,
        steps=s.pick(5, 1),
        precision="float32",
        selection_images=0,
    )
    took = s.seconds(lambda: drain(train(model, s.data, recipe, recipe.attack(), s.generator())))
    return model.eval(), took


# ---------------------------------------------------------------------------------------------
# numbers: the card's against the CPU's


@dataclass(frozen=True)
class Twins:
    """A net on the device and on the CPU, and images (on the CPU) whose class both agree on.

    That class is the label: every image is attacked, however well the net was trained.
    """

    there: nn.Module
    here: nn.Module
    images: Tensor
    labels: Tensor


def numbers(s: Setting) -> Iterator[Case]:
    """Masks and Ψ on the device and on the CPU, with the same draws: a CPU generator makes them.

    Attacked are the images whose class both agree on, away from that class.
    """
    nets = {
        "depth-channels": s.pick(depth_channels(4, 32, "imagenet"), depth_channels(2, 8)),
        "nasnet": s.pick(nasnet(4, 8, stem_stride=2), nasnet(2, 4)),
        "nasbench201": nasbench201(s.pick(8, 4)),
    }
    if not s.quick:
        nets["resnet"] = resnet("imagenet")
    twins: dict[str, Twins] = {}
    for name, net in nets.items():
        yield {"net": name}, partial(twin, s, name, net, twins)
    e, steps = s.epsilon, s.pick(20, 3)
    attacks: dict[str, Attack] = {
        "FGSM": FGSM(epsilon=e),
        "step l.l.": StepLL(epsilon=e),
        f"PGD-{steps}": PGD(epsilon=e, steps=steps),
        f"PGD-{steps} L2": PGD(epsilon=s.pick(0.5, 0.3), steps=steps, norm="l2"),
        f"PGD-{steps}, 2 starts": PGD(epsilon=e, steps=steps, restarts=2),
        "APGD-CE": APGD(epsilon=e, steps=steps),
        "APGD-DLR": APGD(epsilon=e, steps=steps, loss="dlr"),
        "Square": Square(epsilon=e, queries=s.pick(100, 8)),
        "Noise": Noise(epsilon=e, draws=s.pick(10, 2)),
    }
    for name, pair in twins.items():
        for label, attack in attacks.items():
            yield {"net": name, "attack": label}, partial(masks, s, pair, attack)
    for name, pair in twins.items():
        for kind in ("eval", "frozen", "limit"):
            yield {"net": name, "psi": kind}, partial(psis, s, pair, kind)


def twin(s: Setting, name: str, net: Net, twins: dict[str, Twins]) -> Row:
    there, took = trained(s, net)
    here = copy.deepcopy(there).cpu()
    x, y = s.judged(s.pick(512, 24))
    with torch.no_grad():
        said = here(x.cpu()).argmax(dim=1)
    same = correct(there, x, said.to(s.device)).cpu()
    twins[name] = Twins(there, here, x.cpu()[same], said[same])
    return {
        "differ": int((~same).sum()),
        "of": len(said),
        "clean": share(correct(there, x, y)),
        "clean_cpu": share(correct(here, x.cpu(), y.cpu())),
        "train_seconds": took,
    }


def share(mask: Tensor) -> float:
    return mask.double().mean().item()


def both(
    s: Setting, pair: Twins, work: Callable[[nn.Module, Tensor, Tensor], T]
) -> tuple[T, T, Row]:
    """Return what ``work`` makes of model, images and labels there and here, and its seconds."""
    found: list[T] = []
    x, y = pair.images, pair.labels
    there, here = (
        s.seconds(lambda m=m, d=d: found.append(work(m, x.to(d), y.to(d))))  # type: ignore[misc]
        for m, d in ((pair.there, s.device), (pair.here, torch.device("cpu")))
    )
    return found[0], found[1], {"seconds": there, "seconds_cpu": here}


def masks(s: Setting, pair: Twins, attack: Attack) -> Row:
    def attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        draws = torch.Generator().manual_seed(1)
        result = robust_accuracy(model, x, y, attack, generator=draws, batch_size=BATCH)
        return result.robust.cpu()

    there, here, times = both(s, pair, attacked)
    differ = int((there != here).sum())
    return {
        "differ": differ,
        "of": len(here),
        "robust": share(there),
        "robust_cpu": share(here),
        **times,
    }


def psis(s: Setting, pair: Twins, kind: str) -> Row:
    def measured(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if kind == "limit":
            return susceptibility_limit(model, x).cpu()
        draws = torch.Generator().manual_seed(1)
        radii = (1e-4, 1e-3, 1e-2)
        return susceptibility(model, x, radii=radii, batch_norm=kind, generator=draws).psi.cpu()

    there, here, times = both(s, pair, measured)
    off = (there / here - 1).abs()
    a, b = (psi.log().mean().exp().item() for psi in (there, here))
    return {
        "differ_by_1%": int((~(off <= 0.01)).sum()),
        "of": off.numel(),
        "mean": a,
        "mean_cpu": b,
        "mean_off": a / b - 1,
        "worst_off": off.max().item(),
        **times,
    }


# ---------------------------------------------------------------------------------------------
# memory


def memory(s: Setting) -> Iterator[Case]:
    """Peak memory above what model and images take, for more and more images."""
    shape = s.pick((3, 32, 32), (3, 16, 16))
    net = s.pick(resnet("small"), depth_channels(2, 8))
    model = built(s, net, Task.plain(shape, 10)).eval()
    attack = PGD(epsilon=8 / 255, steps=2)
    radii = (1e-4, 1e-3, 1e-2)
    works: dict[str, Callable[[Tensor, Tensor], object]] = {
        "robust_accuracy, PGD-2": lambda x, y: robust_accuracy(
            model, x, y, attack, generator=s.generator(), early_exit=False
        ),
        "susceptibility, 3 radii": lambda x, y: susceptibility(
            model, x, radii=radii, generator=s.generator()
        ),
    }
    for name, work in works.items():
        for count in s.pick((250, 1000, 4000), (50, 400)):
            yield {"what": name, "images": count}, partial(peak, s, model, shape, count, work)


def peak(
    s: Setting,
    model: nn.Module,
    shape: tuple[int, int, int],
    count: int,
    work: Callable[[Tensor, Tensor], object],
) -> Row:
    x = torch.rand(count, *shape, generator=s.generator(), device=s.device)
    with torch.no_grad():  # what an untrained net says is right: wrong images are not attacked
        y = torch.cat([model(part).argmax(dim=1) for part in x.split(250)])
    before = begin_peak(s)
    took = s.seconds(lambda: work(x, y))
    after = peak_bytes(s)
    spent = "n/a" if before is None or after is None else max(after - before, 0) / MIB
    return {"images_mib": x.nbytes / MIB, "peak_mib": spent, "images_per_s": count / took}


def begin_peak(s: Setting) -> int | None:
    """Forget the peak so far and return what is held now."""
    make_room(s)
    if s.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the largest resident set is the present one
    except OSError:
        return None
    return peak_bytes(s)


def peak_bytes(s: Setting) -> int | None:
    return torch.cuda.max_memory_allocated() if s.device.type == "cuda" else resident("VmHWM")


def resident(field: str) -> int | None:
    """Return ``VmRSS`` or ``VmHWM`` (its largest value) of this process in bytes, on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


# ---------------------------------------------------------------------------------------------
# attacks: against torchattacks


def attacks(s: Setting) -> Iterator[Case]:
    """Images a second of whole evaluations in turn; above a ratio of 1 psinas is the faster."""
    nets = {"depth-channels": s.pick(depth_channels(4, 32), depth_channels(2, 8))}
    if not s.quick:
        nets["resnet"] = resnet("small")
    x, y = s.judged(s.pick(1000, 48))
    steps = s.pick(20, 4)
    for name, net in nets.items():
        model, _ = trained(s, net)
        for kind, tf32 in (("PGD", False), ("PGD", True), ("APGD", False)):
            if s.device.type == "cuda" or not tf32:
                label = {"net": name, "attack": f"{kind}-{steps}", "their_tf32": tf32}
                yield label, partial(against_torchattacks, s, model, x, y, kind, steps, tf32)


def against_torchattacks(
    s: Setting, model: nn.Module, x: Tensor, y: Tensor, kind: str, steps: int, tf32: bool
) -> Row:
    """psinas keeps from TF32, which changes masks; theirs runs without it and, faster, with it."""
    attack: Attack = PGD(epsilon=s.epsilon, steps=steps, random_start=False)
    if kind == "APGD":
        attack = APGD(epsilon=s.epsilon, steps=steps)

    def ours() -> Tensor:
        return robust_accuracy(model, x, y, attack, generator=s.generator()).robust

    try:
        import torchattacks  # type: ignore[import-untyped]
    except ImportError:
        return {
            "images": len(x),
            "psinas_per_s": len(x) / s.seconds(ours),
            "torchattacks": "missing",
        }
    if kind == "PGD":
        made = torchattacks.PGD(model, s.epsilon, s.epsilon / 4, steps, random_start=False)
    else:
        made = torchattacks.APGD(model, norm="Linf", eps=s.epsilon, steps=steps, seed=0)

    def theirs(size: int) -> Tensor:
        with convolutions(tf32):
            pairs = zip(x.split(size), y.split(size), strict=True)
            found = torch.cat([made(a, b).detach().clamp(0, 1) for a, b in pairs])
            return correct(model, found, y, batch_size=size)

    usual = (250, 1000) if s.device.type == "cuda" else (100, 250)
    sizes = sorted({min(size, len(x)) for size in usual})
    mask, accuracy = ours(), share(theirs(sizes[0]))  # warms both up
    size = min((s.seconds(partial(theirs, size)), size) for size in sizes)[1]
    return {
        "images": len(x),
        "their_batch": size,
        **ratios(s, "torchattacks", len(x), ours, partial(theirs, size)),
        "robust": share(mask),
        "their_robust": accuracy,
    }


def convolutions(tf32: bool) -> AbstractContextManager[None]:
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=tf32,
    )
    return flags


# ---------------------------------------------------------------------------------------------
# search: trials that share a GPU


def search(s: Setting) -> Iterator[Case]:
    """The same trials through Ray, more and more of them on one GPU; on a CPU, a core each."""
    first: list[float] = []
    for count in s.pick((1, 2, 4, 8), (1, 2)):
        yield {"at_a_time": count}, partial(searched, s, count, first)


def searched(s: Setting, count: int, first: list[float]) -> Row:
    from rich.console import Console

    from launch.config.config import parse_config
    from launch.runs.searching import search as run_search
    from launch.show.progress import Progress
    from launch.show.reporter import Reporter

    seen: Row = {}

    class Watch(Progress):
        def begin(self, search: Any, slots: int) -> None:
            seen.update(slots=slots, began=time.perf_counter())
            super().begin(search, slots)

    train_images, validation = s.pick((3000, 1000), (64, 40))
    document = {
        "name": "gpu",
        "data": {"name": s.config.name, "limit": {"train": train_images, "validation": validation}},
        "space": {
            "name": "depth-channels",
            "depth": s.pick([2, 3, 4], [1, 2]),
            "channels": s.pick([16, 24, 32, 48], [4]),
            "stem": "small",
        },
        "recipe": {"epochs": 1, "epsilon": s.epsilon, "steps": s.pick(7, 1)},
        "metrics": ["clean", {"name": "pgd", "steps": s.pick(20, 1)}],
        "objectives": {"pgd_accuracy": "max"},
        "sampler": {"name": "grid"},
        "trials": None,
        "resources": {"workers": count} if s.device.type == "cpu" else {"trials_per_gpu": count},
    }
    console = Console(file=io.StringIO())
    report = Reporter(console)
    report.progress = Watch(console)
    with tempfile.TemporaryDirectory() as scratch:
        run, started = Path(scratch) / "run", time.perf_counter()
        config = parse_config(document)
        found = run_search(config, run, report, resume=False, keep_trials=False, address=None)
        wall = time.perf_counter() - started
        table = found.run.table()
    if failed := table[table["status"] != "complete"].to_dict("records"):
        raise RuntimeError(
            f"{len(failed)} trials, the first {failed[0]['status']}: {failed[0]['reason']}"
        )
    first.append(wall)
    return {
        "slots": seen["slots"],
        "trials": len(table),
        "wall_seconds": wall,
        "ray_start_seconds": seen["began"] - started,
        "mean_trial_seconds": float(table["seconds"].mean()),
        "trials_per_minute": 60 * len(table) / wall,
        "speed_up": first[0] / wall,
    }


# ---------------------------------------------------------------------------------------------
# out of memory


def oom(s: Setting) -> Iterator[Case]:
    """A trial that no memory is enough for, then a small one in the same process."""
    if s.device.type == "cuda":  # layers of 512 MiB, of which at least two each are kept
        total = torch.cuda.get_device_properties(s.device).total_memory
        depth, channels, batch, shape = total // (512 * MIB), 128, 1024, (3, 64, 64)
    else:  # one weight of 576 TB: no machine has the addresses for it
        depth, channels, batch, shape = 2, 4_000_000, 32, (1, 8, 8)
    rng = np.random.default_rng(0)
    pixels = rng.random((batch * 2, *shape), dtype=np.float32)
    labels = np.arange(len(pixels), dtype=np.int64) % 10
    images = Images(pixels, labels, tuple(map(str, range(10))))
    config = DataConfig(name="noise")
    recipe = Recipe(
        epochs=1, batch_size=batch, adversarial_share=1.0, steps=1, precision="float32",
        selection_images=0,
    )  # fmt: skip
    small = depth_channels(2, 8)[1]
    runner = TrialRunner(
        Trial(small, recipe, config, (METRICS["clean"](),)),
        {config.source: images},
        device=s.device.type,
        threads=torch.get_num_threads(),
    )
    yield {"trial": "before", "expected": ""}, lambda: {"status": "", "seconds": 0.0, **left(s)}
    large = depth_channels(depth, channels)[1]
    yield {"trial": "too large", "expected": "oom"}, partial(tried, s, runner, large, "oom")
    yield {"trial": "small", "expected": "complete"}, partial(tried, s, runner, small, "complete")


def tried(s: Setting, runner: TrialRunner, architecture: Architecture, expected: str) -> Row:
    started = time.perf_counter()
    evaluation = drain(runner.run(runner.trial(architecture.to_dict(), {})))
    if evaluation.status != expected:
        got = f"{evaluation.status} {evaluation.reason}"
        raise RuntimeError(f"expected status {expected}, got {got}")
    return {"status": evaluation.status, "seconds": time.perf_counter() - started, **left(s)}


def left(s: Setting) -> Row:
    """Return what this process holds, and what of the card is free."""
    if s.device.type == "cpu":
        held = resident("VmRSS")
        return {"resident_mib": "n/a" if held is None else held / MIB}
    return {
        "allocated_mib": torch.cuda.memory_allocated() / MIB,
        "reserved_mib": torch.cuda.memory_reserved() / MIB,
        "free_mib": torch.cuda.mem_get_info()[0] / MIB,
    }


# ---------------------------------------------------------------------------------------------
# running and telling

SECTIONS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "numbers": numbers,
    "memory": memory,
    "attacks": attacks,
    "training": training,
    "learning": learning,
    "oom": oom,
    "search": search,  # the dearest
}


def run(name: str, s: Setting, late: Callable[[], bool]) -> Row:
    """Run a section's cases, and return its rows; a failed case is a row with ``failed``."""
    started, rows, skipped = time.perf_counter(), [], False
    cases = SECTIONS[name](s)
    while not (skipped := late()):
        label: Row = {"case": "set-up"}
        began, failed = time.perf_counter(), ""
        try:
            label, work = next(cases)
            rows.append({**label, **work()})
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001  a row of the table, and the exit code
            failed = one_line(error)
            rows.append({**label, "failed": failed})
        took = f"{time.perf_counter() - began:.1f} s"
        case = " ".join(str(value) for value in label.values())
        print(f"{name}: {case}: {failed and 'FAILED '}{failed or 'done'}, {took}", file=sys.stderr)
        if failed:
            make_room(s)
    del cases  # and the nets that it holds
    make_room(s)
    return {"seconds": time.perf_counter() - started, "skipped": skipped, "rows": rows}


def make_room(s: Setting) -> None:
    """Give back what is held for nothing: the next case, or Ray's workers, may need it."""
    gc.collect()
    if s.device.type == "cuda":
        torch.cuda.empty_cache()


def columns(row: Row) -> tuple[str, ...]:
    return tuple(row)


def text(rows: list[Row]) -> str:
    """Return the rows as text, a new heading wherever the columns change."""
    lines: list[str] = []
    for keys, group in itertools.groupby(rows, key=columns):
        some = list(group)
        if keys[-1] == "failed":
            for row in some:
                *label, reason = row.values()
                lines.append(f"  {'  '.join(map(str, label))}  FAILED {reason}")
            continue
        cells = [[*keys], *([told(value) for value in row.values()] for row in some)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
        words = [isinstance(value, str) for value in some[0].values()]
        for line in cells:
            padded = (
                cell.ljust(width) if word else cell.rjust(width)
                for cell, width, word in zip(line, widths, words, strict=True)
            )
            lines.append("  " + "  ".join(padded).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def told(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def header(s: Setting) -> Row:
    found: Row = {
        "command": " ".join(["bench/gpu.py", *sys.argv[1:]]),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "card": None,
        "data": s.config.name,
    }
    if s.device.type == "cuda":
        card = torch.cuda.get_device_properties(s.device)
        found["card"] = f"{card.name}, {card.total_memory // MIB} MiB"
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def commit() -> str | None:
    """Return the commit of this checkout, if it is one and git is there."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--data", default="digits", help="digits or npz:FILE")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument(
        "--seconds", type=float, default=440, help="after which the rest is skipped"
    )
    parser.add_argument("--json", type=Path, help="a file for the same numbers")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"--only: expected of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "gpu.py: --device: expected a CUDA device that torch sees, got none; "
                       "--device cpu runs the same code without one\n")  # fmt: skip
    warnings.simplefilter("ignore")
    limit = (
        Limit(train=200, validation=64) if arguments.quick else Limit(train=6000, validation=2000)
    )
    config = DataConfig(name=arguments.data, limit=limit, validation_share=0.4)
    s = Setting(torch.device(arguments.device), arguments.quick, config)
    report: Row = {"header": header(s), "sections": {}}
    deadline = time.perf_counter() + arguments.seconds
    with broken_off(int(arguments.seconds) + GRACE):
        for name in chosen:
            report["sections"][name] = run(name, s, lambda: time.perf_counter() > deadline)
            if arguments.json is not None:  # after each: whatever becomes of the next
                arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    tell(report)
    rows = itertools.chain(*(section["rows"] for section in report["sections"].values()))
    return int(any("failed" in row for row in rows))


@contextmanager
def broken_off(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds, once: a Ray that hangs is one failed case."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"broken off {GRACE} s after the budget's end")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def tell(report: Row) -> None:
    for name, value in report["header"].items():
        print(f"{name}: {value}")
    for name, section in report["sections"].items():
        skipped = ", the rest SKIPPED: out of time" if section["skipped"] else ""
        print(f"\n== {name} ({section['seconds']:.1f} s{skipped})")
        print(f"{inspect.getdoc(SECTIONS[name])}\n")
        print(text(section["rows"]))


if __name__ == "__main__":
    sys.exit(main())
