"""`python -m training`: the command line of a training job."""

import shlex
import sys
from collections.abc import Sequence

from training.errors import TrainingError
from training.options import parse_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; return 0, or 2 with one line on standard error for what the person can mend."""
    options = parse_options(arguments)
    command = shlex.join(["python", "-m", "training", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        # Only now: TensorFlow takes seconds to import and prints, which nobody with a mistyped flag should wait for.
        from training.job import run_job  # noqa: PLC0415

        run_job(options, command)
    except TrainingError as error:
        print(f"python -m training: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
