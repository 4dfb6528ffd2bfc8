"""Runs a real nginx as a process."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
_WRAPPER = """
daemon off;
error_log error.log;
pid nginx.pid;
worker_processes 1;
events {
    worker_connections 1024;
}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""


@contextmanager
def run_nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    """Run nginx with this site, which listens on `port`."""
    user = "user root;" if os.geteuid() == 0 else ""  # the default user `nobody` can't write here
    (folder / "nginx.conf").write_text(user + _WRAPPER)
    (folder / "site.conf").write_text(site)
    command = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    subprocess.run([*command, "-t"], check=True, capture_output=True, text=True)
    process = subprocess.Popen(command)
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)
