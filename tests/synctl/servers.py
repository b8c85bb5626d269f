"""Instances for proxy tests: plans of clusters, and small HTTP servers that say who they are."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from synapse.api.routes import App
from synapse.config.listeners import Listener, ListenerResource
from synapse.synctl.proxy import Instance, Plan, plan

RESOURCES = {
    App.HOMESERVER: ("client", "federation"),
    App.MEDIA_REPOSITORY: ("media",),
    App.FEDERATION_READER: ("federation",),
}
WITH_ROUTES = (
    App.SYNCHROTRON,
    App.FEDERATION_READER,
    App.MEDIA_REPOSITORY,
    App.CLIENT_READER,
    App.USER_DIR,
    App.FRONTEND_PROXY,
    App.EVENT_CREATOR,
)


def listener(port: int, *names: str, address: str = "127.0.0.1", tls: bool = False) -> Listener:
    return Listener(
        type="http",
        port=port,
        bind_address=address,
        tls=tls,
        resources=(ListenerResource(names=names),),  # type: ignore[arg-type]  # any word, to test with
    )


def instance(app: App, port: int, number: int = 1) -> Instance:
    name = f"{app.value.rpartition('.')[2]}{number}"
    return Instance(name, app, (listener(port, *RESOURCES.get(app, ("client",))),))


def plan_of(main: Instance, *workers: Instance, use_presence: bool = False) -> Plan:
    return plan(main, list(workers), server_name="example.org", use_presence=use_presence, max_upload_size=10 << 20)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one segment an answer; otherwise each waits for a delayed acknowledgement

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = f"{self.server.instance} {self.command} {self.path} {self.headers['X-Forwarded-For']} {length}".encode()  # type: ignore[attr-defined]  # set below
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_OPTIONS = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def named_servers(names: list[str]) -> Iterator[dict[str, int]]:
    """HTTP servers on ports of the system's choice; each answers with its name and the request line."""
    servers = {}
    for name in names:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.instance = name  # type: ignore[attr-defined]  # read by the handler
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers[name] = server
    try:
        yield {name: server.server_address[1] for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))
