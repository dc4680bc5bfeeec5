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
CRDS = ROOT.parent / "shared" / "kuberay"
"""KubeRay's own definitions of its objects, ``helm-chart/kuberay-operator/crds`` of commit feeaf72 (Apache-2.0)."""


def strict(schema: Any) -> Any:
    """A schema of Kubernetes as JSON Schema that refuses unknown fields, as ``kubectl --validate=strict``."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberays_objects_fit_kuberays_own_definitions(name: str):
    found = load(name)
    path = CRDS / f"ray.io_{found['kind'].lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"KubeRay's definitions (commit feeaf72) are not at {CRDS}")
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    [schema] = [v["schema"]["openAPIV3Schema"] for v in versions if f"ray.io/{v['name']}" == found["apiVersion"]]
    definition = strict(schema)
    definition["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(found, definition)
    with pytest.raises(jsonschema.ValidationError, match="unknown"):
        jsonschema.validate({**found, "spec": {**found["spec"], "unknown": 1}}, definition)
    assert re.fullmatch("[a-z0-9-]+", found["metadata"]["name"])


def test_pods_are_as_ray_and_spot_nodes_need_them():
    spec = load("raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"  # autoscaler v2 replaces pods itself
        assert any("medium" in volume.get("emptyDir", {}) for volume in pod["volumes"])
        for container in pod["containers"]:
            assert container["resources"]["requests"] and container["resources"]["limits"]
            assert any(mount["mountPath"] == "/dev/shm" for mount in container["volumeMounts"])
    # with clusterSelector KubeRay refuses these and never shuts the cluster down
    assert not {"backoffLimit", "suspend"} & load("rayjob.yaml")["spec"].keys()
    assert load("rayjob.yaml")["spec"]["submissionMode"] != "SidecarMode"


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
