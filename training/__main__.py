"""`python -m training`: the command line of a training job."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from training.failures import TrainingError
from training.options import PROGRAM, parse_options
from training.run import CHECKPOINT_FILE, find_run, format_resume

INTERRUPTED = 128 + signal.SIGINT  # as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job.

    Returns:
        0; 2 with one line on standard error for an error that the user can fix; 130 if the user interrupted it.
    """
    options = parse_options(arguments)
    command = shlex.join(["python", "-m", "training", *(sys.argv[1:] if arguments is None else arguments)])
    command = command.encode("utf-8", "backslashreplace").decode()  # a path may be invalid Unicode
    run: Path | None = None
    try:
        run = find_run(options)
        # After the flags are checked, because TensorFlow takes seconds to import.
        from training.job import run_job  # noqa: PLC0415 - see above

        run_job(options, run, command)
    except (TrainingError, OSError) as error:  # such as a full disk
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()  # ends the progress bar's line
        advice = "no epoch was finished"
        if run and (run / CHECKPOINT_FILE).exists():
            advice = f"{format_resume(run)} continues after the last finished epoch"
        print(f"{PROGRAM}: interrupted; {advice}", file=sys.stderr)
        return INTERRUPTED
    finally:
        if run:
            with contextlib.suppress(OSError):
                run.rmdir()  # fails unless it is empty
    return 0


if __name__ == "__main__":
    sys.exit(main())
