"""Does a process serve? Asked where it listens."""

from __future__ import annotations

import socket

from synapse.config.listeners import Listener
from synapse.synctl.cluster import Process

_SECONDS = 2.0


def serves(process: Process) -> bool | None:
    """Whether /health is answered on a listener of the process; None where it has no listener to ask."""
    listeners = [listener for listener in process.config.listeners if listener.type in ("http", "metrics")]
    if not listeners:
        return None
    return any(_is_healthy(listener) for listener in listeners[:1])


def _is_healthy(listener: Listener) -> bool:
    try:
        with _connect(listener) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def _connect(listener: Listener) -> socket.socket:
    if listener.path is not None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_SECONDS)
        connection.connect(listener.path)
        return connection
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.addresses[-1], listener.addresses[-1])
    plain = socket.create_connection((address, listener.port or 0), timeout=_SECONDS)
    if not listener.tls:
        return plain
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only asks this machine's own process whether it lives
    return context.wrap_socket(plain)
