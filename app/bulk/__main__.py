"""Runs `python -m app.bulk`. Handles signals before the imports, which take seconds."""

import signal
import sys
from contextlib import suppress
from typing import NoReturn

_EXTRA = {"fsspec", "pandas", "pyarrow", "ray"}


def _terminate(*_: object) -> NoReturn:
    """End the command as Ctrl-C does."""
    raise KeyboardInterrupt(signal.SIGTERM)


def run() -> int:
    """Run the command and return the exit status. Standard streams may be closed."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from app.bulk.command import main  # noqa: PLC0415 - signals during these imports are handled too
        from app.stdio import prepare_streams  # noqa: PLC0415

        with suppress(OSError):  # only standard error is used
            prepare_streams()
        return main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(f"python -m app.bulk: {error.name} is not installed: pip install '.[bulk]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        with suppress(OSError):
            print("python -m app.bulk: stopped; run the same command again to resume", file=sys.stderr)
        return 128 + (signal.SIGTERM if signal.SIGTERM in stopped.args else signal.SIGINT)


if __name__ == "__main__":  # Ray's workers may import this module again
    sys.exit(run())
