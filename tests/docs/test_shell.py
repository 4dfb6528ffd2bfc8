"""The commands in the documentation work and print what the documentation shows.

The fenced `console` blocks of README.md, CONTRIBUTING.md, docs/ and the API's descriptions run in one shell per
document, in a copy of the repository, with a running service. A word after `console`, which readers do not see, marks
blocks that do not run: they need a `gpu`, `docker`, `kubernetes`, the `dataset` or the `environment`
that `make` creates, or the command `serves` and does not end.
`make` runs with `--dry-run`, because its targets install packages. The same commands run here without it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {"gpu", "docker", "kubernetes", "dataset", "environment", "serves"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>\S+[^\n]*)?\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
SHELL_LANGUAGES = {"console", "sh", "bash", "shell", "shell-session"}
PROMPT = re.compile(r"^\$ ", re.MULTILINE)
END = "\x1e"
SHARE_TOLERANCE = 0.2  # between models that were trained on different CPUs
# The service listens on another port than the documentation says, and `python` is that of this environment.
PRELUDE = """
export PATH={bin}:$PATH NAME={name} VERSION={version} SIZE={size}
curl() {{ command curl --silent --show-error "${{@//localhost:8000/127.0.0.1:{port}}}"; }}
make() {{ command make --dry-run "$@" > /dev/null; }}
"""


class Command(NamedTuple):
    """A command and the output that the documentation shows."""

    text: str
    shown: str


def find_blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """Find the fenced blocks; yield the words after the fence and the body."""
    for fence in FENCE.finditer(text):
        body = re.sub(rf"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        yield (fence["info"] or "").split(), body


def find_commands(text: str) -> list[Command]:
    """Find the commands after `$ `, with their here-documents and their continuation lines after `> `."""
    commands = []
    for info, body in find_blocks(text):
        if info[:1] != ["console"] or NOT_RUN & set(info):
            continue
        for part in PROMPT.split(body)[1:]:
            heredoc = re.match(r".*<<'(\w+)'\n.*?^\1\n", part, re.MULTILINE | re.DOTALL)
            typed = heredoc[0] if heredoc else re.match(r".*\n(>.*\n)*", part)[0]
            commands.append(Command(re.sub(r"^> ", "", typed, flags=re.MULTILINE), part[len(typed) :].strip()))
    return commands


def matches(shown: str, printed: str) -> bool:
    """Whether the output `printed` matches the output `shown`.

    An id matches any id, an ellipsis anything, and a number any number, except that a number below 1 (a probability)
    must be nearly equal.
    """
    pattern, shares = "", []
    for fixed, moving in re.findall(r"(.*?)(…|\b[0-9a-f]{32}\b|\b\d+(?:\.\d+)?\b|\Z)", shown, re.DOTALL):
        kind = {"": "", "…": r"(?s:.*)"}.get(moving, r"[0-9a-f]{32}" if len(moving) == 32 else r"\d+(?:\.\d+)?")
        if moving.startswith("0."):
            kind = f"({kind})"
            shares.append(float(moving))
        pattern += re.escape(fixed) + kind
    found = re.fullmatch(pattern, printed.strip())
    return found is not None and all(
        abs(float(share) - expected) <= SHARE_TOLERANCE for share, expected in zip(found.groups(), shares, strict=True)
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the files that the commands read and write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("app", "training", "models", "docs", "tests/data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("image.png", "another.jpg"):  # the images in the API's examples
        shutil.copy(ROOT / "tests/data/cat.png", folder / name)
    return folder


@pytest.fixture(scope="module")
def port(checkout):
    """A service in the checkout, started like `make serve`; yields its port."""
    environment = {**os.environ, "APP_PORT": "0", "APP_DRAIN_SECONDS": "0", "APP_MODEL_POLL_SECONDS": "0.5"}
    with subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        log = iter(process.stderr.readline, "")
        port = next(m[1] for line in log if (m := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        next(line for line in log if "serves" in line)
        yield port
        process.terminate()
        process.stderr.read()


def run(commands: list[Command], checkout: Path, port: str) -> None:
    """Run the commands in one shell and check the output of each."""
    [path] = (checkout / "models").glob("*/[0-9]*/metadata.json")
    metadata = json.loads(path.read_text(encoding="utf-8"))
    prelude = PRELUDE.format(
        bin=Path(sys.executable).parent,
        port=port,
        name=metadata["name"],
        version=metadata["version"],
        size=metadata["input"]["shape"][0],
    )
    script = prelude + "".join(f"{{ {c.text}\n}} 2>&1; printf '{END}%s{END}' $?\n" for c in commands)
    shell = subprocess.run(
        [shutil.which("bash")], input=script, cwd=checkout, capture_output=True, text=True, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    answers = shell.stdout.split(END)
    printed, statuses = answers[:-1:2], answers[1::2]
    assert len(statuses) == len(commands), shell.stdout + shell.stderr
    for command, text, status in zip(commands, printed, statuses, strict=True):
        assert status == "0", f"{command.text}exit status {status}:\n{text}"
        assert not command.shown or matches(command.shown, text), f"{command.text}shown:\n{command.shown}\nis:\n{text}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_a_document_print_what_it_shows(document, checkout, port):
    """In their order."""
    if commands := find_commands(document.read_text(encoding="utf-8")):
        run(commands, checkout, port)


def test_the_examples_of_the_api_print_what_they_show(checkout, port):
    """Every endpoint has one."""
    paths = create_app(Settings()).openapi()["paths"]
    descriptions = [operation["description"] for path in paths.values() for operation in path.values()]
    examples = [find_commands(f"{description}\n") for description in descriptions]
    assert all(examples), descriptions
    run([command for example in examples for command in example], checkout, port)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_shell_block_is_tested_or_says_what_it_needs(document):
    """Every block of shell is a `console` block with prompts."""
    for info, body in find_blocks(document.read_text(encoding="utf-8")):
        if SHELL_LANGUAGES & set(info[:1]) or PROMPT.search(body):
            assert info[:1] == ["console"], body
            assert set(info[1:]) <= NOT_RUN
            assert body.startswith("$ ")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_work(document):
    """They name files of the repository, and headings in them."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", document.read_text(encoding="utf-8")):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not heading or heading in find_anchors(path.read_text(encoding="utf-8")), f"{target}#{heading}"
    assert document.name == "README.md" or document.name in DOCUMENTS[0].read_text(encoding="utf-8")


def find_anchors(text: str) -> set[str]:
    """Find the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(FENCE, "", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_comparison_finds_differences():
    """Between printed and documented output."""
    assert matches('{"label":"cat","probability":0.93,…}', '{"label":"cat","probability":0.901223,"x":[1]}\n')
    assert not matches('{"label":"cat","probability":0.93}', '{"label":"dog","probability":0.93}')
    assert not matches('{"label":"cat","probability":0.93}', '{"label":"cat","probability":0.71}')
    assert matches("3 images in 1.5 s", "4 images in 0.25 s")
    assert not matches("exit status 2", "exit status two")


def test_every_metric_in_the_documentation_exists(port):
    """In the tables too, not only in the commands."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        metrics = response.read().decode()
    for document in DOCUMENTS:
        for name in re.findall(r"\bclassifier_\w+", document.read_text(encoding="utf-8")):
            assert f"# TYPE {name.removesuffix('_bucket')} " in metrics, name
