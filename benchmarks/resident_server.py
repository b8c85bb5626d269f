"""A large room on servers that are not real: `python -m benchmarks.resident_server CERTIFICATE MEMBERS SERVERS`.

Listens with TLS on ports of its own, one for each server of the room's members (`localhost:PORT`), and answers as
`tests.support.resident` does. When it serves, it writes a line of JSON: the room's id, and the server to join by.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from tests.support.resident import Resident, server_keys

_LOCK = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    """Answers for one server: the room's, or one that has keys alone."""

    protocol_version = "HTTP/1.1"
    name = ""
    resident: Resident | None = None

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        if self.path.startswith("/_matrix/key/"):
            code, answer = 200, server_keys(self.name, int(time.time() * 1000))
        elif self.resident is None:
            code, answer = 404, {"errcode": "M_UNRECOGNIZED", "error": "There are keys here, and nothing else."}
        else:
            with _LOCK:
                code, answer = self.resident.answer(self.command, self.path, body)
        sent = orjson.dumps(answer)
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is measured is the other side."""


def main(certificate: str, members: int, servers: int) -> None:
    """Serves until it is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handlers = [type(f"Server{number}", (_Handler,), {}) for number in range(servers)]
    listeners = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in handlers]
    names = [f"localhost:{listener.server_address[1]}" for listener in listeners]
    resident = Resident(names[0])
    resident.join(f"@member{number}:{names[number % servers]}" for number in range(members))
    handlers[0].resident = resident
    for handler, listener, name in zip(handlers, listeners, names, strict=True):
        handler.name = name
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        threading.Thread(target=listener.serve_forever, daemon=True).start()
    print(json.dumps({"room_id": resident.room_id, "server": names[0]}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
