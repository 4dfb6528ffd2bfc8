"""What the Kubernetes manifests promise, without a cluster.

Each manifest is validated as it stands; where kubectl or kustomize is installed, so is what they render from it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings
from app.telemetry.metrics import PREFIX
from app.telemetry.timings import STAGES

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
# Released two years before the newest that kubernetes-validate knows, and the newest: what clusters run lies between.
VERSIONS = ("1.31", kubernetes_validate.latest_version())
NOT_FOR_KUBECTL = {"kustomization.yaml", "serve-from-claim.yaml", "prometheus-adapter-values.yaml"}
MANIFESTS = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name not in NOT_FOR_KUBECTL)
KSERVE = sorted((ROOT / "deploy" / "kserve").glob("*.yaml"))


def read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def find(kind: str, folder: str = "base") -> dict[str, Any]:
    (found,) = (doc for path in MANIFESTS if path.parent.name == folder for doc in read(path) if doc["kind"] == kind)
    return found


def render(folder: str | Path) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if not shutil.which(command[0]):
        pytest.skip("neither kubectl nor kustomize is installed")
    done = subprocess.run([*command, KUBERNETES / folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_manifest_is_valid(path, version):
    """By Kubernetes's own schemas, without a field that they do not know."""
    for document in read(path):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("folder", ["base", "gpu-training"])
def test_what_kustomize_renders_is_valid(folder):
    """With images that can be pulled, everything in one namespace, each object once."""
    documents = render(folder)
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    assert len({(doc["kind"], doc["metadata"]["name"]) for doc in documents}) == len(documents)
    assert {doc["metadata"].get("namespace") for doc in documents if doc["kind"] != "Namespace"} == {"minimodel"}
    images = re.findall(r"\bimage: (\S+)", yaml.safe_dump_all(documents))
    assert images
    assert all(re.fullmatch(r"registry\.example\.com/minimodel-(serve|train):1", image) for image in images)


def test_the_overlay_serves_from_the_claim():
    """The version that the image ships is put into it; only that step and the job may write there."""
    documents = {doc["kind"]: doc for doc in render("gpu-training")}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    mounts = {
        container["name"]: {mount["name"]: mount for mount in container["volumeMounts"]}
        for container in [*pod["initContainers"], *pod["containers"]]
    }
    assert mounts["serve"]["versions"] == {"name": "versions", "mountPath": "/srv/models", "readOnly": True}
    assert mounts["serve"]["tmp"]["mountPath"] == "/tmp"  # noqa: S108 -- of the container
    assert not mounts["seed"]["versions"].get("readOnly")
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if volume["name"] == "versions"}
    job = documents["Job"]["spec"]["template"]["spec"]
    assert claims <= {volume["persistentVolumeClaim"]["claimName"] for volume in job["volumes"][:2]}


@pytest.fixture(params=["base", "gpu-training"])
def pod(request) -> dict[str, Any]:
    return find("Deployment" if request.param == "base" else "Job", request.param)["spec"]["template"]["spec"]


def test_pods_are_restricted(pod):
    """As the strictest of Kubernetes's pod security standards has it, and without an API token."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (seed,) = read(KUBERNETES / "gpu-training" / "serve-from-claim.yaml")
    for container in [*pod["containers"], *seed["spec"]["template"]["spec"]["initContainers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


def test_gpus_have_room_to_talk():
    """As compose gives them: several pass gradients through shared memory."""
    pod = find("Job", "gpu-training")["spec"]["template"]["spec"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]  # noqa: S108 -- of the pod
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in pod["volumes"]


def test_the_service_is_not_called_app():
    """Kubernetes would put APP_PORT=tcp://… into the environment of every pod, where it is a setting."""
    assert find("Service")["metadata"]["name"] != "app"


