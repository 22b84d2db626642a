"""The house: which package may import which, and what must run on a bare machine."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "search_spaces": [],
    "metrics": [],
    "nas": ["search_spaces", "metrics"],
    "launch": ["search_spaces", "metrics", "nas"],
}
"""Package -> those it may import beside itself."""

FLOORS = {
    "search_spaces": """
        registry
        depth_channels feedforward resnet nasnet nasbench201 *
        space
        choosers
        architecture task model graphs pooling
    """,
    "metrics": """
        registry
        bounds stability universality
        robustness
        susceptibility
        engine
        attacks
        cost
        metric answers
        checks left_as_found precision
        deadline showing
    """,
    "nas": """
        export benchmark
        analysis
        search
        samplers
        ledger
        trial
        data
        names
        disk
        device errors files seeds types
    """,
    "launch": """
        cli
        commands
        papers
        report
        runs
        cluster
        show
        config
        siblings
    """,
}
"""Every package's rooms, from the top: a room imports those on lines below its own.

``*`` is the floor of whatever is not named: a new space is a file beside the others.
"""

APART = {"launch/papers": {"psi", "cubuk", "sutton", "peck"}, "launch/commands": None}
"""Rooms whose parts never import each other: papers, and commands but for ``options``."""

LEAF_LIBRARIES = {"torch", "numpy", "safetensors"}
ALSO = {  # inside a function: see the tests below
    "search_spaces/resnet.py": {"torchvision"},
    "search_spaces/torchvision_nets.py": {"torchvision"},
    "metrics/stability/theory/caps.py": {"scipy"},
}
LONG = 300
CODE = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def places() -> dict[str, Path]:
    """Return module -> file of everything that is ours."""
    found = {}
    for path in CODE:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def own_imports() -> dict[str, set[str]]:
    """Return module -> modules of ours that it imports; a package's name is its __init__."""
    known = places()
    return {name: set(imports(path)) & set(known) - {name} for name, path in known.items()}


def room(module: str) -> tuple[str, str]:
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Return the imports that do not point down."""
    floors = {
        (package, name): height
        for package, text in FLOORS.items()
        for height, line in enumerate(text.strip().splitlines())
        for name in line.split()
    }

    def floor(place: tuple[str, str]) -> int:
        return floors[place] if place in floors else floors[place[0], "*"]

    wrong = []
    for module, imported in edges.items():
        here = room(module)
        for other in imported:
            there = room(other)
            if there[0] != here[0]:
                fine = there[0] in PACKAGES[here[0]]
            elif not here[1] or not there[1] or here == there:
                fine = not here[1] or here == there  # a package's __init__ stands above its rooms
            else:
                fine = floor(here) < floor(there)
            if not fine:
                wrong.append(f"{module} imports {other}")
    return wrong


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return modules that import each other in a ring."""
    sorter = graphlib.TopologicalSorter(edges)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_every_room_has_a_floor():
    named = {(package, name) for package, text in FLOORS.items() for name in text.split()}
    found = {room(module) for module in places() if room(module)[1]}
    assert {(package, name) for package, name in named if name != "*"} <= found
    assert {package for package, _ in found - named} <= {"search_spaces"}


def test_arrows_point_down():
    assert upward(own_imports()) == []


def test_nothing_imports_itself_in_a_ring():
    assert circles(own_imports()) == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("metrics.attacks.pgd", "metrics.engine.folding"),
        ("metrics.cost", "search_spaces.space"),
        ("nas.ledger.table", "nas.search.plan"),
        ("nas.trial.recipe", "launch.config.config"),
        ("launch.show.tables", "launch.runs.run"),
        ("launch.runs.retrain", "launch.papers.cubuk.table1"),
    ],
)
def test_an_import_upwards_is_seen(module, other):
    edges = own_imports()
    edges[module] = edges[module] | {other}
    assert upward(edges) == [f"{module} imports {other}"]


def test_a_ring_is_seen():
    edges = own_imports()
    edges["launch.papers.psi.figures"] = {"launch.papers.psi.trained"}
    assert {"launch.papers.psi.figures", "launch.papers.psi.trained"} <= set(circles(edges)[0])


