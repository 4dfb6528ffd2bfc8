"""`python -m training.evaluate models/minimodel/1`: measures a version again and compares it with its metadata."""

import sys
from collections.abc import Sequence
from pathlib import Path

from app.contract import METADATA_FILE
from training.config import OFFICIAL
from training.failures import TrainingError
from training.options import Parser, add_elsewhere_flags

PROGRAM = "python -m training.evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a version again. The exit status is 1 if figures differ from its metadata, 2 if it can't be measured."""
    parser = Parser(prog=PROGRAM, description=main.__doc__)
    parser.add_argument("version", type=Path, help="folder of a version, such as models/minimodel/1")
    parser.add_argument("--data", default=OFFICIAL, help="as for python -m training (default: %(default)s)")
    parser.add_argument("--skip-damaged", action="store_true", help="leave out files that can't be read as images")
    parser.add_argument("--mistakes", type=Path, metavar="FILE", help="write the wrong answers, by file name, as CSV")
    add_elsewhere_flags(parser)
    options = parser.parse_args(arguments)
    # After the flags are checked, because TensorFlow takes seconds to import.
    from training.comparison import measure_again  # noqa: PLC0415 - see above
    from training.report import format_elsewhere, format_table  # noqa: PLC0415 - see above

    try:
        again = measure_again(
            options.version,
            options.data,
            skip_damaged=options.skip_damaged,
            mistakes=options.mistakes,
            test_sets=options.test_sets,
            foreign=options.foreign,
        )
    except (TrainingError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    print(f"{format_table(again.measured)}\n\n{format_elsewhere(again.measured)}".rstrip())
    for difference in again.expected:
        print(f"expected on this CPU, whose 8-bit sums may overflow: {difference}", file=sys.stderr)
    for difference in again.differences:
        print(f"differs from {METADATA_FILE}: {difference}", file=sys.stderr)
    return 1 if again.differences else 0


if __name__ == "__main__":
    sys.exit(main())
