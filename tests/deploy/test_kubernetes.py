"""The Kubernetes manifests, without a cluster.

Each manifest is validated, and where kubectl or kustomize is installed, also their output.
"""

import os
import re
import shutil
import subprocess
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
# The newest version that kubernetes-validate knows, and one that is two years older.
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
    """By Kubernetes's schemas, without unknown fields."""
    for document in read(path):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("folder", ["base", "gpu-training"])
def test_the_output_of_kustomize_is_valid(folder):
    """With image names from a registry, in one namespace, each object once."""
    documents = render(folder)
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    assert len({(doc["kind"], doc["metadata"]["name"]) for doc in documents}) == len(documents)
    assert {doc["metadata"].get("namespace") for doc in documents if doc["kind"] != "Namespace"} == {"minimodel"}
    images = re.findall(r"\bimage: (\S+)", yaml.safe_dump_all(documents))
    assert images
    assert all(re.fullmatch(r"registry\.example\.com/minimodel-(serve|train):1", image) for image in images)


def test_the_overlay_serves_from_the_volume():
    """Only the step that copies the shipped version and the job can write there."""
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
    """By the strictest of Kubernetes's pod security standards, and without an API token."""
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


def test_training_has_shared_memory_for_several_gpus():
    """NCCL passes gradients through it."""
    pod = find("Job", "gpu-training")["spec"]["template"]["spec"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]  # noqa: S108 -- of the pod
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in pod["volumes"]


def test_the_service_is_not_called_app():
    """Kubernetes would set APP_PORT=tcp://… in every pod."""
    assert find("Service")["metadata"]["name"] != "app"


def test_a_pod_has_time_to_drain(monkeypatch):
    """The grace period is longer than the drain and the slowest request."""
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


def test_every_container_of_the_service_has_the_same_memory_limit():
    """And the same upload limit, so tests/reliability/test_memory.py covers all of them."""
    (own,) = read(ROOT / "deploy" / "kserve" / "own-container.yaml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["serve"]
    uploads = compose["environment"]["APP_MAX_UPLOADS_TOTAL_BYTES"]
    assert compose["deploy"]["resources"]["limits"]["memory"] == "1g"
    for pod in (find("Deployment")["spec"]["template"]["spec"], own["spec"]["predictor"]):
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["memory"] == "1Gi"
        assert {"name": "APP_MAX_UPLOADS_TOTAL_BYTES", "value": uploads} in container["env"]
        assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}


def test_probes_use_the_services_endpoints():
    """Readiness uses `/health`, the others liveness."""
    (container,) = find("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"


def test_probes_and_metrics_have_a_port_of_their_own():
    """Requests can't fill it, Prometheus needs no key for it, and no Service leads there."""
    pod = find("Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {"name": "APP_PROBE_PORT", "value": str(ports["probes"])} in container["env"]
    assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")} == {
        "probes"
    }
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["probes"])
    assert [port["targetPort"] for port in find("Service")["spec"]["ports"]] == ["http"]
    (rule,) = find("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == set(ports)


def test_selectors_match_only_the_service():
    """Not the pods of the training job."""
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


def test_the_autoscaler_uses_cpu_only():
    """While another metric is missing, it would never remove a pod (kubernetes#99514)."""
    scaler = find("HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == find("Deployment")["metadata"]["name"]
    assert "replicas" not in find("Deployment")["spec"]
    assert [metric["resource"]["name"] for metric in scaler["metrics"]] == ["cpu"]


@pytest.mark.parametrize("folder", ["base", "gpu-training"])
def test_the_queue_wait_component_adds_its_metric(tmp_path, folder):
    """To the base and to the overlay, in addition to CPU."""
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


def test_the_adapter_uses_the_services_metrics():
    """The series of the queue's stage."""
    rule = read_adapter_rule()
    series = set(re.findall(r"classifier_\w+(?=\{)", rule["seriesQuery"] + rule["metricsQuery"]))
    assert series == {f"{PREFIX}_stage_seconds_sum", f"{PREFIX}_stage_seconds_count"}
    assert set(re.findall(r'stage="(\w+)"', rule["seriesQuery"] + rule["metricsQuery"])) == {"queue"} <= set(STAGES)


def seed(shipped: Path, versions: Path, host: str) -> None:
    """Run the overlay's init container on two folders."""
    (document,) = read(KUBERNETES / "gpu-training" / "serve-from-claim.yaml")
    (step,) = document["spec"]["template"]["spec"]["initContainers"]
    environment = {"SHIPPED": str(shipped), "VERSIONS": str(versions), "HOSTNAME": host}
    assert {variable["name"] for variable in step["env"]} <= set(environment)
    subprocess.run(step["command"], env=os.environ | environment, check=True, timeout=30)


def test_seeding_copies_the_shipped_version_to_an_empty_volume(tmp_path):
    """Once. It changes no existing version and leaves no temporary files."""
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


def test_seeding_recovers_from_an_interrupted_copy(tmp_path):
    """A restarted pod has the same name. It removes its half copy instead of publishing it."""
    shipped, versions = tmp_path / "shipped", tmp_path / "versions"
    (shipped / "tiny" / "1").mkdir(parents=True)
    (shipped / "tiny" / "1" / "metadata.json").write_text("whole")
    (versions / "tiny" / ".seed-pod-a").mkdir(parents=True)
    (versions / "tiny" / ".seed-pod-a" / "half").write_text("ha")
    seed(shipped, versions, "pod-a")
    assert [path.name for path in (versions / "tiny").iterdir()] == ["1"]
    assert [path.name for path in (versions / "tiny" / "1").iterdir()] == ["metadata.json"]


def test_pods_that_seed_at_the_same_time_leave_one_whole_version(tmp_path):
    """The first rename wins; the others clean up."""
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
def test_the_kserve_examples_are_valid(path):
    """Their pod fields, by Kubernetes's schema; they refer to the claim and the model that exist."""
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
    (port,) = (variable["value"] for variable in container["env"] if variable["name"] == "APP_PROBE_PORT")
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {int(port)}
