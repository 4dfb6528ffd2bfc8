"""The KubeRay job, without a cluster. Its pods are validated by Kubernetes's schema."""

import re
import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.bulk import command
from tests.deploy.test_containers import read_stage
from tests.deploy.test_kubernetes import ROOT, VERSIONS


@pytest.fixture
def spec() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "deploy" / "ray" / "job.yaml").read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    return document["spec"]


@pytest.fixture
def groups(spec) -> list[dict[str, Any]]:
    cluster = spec["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_are_valid(groups, version):
    """By Kubernetes's schema, without unknown fields."""
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {"name": "x", **pod["metadata"]}
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_fields_of_the_job_are_kuberays(spec, groups):
    """Those that this manifest uses; Kubernetes would drop others without a word."""
    assert set(spec) == {
        "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }  # fmt: skip
    assert set(spec["rayClusterSpec"]) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    head, worker = groups
    assert set(head) == {"rayStartParams", "template"}
    assert set(worker) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())


def test_the_entrypoint_is_the_command(spec):
    """With arguments that it takes."""
    program = shlex.split(spec["entrypoint"])
    assert program[:3] == ["python", "-m", "app.bulk"]
    options = command._parse(program[3:])
    assert options.input != options.output


def test_the_pods_are_restricted(groups, spec):
    """By the strictest of Kubernetes's pod security standards. KubeRay adds no pod that is not."""
    assert spec["submissionMode"] == "HTTPMode"
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert container["resources"]["limits"]["memory"]
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]  # noqa: S108 -- of the container


def test_all_pods_have_the_same_image_with_the_same_ray(spec, groups):
    """The one that the Dockerfile builds, with the version that is pinned: Ray refuses others."""
    (image,) = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert re.fullmatch(r"registry\.example\.com/minimodel-bulk:1", image)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={spec['rayClusterSpec']['rayVersion']}" in pins


def test_no_worker_runs_beside_the_driver(groups):
    """And the workers' cores are as many as their limit, which KubeRay passes on to Ray."""
    head, worker = groups
    assert head["rayStartParams"]["num-cpus"] == "0"
    resources = worker["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]


def test_rays_workers_find_the_code_and_the_model():
    """From any folder. The image has the dashboard and the job server too, which KubeRay needs."""
    text = "\n".join(read_stage("bulk"))
    assert re.search(r"PYTHONPATH=/srv\b", text)
    assert re.search(r"APP_MODEL_DIR=/srv/models\b", text)
    assert '"ray[default]"' in "\n".join(read_stage("bulk-dependencies"))
