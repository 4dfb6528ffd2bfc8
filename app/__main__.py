"""`python -m app`: reads the settings, configures the log, creates the application and serves it until stopped."""

import gc
import logging
import os
import signal
import sys
from types import FrameType

logger = logging.getLogger("app")


def main() -> None:
    """Serve until stopped. An invalid setting, or an address in use, is one line and exit status 2."""
    # Before the imports, which take time. Without a handler, a signal would end the process with an error status, or be
    # ignored by the first process of a container. The server replaces the handlers while it runs.
    for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if which != signal.SIGHUP or signal.getsignal(which) != signal.SIG_IGN:  # `nohup` ignores it
            signal.signal(which, stop_at_once)
    if sys.argv[1:]:
        print("python -m app takes no arguments: set the APP_… variables that docs/reference.md lists", file=sys.stderr)
        sys.exit(2)
    from pydantic import ValidationError  # noqa: PLC0415 -- after the handlers, like the other imports here

    from app.server.listeners import bind  # noqa: PLC0415
    from app.settings import DECODERS_BEFORE, Settings, describe_faults  # noqa: PLC0415
    from app.telemetry.logs import configure_logs, open_closed_streams  # noqa: PLC0415

    open_closed_streams()
    try:
        settings = Settings()
    except ValidationError as error:
        print(*describe_faults(error), sep="\n", file=sys.stderr)
        sys.exit(2)
    sockets = []
    for name, port in (("APP_PORT", settings.port), ("APP_PROBE_PORT", settings.probe_port)):
        try:
            sockets.append([] if port is None else bind(settings.host, port))
        except OSError as error:
            print(f"APP_HOST={settings.host} {name}={port}: can't listen there: {error.strerror}", file=sys.stderr)
            sys.exit(2)
    log = configure_logs(settings.log_level, settings.log_format)
    known = {DECODERS_BEFORE, *(f"APP_{name.upper()}" for name in Settings.model_fields)}
    for name in sorted(name for name in os.environ if name.startswith("APP_") and name not in known):
        logger.warning("%s is not a setting of this service", name)

    from app.main import create_app, create_probe_app  # noqa: PLC0415 -- takes a second
    from app.server.lifecycle import make_server  # noqa: PLC0415

    app = create_app(settings)
    log.count_dropped = app.state.metrics.observe_dropped_line
    public, probes = sockets
    server = make_server(app, settings, probe_app=create_probe_app(app) if probes else None, probe_sockets=probes)
    if signal.getsignal(signal.SIGHUP) == stop_at_once:
        signal.signal(signal.SIGHUP, server.handle_exit)  # uvicorn handles the other two
    # The objects that exist now stay, and requests create few reference cycles. Fewer collections, which skip these
    # objects, save 5 % of the event loop's time on a small image. Connections do create cycles, so the oldest
    # generation is collected more often.
    gc.freeze()
    gc.set_threshold(20_000, 5, 2)
    server.run(public)
    logging.shutdown()
    # Python would wait for every thread, even one that decodes forever.
    os._exit(0 if server.started else 1)


def stop_at_once(sig: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- a signal handler's signature
    """End the process while there is nothing to lose: no request is accepted yet, or all have been answered."""
    os._exit(0)


if __name__ == "__main__":
    main()
