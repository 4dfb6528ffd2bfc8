"""Behaviour of app.stdio in `python -m app.classify`: standard input, output and error."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.app.classify.program import ROOT, start
from tests.app.fakes import encode

pytestmark = pytest.mark.usefixtures("model")


def test_standard_input_is_classified_by_a_real_model(exported):
    """In a process of its own, with OpenVINO."""
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent)}
    done = start("-", input=encode("blue"), env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"-\tblue\t1.00\n", b"")


@pytest.mark.parametrize(
    ("redirection", "status", "out", "said"),
    [
        ("<&-", 1, "", "-: it is closed\n"),
        (">/dev/full", 1, "", "python -m app.classify: can't write: No space left on device\n"),
        (">&-", 1, "", "python -m app.classify: can't write: standard output is closed\n"),
        ("2>&-", 0, "-\tblue\t1.00\n", ""),
        ("/nowhere 2>&-", 1, "-\tblue\t1.00\n", ""),
        ("/nowhere 2>/dev/full", 1, "-\tblue\t1.00\n", ""),
    ],
)
def test_a_closed_or_full_stream_is_one_line(exported, redirection, status, out, said):
    """Without a traceback. If only standard error fails, a GIF, which needs a decoder process, is classified."""
    picture = encode("blue", kind="GIF")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m app.classify - {redirection}"], cwd=ROOT, input=picture,
        env={**os.environ, "APP_MODEL_DIR": str(exported.parent)}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (status, out, said)


def test_letters_that_the_output_cannot_encode_are_escaped(exported, folder):
    """The other files are classified."""
    (folder / "a.png").rename(folder / "é.png")
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent), "PYTHONIOENCODING": "ascii"}
    done = start(str(folder), env=environment)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert rb"/\xe9.png" in done.stdout


def test_ctrl_c_ends_the_command_while_it_reads(exported):
    """Even if standard input never ends."""
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent)}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "app.classify", "-"], cwd=ROOT, env=environment, **pipe) as program:
        time.sleep(3)  # time to start reading
        program.send_signal(signal.SIGINT)
        assert program.wait(5) == -signal.SIGINT
        assert (program.stdout.read(), program.stderr.read()) == (b"", b"")
