"""`python -m training`: the command line of a training job."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from training.failures import TrainingError
from training.options import PROGRAM, parse_options
from training.run import CHECKPOINT_FILE, find_run

INTERRUPTED = 128 + signal.SIGINT  # as a shell tells it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job.

    Returns:
        0; 2 with one line on standard error for what the person can mend; 130 when they interrupted it.
    """
    options = parse_options(arguments)
    command = shlex.join(["python", "-m", "training", *(sys.argv[1:] if arguments is None else arguments)])
    command = command.encode("utf-8", "backslashreplace").decode()  # a path may be no text, what holds the command is
    run: Path | None = None
    try:
        run = find_run(options)
        # Only now: TensorFlow takes seconds to import and prints, which nobody with a mistyped flag should wait for.
        from training.job import run_job  # noqa: PLC0415 - as said

        run_job(options, run, command)
    except (TrainingError, OSError) as error:  # a full disk, say
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()  # ends the progress bar's line
        advice = "no epoch was finished"
        if run and (run / CHECKPOINT_FILE).exists():
            advice = f"{PROGRAM} {shlex.join(['--resume', str(run)])} goes on after the last finished epoch"
        print(f"{PROGRAM}: interrupted; {advice}", file=sys.stderr)
        return INTERRUPTED
    finally:
        if run:
            with contextlib.suppress(OSError):
                run.rmdir()  # if it is empty: nothing was begun
    return 0


if __name__ == "__main__":
    sys.exit(main())
