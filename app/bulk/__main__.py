"""Runs `python -m app.bulk`."""

import sys

_EXTRA = {"fsspec", "pandas", "pyarrow", "ray"}

try:
    from app.bulk.command import run
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in _EXTRA:
        raise
    print(f"python -m app.bulk: {error.name} is not installed: pip install '.[bulk]'", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":  # Ray's workers may import this module again
    sys.exit(run())