def test_papers_and_commands_stand_alone():
    for module, imported in own_imports().items():
        for other in imported:
            here, there = module.split("."), other.split(".")
            if here[:2] == there[:2] == ["launch", "papers"] and here[2] in APART["launch/papers"]:
                assert there[2] in (here[2], "reproduction"), f"{module} imports {other}"
            if here[:2] == there[:2] == ["launch", "commands"] and len(there) > 2:
                assert there[2] == "options", f"{module} imports {other}"
            if there[:2] == ["launch", "papers"] and here[:2] != there[:2]:
                assert here[:2] == ["launch", "commands"], f"{module} imports {other}"


@pytest.mark.parametrize("package", ["search_spaces", "metrics"])
def test_leaves_need_torch_and_numpy_alone(package):
    for path in (path for path in CODE if path.is_relative_to(ROOT / package)):
        tops = {name.partition(".")[0] for name in imports(path)}
        allowed = LEAF_LIBRARIES | ALSO.get(path.relative_to(ROOT).as_posix(), set())
        outside = tops - set(PACKAGES) - allowed - set(sys.stdlib_module_names)
        assert not outside, f"{path} imports {outside}"


def rays(files: Iterable[Path]) -> list[str]:
    """Return the files outside launch/cluster that import ray."""
    return [
        path.relative_to(ROOT).as_posix()
        for path in files
        if not path.is_relative_to(ROOT / "launch" / "cluster")
        and "ray" in {name.partition(".")[0] for name in imports(path)}
    ]


def test_only_the_cluster_imports_ray(tmp_path):
    assert rays(CODE) == []
    planted = ROOT / "nas" / "planted.py"
    assert planted not in CODE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda self: "import ray.tune")
        assert rays([planted]) == ["nas/planted.py"]


def test_long_modules_say_why():
    for path in CODE:
        lines = path.read_text().splitlines()
        doc = ast.get_docstring(ast.parse("\n".join(lines))) or ""
        assert len(lines) <= LONG or "long because" in doc, f"{path}: {len(lines)} lines"


def test_every_module_says_what_is_here():
    for path in CODE:
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"torch", "ray", "optuna", "pandas", "numpy", "pydantic"}),
        (["trials", "--help"], {"torch", "ray", "optuna", "scipy"}),
        (["presets"], {"torch", "ray", "optuna", "pandas"}),
    ],
)
def test_what_a_command_loads(arguments, absent):
    code = f"""
import sys
sys.argv = ["psinas", *{arguments!r}]
from launch.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print("LOADED", *{absent!r} & set(sys.modules))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] == "LOADED", answer.stdout + answer.stderr


def test_search_spaces_are_there_without_torchvision():
    code = """
import sys, search_spaces
search_spaces.SEARCH_SPACES["torchvision"](model=("resnet18",))
print("resnet" in search_spaces.SEARCH_SPACES, "torchvision" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.split() == ["True", "False"], answer.stderr


def test_metrics_are_there_without_scipy():
    code = """
import sys
sys.modules["scipy"] = None  # import raises
import metrics
from metrics.stability.theory.caps import cap_bound, cap_fraction
try:
    cap_fraction(2, 0.5)
except ImportError as error:
    print(f"{cap_bound(2, 0.6):.2f}", error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = "0.32 scipy: expected it installed, for exact shares of caps, got none"
    assert answer.stdout.strip() == expected, answer.stderr


def test_a_trial_runs_where_neither_ray_nor_optuna_is_installed():
    code = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = sys.modules["pydantic"] = None  # import raises
import metrics, search_spaces, nas.trial.evaluation, nas.trial.trial
from nas.data.config import DataConfig, Limit
from nas.trial.recipe import Recipe
space = search_spaces.DepthChannels(depth=(1,), channels=(4,), stem="small")
trial = nas.trial.trial.Trial(
    space.architecture({"depth": 1, "channels": 4}),
    Recipe(epochs=1, steps=1),
    DataConfig(limit=Limit(train=64, validation=32)),
    (metrics.METRICS["clean"](),),
)
print(nas.trial.evaluation.evaluate(trial).status)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "complete", answer.stderr
