"""`python -m training.promote`: publishes a candidate, a version that an export set aside, as the next version.

A candidate is a folder `<models>/<name>/.candidate-<N>`, which services ignore.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from app.contract import METADATA_FILE, DigestError, ModelMetadata, verify_files
from training.failures import ExportError
from training.numbering import CANDIDATE_PREFIX, next_version
from training.options import Parser

PROGRAM = "python -m training.promote"


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish a candidate as the next version of its model; return 2 if that is impossible."""
    parser = Parser(prog=PROGRAM, description="Publish a candidate as the next version of its model.")
    parser.add_argument(
        "candidate",
        nargs="?",
        default="models",
        type=Path,
        help="folder of the candidate, or a folder that contains only one (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        print(promote(find_candidate(options.candidate)))
    except (ExportError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


def find_candidate(folder: Path) -> Path:
    """Return `folder` if it is a candidate, or the only candidate in it or in one of its models.

    Raises:
        ExportError: there is none, or several.
    """
    folder = folder.resolve() if folder.name in {"", ".."} else folder
    if folder.name.startswith(CANDIDATE_PREFIX):
        found = [folder] if folder.is_dir() else []
    else:
        found = sorted(path for depth in ("", "*/") for path in folder.glob(f"{depth}{CANDIDATE_PREFIX}*"))
    if not found:
        raise ExportError(f"{folder} contains no candidate")
    if len(found) > 1:
        raise ExportError(f"{folder} contains several candidates; name one of them: {', '.join(map(str, found))}")
    return found[0]


def promote(candidate: Path) -> Path:
    """Rename a candidate to the next version of its model, with that number in its metadata; return the new folder.

    Raises:
        ExportError: the candidate is damaged, or the version exists already.
        OSError: the system refuses to write or rename.
    """
    try:
        metadata = ModelMetadata.model_validate_json((candidate / METADATA_FILE).read_bytes())
        verify_files(candidate, metadata)
    except (ValidationError, DigestError, FileNotFoundError) as error:
        raise ExportError(f"{candidate} is damaged: {' '.join(str(error).split())}") from error
    number = next_version(candidate.parent)
    written = candidate.with_name(f".writing-{number}.json")  # outside, because the metadata lists every file inside
    text = metadata.model_copy(update={"version": number}).model_dump_json(indent=2) + "\n"
    written.write_text(text, encoding="utf-8")
    written.replace(candidate / METADATA_FILE)
    target = candidate.with_name(str(number))
    if target.exists():  # `rename` would replace an empty folder
        raise ExportError(f"{target} exists already; a version is never overwritten")
    return candidate.rename(target)


if __name__ == "__main__":
    sys.exit(main())
