"""Behaviour of app.versions.preflight."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract import INT8_FILE
from app.errors import RefusedVersionError
from app.versions.preflight import run_preflight
from tests.app.artifacts import write_graph
from tests.app.fakes import INPUT, seal

MIB = 2**20


def preflight(folder: Path, runtime: str = "openvino", precision: str = "f32", memory_bytes: int = 256 * MIB) -> None:
    run_preflight(folder, runtime=runtime, precision=precision, batch_sizes=[1, 4], memory_bytes=memory_bytes)


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """A program that runs instead of Python."""
    path = tmp_path / "program"
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


@pytest.mark.parametrize("runtime", ["openvino", "tensorflow"])
def test_a_good_version_passes(exported, runtime):
    """It loads, and gives the golden probabilities."""
    preflight(exported, runtime)


def test_the_preflight_gives_the_same_reasons_as_the_service(version):
    """It makes the same checks, and the first that fails gives the reason."""
    (version / "saved_model.pb").write_bytes(b"not a graph")
    seal(version)
    with pytest.raises(RefusedVersionError, match=r"^OpenVINO can't load it"):
        preflight(version)
    (version / "golden.npz").unlink()
    with pytest.raises(RefusedVersionError, match=r"^its files differ .* exported ones: missing: golden\.npz\Z"):
        preflight(version)


@pytest.mark.parametrize("mib", [16, 1024])
def test_a_graph_above_the_memory_limit_is_refused(version, mib):
    """The limit is in addition to the runtime's own memory. A graph below it passes."""
    write_graph(version, mib)
    assert sum(path.stat().st_size for path in (version / INT8_FILE).parent.iterdir()) < 20_000
    if mib < 256:
        preflight(version, precision="int8")
    else:
        with pytest.raises(RefusedVersionError, match=r"takes more than 256 MiB \(APP_MAX_MODEL_MEMORY_BYTES\)"):
            preflight(version, precision="int8")


def test_the_memory_limit_applies_to_tensorflow(version):
    """And to any other runtime."""
    import tensorflow as tf  # noqa: PLC0415 -- takes seconds

    @tf.function(input_signature=[tf.TensorSpec((None, *INPUT.shape), tf.uint8, name="images")])
    def serve(images):
        zero = tf.cast(tf.reduce_sum(images[:0]), tf.int32)  # allocated when it runs
        return {"probabilities": tf.fill((tf.shape(images)[0], 3), tf.reduce_max(tf.fill((2**28 + zero,), 1 / 3)))}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, version, signatures={"serving_default": serve})
    seal(version)
    with pytest.raises(RefusedVersionError, match="takes more than 256 MiB"):
        preflight(version, "tensorflow")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_version_that_crashes_the_runtime_is_refused(program, tmp_path, name):
    """Whichever signal ended the process."""
    program.write_text(f"#!/bin/sh\nkill -{name[3:]} $$\n")
    with pytest.raises(RefusedVersionError, match=rf"openvino crashes on it \({name}\)"):
        preflight(tmp_path)


def test_a_crash_without_memory_names_the_limit(program, tmp_path):
    """C++ aborts the process if an allocation fails and nothing catches the exception."""
    program.write_text("#!/bin/sh\necho \"terminate called after throwing 'std::bad_alloc'\" >&2\nkill -ABRT $$\n")
    with pytest.raises(RefusedVersionError, match="takes more than 256 MiB"):
        preflight(tmp_path)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_preflight_does_not_refuse_a_version(program, tmp_path, name):
    """The machine ran out of memory, or the service stops."""
    # Python, because a shell keeps ignoring a signal that its parent ignored, as SIGINT is in background jobs.
    program.write_text(
        "#!/usr/bin/env python3\nimport os, signal\n"
        f"if signal.{name} != signal.SIGKILL:\n    signal.signal(signal.{name}, signal.SIG_DFL)\n"
        f"os.kill(os.getpid(), signal.{name})\n"
    )
    with pytest.raises(MemoryError, match=name):
        preflight(tmp_path)


def test_a_failing_volume_does_not_refuse_a_version(program, tmp_path):
    """The error is raised unchanged, so the version is tried again."""
    program.write_text("#!/bin/sh\necho '[Errno 5] Input/output error'\nexit 4\n")
    with pytest.raises(OSError, match="Input/output error"):
        preflight(tmp_path)


def test_a_failing_preflight_does_not_refuse_a_version(program, tmp_path):
    """A refusal has its own exit status. Other failures show what was written to standard error."""
    program.write_text("#!/bin/sh\necho No module named numpy >&2\nexit 1\n")
    with pytest.raises(MemoryError, match="status 1: No module named numpy"):
        preflight(tmp_path)


@pytest.mark.parametrize(("background", "niceness"), [(False, 0), (True, 19)])
def test_a_preflight_in_the_background_has_low_priority(program, tmp_path, background, niceness):
    """Requests take precedence."""
    program.write_text('#!/bin/sh\necho "$3"\nexit 3\n')  # its third argument, as the reason
    with pytest.raises(RefusedVersionError, match=rf", {niceness}\]\Z"):
        run_preflight(
            tmp_path, runtime="openvino", precision="f32", batch_sizes=[1], memory_bytes=MIB, background=background
        )


def test_the_program_is_found_from_any_working_directory(exported, monkeypatch):
    """`uvicorn --app-dir` may start the service elsewhere, with a relative `APP_MODEL_DIR`."""
    monkeypatch.chdir(exported.parent)
    preflight(Path(exported.name))


def test_a_version_that_never_finishes_loading_is_refused(program, tmp_path, monkeypatch):
    """Otherwise it would block all later versions."""
    monkeypatch.setattr("app.versions.preflight._TIMEOUT_SECONDS", 0.1)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(RefusedVersionError, match="takes longer than"):
        preflight(tmp_path)


def test_a_preflight_ends_with_the_service(tmp_path):
    """Even if it hangs, and the service is killed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    preflight = (
        "import time; from app.versions import preflight; "
        f"preflight.load_model = lambda *_, **__: (open({str(pipe)!r}, 'w'), time.sleep(30)); "
        "preflight.main(preflight._Request('', 'openvino', 'f32', [1], 0, 0))"
    )
    service = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])",
            preflight,
        ],
        cwd=Path(__file__).parents[3],
    )
    with pipe.open() as reader:  # waits for the preflight
        service.kill()
        service.wait()
        assert select.select([reader], [], [], 10)[0]  # the end of the pipe
