"""`python -m app`: settings, log and application put together, and served until told to stop."""

import asyncio
import logging
import os
import socket
import sys

from pydantic import ValidationError

from app.logs import configure_logs
from app.settings import Settings, describe_faults

logger = logging.getLogger("app")


def main() -> None:
    """Serve until told to stop. A bad setting, an address among them, is one clear line and exit status 2."""
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
    from app.server import make_server  # noqa: PLC0415 -- likewise

    app = create_app(settings)
    make_server(app, settings).run()


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
