"""`python -m app`: settings, log and application put together, and served until told to stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from types import FrameType

logger = logging.getLogger("app")


def main() -> None:
    """Serve until told to stop. A bad setting, an address among them, is one clear line and exit status 2."""
    # Before all that takes time to import: without a handler the signal would be an error's exit status, and to the
    # first process of a container no signal at all. The server puts its own in their places, and these back at its end.
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, stop_at_once)
    if sys.argv[1:]:  # `--port 9000` would be passed over, and the port be another
        print("python -m app takes no arguments: set the APP_… variables that docs/reference.md lists", file=sys.stderr)
        sys.exit(2)
    from pydantic import ValidationError  # noqa: PLC0415 -- after the handlers, as is what follows

    from app.settings import Settings, describe_faults  # noqa: PLC0415
    from app.telemetry.logs import configure_logs  # noqa: PLC0415

    try:
        settings = Settings()
    except ValidationError as error:
        print(*describe_faults(error), sep="\n", file=sys.stderr)
        sys.exit(2)
    if obstacle := asyncio.run(find_obstacle(settings.host, settings.port)):
        print(f"APP_HOST={settings.host} APP_PORT={settings.port}: can't listen there: {obstacle}", file=sys.stderr)
        sys.exit(2)
    configure_logs(settings.log_level, settings.log_format)
    known = {f"APP_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(name for name in os.environ if name.startswith("APP_") and name not in known):
        logger.warning("%s is no setting of this service", name)

    from app.main import create_app  # noqa: PLC0415 -- takes a second, which a bad setting need not wait for
    from app.server.lifecycle import make_server  # noqa: PLC0415 -- likewise

    server = make_server(create_app(settings), settings)
    # What is there now stays, and a request leaves hundreds of objects but hardly a cycle: to look for cycles less
    # often, and not among what stays, takes a twentieth off a small image's time on the event loop. A connection leaves
    # cycles, and what has lived for a while is looked at as soon as there is more of it.
    gc.freeze()
    gc.set_threshold(20_000, 5, 2)
    server.run()
    logging.shutdown()
    # Python would wait for every thread, one that decodes for ever among them. All that had to end has ended.
    os._exit(0 if server.started else 1)


def stop_at_once(sig: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- a signal handler's signature
    """End the process while there is nothing to lose: no request has been accepted, or all have been answered."""
    os._exit(0)


async def find_obstacle(host: str, port: int) -> str | None:
    """Take an address as the server will, and leave it before anybody could connect; return why it can't be had.

    The server itself would say so amid the lines of its own start and end.
    """
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    except socket.gaierror as error:
        return error.strerror
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except UnicodeError:
        return "no host can have such a name"
    server.close()
    await server.wait_closed()
    return None


if __name__ == "__main__":
    main()
