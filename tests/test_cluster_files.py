"""The cluster's files hold what they claim, as far as that can be known without a cloud."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}


def record(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """A mapping that has no other fields."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def texts() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": TEXT}


RESOURCES = record(("requests", "limits"), requests=texts(), limits=texts())
CONTAINER = record(
    ("name", "image", "resources", "volumeMounts"),
    name=TEXT,
    image=TEXT,
    ports={"type": "array"},
    envFrom={"type": "array", "items": record(("secretRef",), secretRef=record(("name",), name=TEXT))},
    resources=RESOURCES,
    volumeMounts={"type": "array", "contains": {"properties": {"mountPath": {"const": "/dev/shm"}}}},
)
POD = record(
    ("spec",),
    spec=record(
        ("restartPolicy", "containers", "volumes", "nodeSelector"),
        restartPolicy={"const": "Never"},  # autoscaler v2 replaces pods itself
        nodeSelector=texts(),
        tolerations={"type": "array"},
        terminationGracePeriodSeconds=COUNT,
        containers={"type": "array", "items": CONTAINER, "minItems": 1},
        volumes={"type": "array", "contains": {"properties": {"emptyDir": {"required": ["medium"]}}}},
    ),
)
WORKERS = record(
    ("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    groupName={"type": "string", "pattern": "^[a-z0-9-]+$"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    labels=texts(),
    rayStartParams=texts(),
    template=POD,
)
KUBERAY = {
    "RayCluster": record(
        ("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"),
        rayVersion=TEXT,
        authOptions=record(("mode",), mode={"enum": ["token", "disabled"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=record(("version",), version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
        headGroupSpec=record(("rayStartParams", "template"), rayStartParams=texts(), template=POD),
        workerGroupSpecs={"type": "array", "items": WORKERS},
    ),
    # with clusterSelector KubeRay refuses backoffLimit, suspend and SidecarMode and never shuts the cluster down
    "RayJob": record(
        ("clusterSelector", "entrypoint"),
        clusterSelector=texts(),
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode"]},
        activeDeadlineSeconds=COUNT,
    ),
}
"""What of KubeRay's custom resources is used here. Source: KubeRay's CRD API reference, ray.io/v1."""


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberays_objects_fit_their_schema(name: str):
    found = load(name)
    assert found["apiVersion"] == "ray.io/v1" and re.fullmatch("[a-z0-9-]+", found["metadata"]["name"])
    jsonschema.validate(found["spec"], KUBERAY[found["kind"]])


def test_the_launchers_file_fits_rays_own_schema():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    found = load("aws.yaml")
    jsonschema.validate(found, schema)
    types = found["available_node_types"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types["head"]["node_config"] and types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["CPU"] >= 8 * types["gpu"]["resources"]["GPU"]


def test_the_head_runs_no_work_and_only_workers_are_spot():
    spec = load("raycluster.yaml")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    kind = "eks.amazonaws.com/capacityType"
    assert spec["headGroupSpec"]["template"]["spec"]["nodeSelector"][kind] == "ON_DEMAND"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        assert group["template"]["spec"]["nodeSelector"][kind] == "SPOT"
        assert group["labels"]["ray.io/market-type"] == "spot"
    names = {group["labels"]["affect/node"] for group in spec["workerGroupSpecs"]}
    assert (
        names
        == {"cpu", "gpu"}
        == {t["labels"]["affect/node"] for t in load("aws.yaml")["available_node_types"].values() if "labels" in t}
    )
    assert load("rayjob.yaml")["spec"]["clusterSelector"] == {
        "ray.io/cluster": load("raycluster.yaml")["metadata"]["name"]
    }


def test_the_dockerfile_passes_its_linter_and_runs_as_nobody_special():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(CLUSTER / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000"
    for source in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *names, _ = [word for word in source.split() if not word.startswith("--")]
        assert all((ROOT / name).exists() for name in names), source
    for library in ("libegl1", "libgles2", "libgl1", "libglib2.0-0", "libxcb1"):
        assert library in text


def test_the_images_versions_lie_within_the_projects_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {r.name.lower(): r for r in map(Requirement, project["dependencies"])}
    lines = [line for line in (CLUSTER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {(r := Requirement(line)).name.lower(): r for line in lines}
    assert set(pinned) == set(wanted)
    for name, requirement in pinned.items():
        [exact] = requirement.specifier
        assert exact.operator == "==" and wanted[name].specifier.contains(exact.version), name
    version = load("raycluster.yaml")["spec"]["rayVersion"]
    assert next(iter(pinned["ray"].specifier)).version == version
    kernels = dict(re.findall(r"(mamba-ssm)==([0-9.]+)", (CLUSTER / "Dockerfile").read_text()))
    for requirement in map(Requirement, project["optional-dependencies"]["gpu"]):
        assert requirement.specifier.contains(kernels[requirement.name])


def commands(path: Path) -> list[str]:
    """Indented lines of a page, which are commands; a line that ends with a backslash goes on in the next one."""
    text = re.sub(r" *\\\n +", " ", path.read_text())
    lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return [line for line in lines if re.match(r"[\w./-]+(=\S+)? ", line)]


KNOWN = {"docker", "helm", "kubectl", "aws", "export", "ray", "python", "git", "cd", "make", "pip", "sed", "affect"}


@pytest.mark.parametrize("command", commands(CLUSTER / "README.md"))
def test_every_command_of_the_clusters_page_can_be_parsed_and_names_files_that_are_there(command: str):
    if command.startswith("cost = "):
        return
    words = shlex.split(command, comments=True)
    first = (words[0].partition("=")[2] and words[1]) or words[0]
    assert first in KNOWN, command
    for word in words:
        if word.startswith(("cluster/", "jobs/")) and "*" not in word:
            assert (ROOT / word).exists(), word


def test_each_way_takes_ten_commands():
    text = (CLUSTER / "README.md").read_text()
    for way in re.split(r"^## ", text, flags=re.MULTILINE)[1:3]:
        assert len(re.findall(r"^    \S", way, re.MULTILINE)) == 10, way[:30]


def test_the_jobs_entrypoint_has_flags_that_are_known():
    import jobs.extract
    from affect.console.arguments import parse

    program, *flags = shlex.split(load("rayjob.yaml")["spec"]["entrypoint"])
    assert program == "affect-extract"
    parse(jobs.extract.Extract, flags, {})
