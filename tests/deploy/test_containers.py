"""The Dockerfile and the compose files, without an engine: linters, schemas, and what those don't check."""

import ast
import http.client
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from benchmarks.port import find_free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE_FILES = sorted(ROOT.glob("docker-compose*.yml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def read_stage(name: str) -> list[str]:
    """Return the instructions of a stage of the Dockerfile, with continued lines joined."""
    stage = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    assert stage
    lines = "\n".join(line for line in stage[1].splitlines() if not line.startswith("#"))
    return [line for line in lines.replace("\\\n", " ").splitlines() if line]


def read_exec_form(stage: str, instruction: str) -> list[str]:
    (line,) = (line for line in read_stage(stage) if line.startswith(instruction))
    return json.loads(line[line.index("[") :])


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def test_hadolint_finds_nothing():
    """With all of its rules."""
    done = run(BIN / "hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint ignore" not in DOCKERFILE


@pytest.mark.parametrize(("stage", "signal"), [("serve", "SIGTERM"), ("bulk", "SIGINT"), ("train", "SIGINT")])
def test_the_images_run_as_an_unprivileged_user(stage, signal):
    """By number, so that an orchestrator can check that it is not root. Python handles the stop signal."""
    instructions = read_stage(stage)
    assert "USER 10001:10001" in instructions
    assert f"STOPSIGNAL {signal}" in instructions
    last_copy = max(i for i, line in enumerate(instructions) if line.startswith("COPY"))
    assert instructions.index("USER 10001:10001") > last_copy  # so the user can't change the files
    assert read_exec_form(stage, "CMD")


def test_each_image_runs_its_command():
    """`docker build .` builds the last stage, which serves. Training requires a GPU."""
    assert re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "serve"
    assert read_exec_form("serve", "CMD") == ["python", "-m", "app"]
    assert read_exec_form("bulk", "ENTRYPOINT") == ["python", "-m", "app.bulk"]
    assert read_exec_form("train", "ENTRYPOINT") == ["python", "-m", "training"]
    assert read_exec_form("train", "CMD") == ["--require-gpu"]


@pytest.mark.parametrize(("folder", "status"), [("models", "ok"), ("tests", "unavailable")])
@pytest.mark.parametrize("name", ["APP_PORT", "APP_PROBE_PORT"])
def test_the_health_check_succeeds_only_for_a_ready_service(folder, status, name):
    """It fails without a model or a process, uses the probe port if there is one, and no proxy from the environment."""
    port = str(find_free_port())
    ports = {"APP_PORT": str(find_free_port()), name: port}
    check = [sys.executable, *read_exec_form("serve", "HEALTHCHECK")[1:]]
    assert run(*check, **ports).returncode != 0
    service = subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=os.environ | ports | {"APP_MODEL_DIR": folder, "APP_DRAIN_SECONDS": "0"},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_assessed(port, status)
        checked = run(*check, **ports, http_proxy="http://127.0.0.1:9")
        assert (checked.returncode == 0) == (status == "ok")
    finally:
        service.terminate()
        assert service.wait(30) == 0


def wait_until_assessed(port: str, status: str) -> None:
    for _ in range(600):
        time.sleep(0.1)
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
        try:
            connection.request("GET", "/health")
            if json.loads(connection.getresponse().read())["status"] == status:
                return
        except ConnectionRefusedError:
            pass
        finally:
            connection.close()
    pytest.fail(f"never {status}")


def find_packages(modules: Iterable[Path]) -> set[str]:
    """Return the third-party packages that these modules import."""
    names: set[str] = set()
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"app", "training"}


@pytest.mark.parametrize(
    ("folders", "extras"), [(["app"], []), (["app"], ["bulk"]), (["app", "training"], ["train", "quantize"])]
)
def test_an_image_installs_what_its_code_imports(folders, extras):
    """A package that only another one depends on would be missing as soon as the other drops it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    declared = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in requirements}
    owners = importlib.metadata.packages_distributions()
    # TensorFlow contains Keras. In the service, TensorFlow is the optional runtime.
    allowed = {"keras": "tensorflow"} | ({} if "train" in extras else {"tensorflow": "openvino"})
    modules = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    missing = {
        name
        for name in find_packages(path for path in modules if "bulk" in extras or path.parent.name != "bulk")
        if not declared & {owner.lower().replace("_", "-") for owner in [*owners[name], allowed.get(name, "")]}
    }
    assert missing == set()


def test_every_requirement_is_pinned():
    """So that builds of the images are reproducible."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["quantize"], *extras["bulk"]]
    cuda = [line for line in importlib.metadata.requires("tensorflow") or [] if "and-cuda" in line]
    cluster = [line for line in importlib.metadata.requires("ray") or [] if "'default'" in line or '"default"' in line]
    assert cuda
    assert cluster
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in [*wanted, *cuda, *cluster]}
    assert names - pinned == set()


def test_the_build_context_has_only_what_is_copied():
    """No history, data or secrets."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    assert copied == allowed


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_the_compose_files_are_valid(path):
    """By the schema of the Compose specification."""
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_hardened(services):
    """A read-only root file system, no capabilities, no way to gain any, ports on loopback."""
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", []):
            assert re.match(r"127\.0\.0\.1:|\$\{\w+:-127\.0\.0\.1\}:", port), name


def test_only_the_service_starts_by_default(services):
    """Training and monitoring have profiles."""
    assert [name for name, service in services.items() if not service.get("profiles")] == ["serve"]


def test_only_training_may_write_models(services):
    """And the service reads what it writes."""
    mounts = {name: service.get("volumes", []) for name, service in services.items()}
    assert [name for name, of in mounts.items() if "./models:/srv/models" in of] == ["train"]
    assert "./models:/srv/models:ro" in mounts["serve"]
    assert "data:/data" in mounts["train"]
    assert "KERAS_HOME=/data" in DOCKERFILE


def test_training_has_shared_memory_for_several_gpus(services):
    """NCCL passes gradients through it; the default is 64 MiB."""
    assert services["train"]["shm_size"] == "1g"
    assert services["train"]["ulimits"] == {"memlock": -1}


def test_the_service_has_time_to_drain(services, monkeypatch):
    """The grace period is longer than the drain and the slowest request."""
    for name in [name for name in os.environ if name.startswith("APP_")]:
        monkeypatch.delenv(name)
    settings = Settings()
    slowest = settings.header_timeout_seconds + settings.upload_timeout_seconds + settings.request_timeout_seconds + 1
    slowest += settings.drain_seconds
    assert int(services["serve"]["stop_grace_period"].removesuffix("s")) > slowest


def test_compose_and_image_have_the_same_health_check(services):
    """Repeated because an override serves from the other image."""
    assert services["serve"]["healthcheck"]["test"][1:] == read_exec_form("serve", "HEALTHCHECK")


def test_the_gpu_override_changes_only_the_service():
    """It runs the same service from the image with TensorFlow."""
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))["services"]
    assert set(override) == {"serve"}
    assert override["serve"]["build"]["target"] == "train"
    assert override["serve"]["entrypoint"] == read_exec_form("serve", "CMD")
    assert f"STOPSIGNAL {override['serve']['stop_signal']}" in read_stage("serve")
    assert override["serve"]["environment"]["APP_RUNTIME"] == "tensorflow"
    for line in ("APP_HOST", "APP_PORT"):
        assert f"{line}={override['serve']['environment'][line]}" in DOCKERFILE


def test_every_setting_exists(services):
    """A misspelled setting would have no effect."""
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))["services"]
    named = {name for one in (services, override) for name in one["serve"]["environment"]}
    named |= set(re.findall(r"\bAPP_\w+", DOCKERFILE))
    assert {name.removeprefix("APP_").lower() for name in named} <= set(Settings.model_fields)


def test_every_mounted_path_exists(services):
    """An engine would create an empty folder instead."""
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    paths = {ROOT / path for path in mounted if path.startswith("./")}
    assert len(paths) > 4
    assert {path for path in paths if not path.exists()} == set()


def test_grafana_finds_the_dashboard_and_its_data(services):
    """The dashboard is in the provisioned folder and uses the provisioned data source."""
    grafana = ROOT / "deploy" / "monitoring" / "grafana"
    (source,) = yaml.safe_load((grafana / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((grafana / "provisioning" / "dashboards" / "minimodel.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(folder)
    dashboard = ROOT / "deploy" / "monitoring" / "dashboard.json"
    assert f"./{dashboard.relative_to(ROOT)}:{home}:ro" in services["grafana"]["volumes"]
    text = dashboard.read_text(encoding="utf-8")
    uids = set(re.findall(r'"datasource":\s*\{[^}]*?"uid":\s*"([^"]+)"', text))
    assert uids <= {source["uid"], "-- Grafana --", "${source}"}  # the last one is a variable
    assert source["isDefault"]


def test_prometheus_scrapes_the_service():
    """By its name and probe port in compose, which is not published, with the alert rules."""
    serve = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["serve"]
    assert serve["environment"]["APP_PROBE_PORT"] == "8001"
    assert not [port for port in serve["ports"] if "8001" in port]
    config = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serve:8001"]}]
    assert job["metrics_path"] == "/metrics"
    assert config["rule_files"] == ["alerts.yml"]