def test_a_pod_has_time_to_drain(monkeypatch):
    """It is killed only after the drain and the slowest request together."""
    pod = find("Deployment")["spec"]["template"]["spec"]
    for name in [name for name in os.environ if name.startswith("APP_")]:
        monkeypatch.delenv(name)
    for variable in pod["containers"][0]["env"]:
        if "value" in variable:
            monkeypatch.setenv(variable["name"], variable["value"])
    settings = Settings()
    slowest = settings.header_timeout_seconds + settings.upload_timeout_seconds + settings.request_timeout_seconds + 1
    slowest += settings.drain_seconds
    assert pod["terminationGracePeriodSeconds"] > slowest
    probe = pod["containers"][0]["readinessProbe"]
    assert settings.drain_seconds > 2 * probe["periodSeconds"] * probe["failureThreshold"]


def test_every_container_of_the_service_gets_the_same_memory_and_fills_it_alike():
    """What tests/reliability/test_memory.py holds of compose's 1 GiB holds here too."""
    (own,) = read(ROOT / "deploy" / "kserve" / "own-container.yaml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["serve"]
    uploads = compose["environment"]["APP_MAX_UPLOADS_TOTAL_BYTES"]
    assert compose["deploy"]["resources"]["limits"]["memory"] == "1g"
    for pod in (find("Deployment")["spec"]["template"]["spec"], own["spec"]["predictor"]):
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["memory"] == "1Gi"
        assert {"name": "APP_MAX_UPLOADS_TOTAL_BYTES", "value": uploads} in container["env"]
        assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}


