"""The rows of imports, and words that the service's code must not contain."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
MODULES = sorted(APP.rglob("*.py"))
INNER = {"contract.py", "errors.py", "litter.py", "images", "inference", "runtime", "telemetry", "versions"}


def find_imports(module: Path) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def who_imports(package: str, modules: list[Path] = MODULES) -> set[str]:
    return {
        module.relative_to(ROOT).as_posix()
        for module in modules
        if any(name == package or name.startswith(f"{package}.") for name in find_imports(module))
    }


# From top to bottom: a package imports only its own modules and packages in lower rows.
ROWS = (
    ("__main__",),
    ("main", "server"),
    ("pages", "v1", "v2", "classify", "bulk"),
    ("api",),
    ("http",),
    ("inference",),
    ("versions",),
    ("runtime", "images", "telemetry"),
    ("settings",),
    ("contract", "errors"),
    ("litter", "stdio"),
)


def find_dependencies() -> set[tuple[str, str]]:
    """Return which part of `app` imports which; a part is a package or a top-level module."""
    dependencies = set()
    for module in MODULES:
        source = module.relative_to(APP).parts[0].removesuffix(".py")
        targets = {name.split(".")[1] for name in find_imports(module) if name.startswith("app.")}
        dependencies |= {(source, target) for target in targets if target != source}
    return dependencies


def test_imports_go_down():
    """So packages have no cycles, and the code can be read from the bottom up."""
    row = {part: index for index, parts in enumerate(ROWS) for part in parts}
    up = {(source, target) for source, target in find_dependencies() if row[source] >= row[target]}
    assert up == set()


@pytest.mark.parametrize("package", ["app", "training"])
def test_modules_have_no_import_cycles(package):
    """Not even inside one package, or for type annotations only."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }
    graph = {
        module: {name if name in modules else name.rpartition(".")[0] for name in find_imports(path)} & modules.keys()
        for module, path in modules.items()
    }
    assert sum(map(len, graph.values())) > len(modules)
    TopologicalSorter(graph).prepare()  # raises CycleError, which lists the modules of a cycle


def test_the_server_knows_no_application():
    """It handles sockets, and writes the problems of requests that never reach the application."""
    server = [path for path in MODULES if path.relative_to(APP).parts[0] == "server"]
    names = {name for module in server for name in find_imports(module) if name.startswith("app.")}
    allowed = ("app.server.", "app.http.problems.", "app.settings.")
    assert {name for name in names if not name.startswith(allowed)} == set()


def test_private_names_stay_in_their_package():
    """A package may change a name with a leading underscore without regard to the others."""
    crossing = set()
    for module in MODULES:
        own = ".".join(module.relative_to(ROOT).parts[:2]).removesuffix(".py")
        for name in find_imports(module):
            is_private = any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
            if name.startswith("app.") and is_private and not name.startswith(f"{own}."):
                crossing.add(f"{module.relative_to(ROOT)}: {name}")
    assert crossing == set()


def test_the_service_never_imports_training():
    """The service is installed without training's dependencies."""
    assert who_imports("training") == set()


def test_training_imports_no_http():
    """It shares the code that decodes images and runs versions."""
    names = {name for module in (ROOT / "training").rglob("*.py") for name in find_imports(module)}
    packages = {name.split(".")[1] for name in names if name.startswith("app.")}
    assert packages <= {"contract", "errors", "images", "litter", "runtime"}


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("tensorflow", {"app/runtime/load.py"}),
        ("keras", set()),
        ("openvino", {"app/runtime/openvino.py", "app/runtime/load.py"}),
        ("PIL", {"app/images/decode.py"}),
        ("pillow_heif", {"app/images/decode.py"}),
        ("uvicorn", {"app/server/lifecycle.py", "app/server/connection.py"}),
        ("prometheus_client", {"app/telemetry/metrics.py"}),
        ("pythonjsonlogger", {"app/telemetry/logs.py"}),
        ("jinja2", {"app/pages/render.py"}),
        ("markdown_it", {"app/pages/card.py"}),
        ("pydantic_settings", {"app/settings.py"}),
        ("ray", {"app/bulk/job.py"}),
    ],
)
def test_each_library_is_imported_by_one_part(package, modules):
    """So it can be replaced in one place."""
    assert who_imports(package) == modules


def test_the_inner_packages_import_no_http():
    """The command line uses them without HTTP."""
    inner = [path for path in MODULES if path.relative_to(APP).parts[0] in INNER]
    for package in ("fastapi", "starlette", "app.api", "app.http", "app.main"):
        assert who_imports(package, inner) == set()


def test_importing_the_service_imports_neither_tensorflow_nor_ray():
    """They take seconds and hundreds of megabytes, and the service needs neither."""
    code = "import sys, app.main; print({name.split('.')[0] for name in sys.modules})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {"tensorflow", "keras", "ray", "pyarrow", "pandas"} & ast.literal_eval(output) == set()


def test_the_service_names_no_model():
    """Class names, input size and model name come from the metadata, so any exported model serves."""
    web = [path for path in (APP / "pages" / "web").rglob("*") if path.is_file()]
    source = "\n".join(path.read_text(encoding="utf-8") for path in [*MODULES, *web])
    source += "\n".join(path.name for path in web)
    for path in (ROOT / "models").glob("*/*/metadata.json"):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        for word in (metadata["name"], *metadata["class_names"]):
            assert not re.search(rf"\b{re.escape(word)}\b", source, re.IGNORECASE), word
    assert not re.search(r"\b32, 32\b", source)