def test_probes_ask_what_the_service_answers():
    """Readiness asks whether requests should come, the others only whether it lives."""
    (container,) = find("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    ports = {port["name"] for port in container["ports"]}
    assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")} <= ports


def test_selectors_find_the_service_and_nothing_else():
    """The training job's pods carry labels that no selector of the service matches."""
    labels = find("Deployment")["spec"]["template"]["metadata"]["labels"]
    training = find("Job", "gpu-training")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        find("Deployment")["spec"]["selector"]["matchLabels"],
        find("Service")["spec"]["selector"],
        find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in find("Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= training.items()
    assert find("NetworkPolicy", "gpu-training")["spec"]["podSelector"]["matchLabels"].items() <= training.items()


def test_the_autoscaler_goes_by_what_every_cluster_knows():
    """A metric that is missing keeps it from ever taking a pod away (kubernetes#99514): the base names none but CPU."""
    scaler = find("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == find("Deployment")["metadata"]["name"]
    assert "replicas" not in find("Deployment")["spec"]
    assert [metric["resource"]["name"] for metric in scaler["metrics"]] == ["cpu"]


@pytest.mark.parametrize("folder", ["base", "gpu-training"])
def test_the_queue_wait_component_adds_its_metric(tmp_path, folder):
    """On the base and on the overlay: queue wait first, CPU beside it, and all of it valid."""
    kustomization = {
        "resources": [os.path.relpath(KUBERNETES / folder, tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "queue-wait", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (scaler,) = (doc for doc in render(tmp_path) if doc["kind"] == "HorizontalPodAutoscaler")
    kubernetes_validate.validate(scaler, VERSIONS[-1], strict=True)
    wait, cpu = scaler["spec"]["metrics"]
    assert wait["pods"]["metric"]["name"] == read_adapter_rule()["name"]["as"]
    assert cpu == find("HorizontalPodAutoscaler")["spec"]["metrics"][0]


def read_adapter_rule() -> dict[str, Any]:
    (values,) = read(KUBERNETES / "queue-wait" / "prometheus-adapter-values.yaml")
    (rule,) = values["rules"]["custom"]
    return rule


def test_the_adapter_reads_what_the_service_measures():
    """Its series are the service's, of the stage that is the queue."""
    rule = read_adapter_rule()
    series = set(re.findall(r"classifier_\w+(?=\{)", rule["seriesQuery"] + rule["metricsQuery"]))
    assert series == {f"{PREFIX}_stage_seconds_sum", f"{PREFIX}_stage_seconds_count"}
    assert set(re.findall(r'stage="(\w+)"', rule["seriesQuery"] + rule["metricsQuery"])) == {"queue"} <= set(STAGES)


def seed(shipped: Path, versions: Path, host: str) -> None:
    """Run the overlay's seeding step on two folders."""
    (document,) = read(KUBERNETES / "gpu-training" / "serve-from-claim.yaml")
    (step,) = document["spec"]["template"]["spec"]["initContainers"]
    environment = {"SHIPPED": str(shipped), "VERSIONS": str(versions), "HOSTNAME": host}
    assert {variable["name"] for variable in step["env"]} <= set(environment)
    subprocess.run(step["command"], env=os.environ | environment, check=True, timeout=30)


def test_seeding_puts_the_shipped_version_into_an_empty_claim(tmp_path):
    """Once: what is there stays as it is, and nothing is left lying about."""
    shipped, versions = tmp_path / "shipped", tmp_path / "versions"
    (shipped / "tiny" / "1" / "card").mkdir(parents=True)
    (shipped / "tiny" / "1" / "card" / "README.md").write_text("shipped")
    versions.mkdir()
    seed(shipped, versions, "pod-a")
    assert (versions / "tiny" / "1" / "card" / "README.md").read_text() == "shipped"
    (versions / "tiny" / "1" / "card" / "README.md").write_text("trained")
    seed(shipped, versions, "pod-b")
    assert (versions / "tiny" / "1" / "card" / "README.md").read_text() == "trained"
    assert sorted(path.name for path in (versions / "tiny").iterdir()) == ["1"]


def test_seeding_goes_on_after_a_copy_that_was_cut(tmp_path):
    """A pod that comes back has its name again, and finds what it left: neither is it published, nor copied into."""
    shipped, versions = tmp_path / "shipped", tmp_path / "versions"
    (shipped / "tiny" / "1").mkdir(parents=True)
    (shipped / "tiny" / "1" / "metadata.json").write_text("whole")
    (versions / "tiny" / ".seed-pod-a").mkdir(parents=True)
    (versions / "tiny" / ".seed-pod-a" / "half").write_text("ha")
    seed(shipped, versions, "pod-a")
    assert [path.name for path in (versions / "tiny").iterdir()] == ["1"]
    assert [path.name for path in (versions / "tiny" / "1").iterdir()] == ["metadata.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="the step is a shell script")
def test_pods_that_seed_at_once_leave_one_whole_version(tmp_path):
    """Whichever renames first wins; the others clean up."""
    shipped, versions = tmp_path / "shipped", tmp_path / "versions"
    for index in range(200):
        path = shipped / "tiny" / "1" / f"{index % 10}" / f"{index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    versions.mkdir()
    (document,) = read(KUBERNETES / "gpu-training" / "serve-from-claim.yaml")
    command = document["spec"]["template"]["spec"]["initContainers"][0]["command"]
    pods = [
        subprocess.Popen(
            command,
            env=os.environ | {"SHIPPED": str(shipped), "VERSIONS": str(versions), "HOSTNAME": f"pod-{index}"},
        )
        for index in range(4)
    ]
    assert [pod.wait(30) for pod in pods] == [0] * 4
    assert [path.name for path in (versions / "tiny").iterdir()] == ["1"]
    assert sum(path.is_file() for path in (versions / "tiny" / "1").rglob("*")) == 200


@pytest.mark.parametrize("path", KSERVE, ids=lambda path: path.name)
def test_the_kserve_examples_fit_what_there_is(path):
    """KServe's own schema is not at hand; what they have in common with a pod is held against Kubernetes's."""
    (document,) = read(path)
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = document["spec"]["predictor"]
    if "terminationGracePeriodSeconds" in predictor:  # which Knative does not allow
        assert document["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    predictor.pop("minReplicas")
    if model := predictor.pop("model", None):
        claims = {doc["metadata"]["name"] for doc in read(KUBERNETES / "gpu-training" / "claims.yaml")}
        claim, name = re.fullmatch(r"pvc://([\w-]+)/([\w-]+)", model["storageUri"]).groups()
        assert claim in claims
        assert (ROOT / "models" / name).is_dir()
        assert model["modelFormat"] == {"name": "tensorflow"}
        return
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": predictor}, VERSIONS[-1], strict=True
    )
    (container,) = predictor["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
