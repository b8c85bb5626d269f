"""What the providers have in common: a web server of the standard library, told by the tests how to behave."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Hands requests to `answer`; `behaviour` is what the tests have set."""

    behaviour: dict[str, Any]
    asked: list[dict[str, Any]]
    protocol_version = "HTTP/1.1"

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if parts.path == "/_test/behave":
            type(self).behaviour = json.loads(body)
            type(self).asked = []
            return self._send(200, {}, b"{}")
        if parts.path == "/_test/asked":
            return self._send(200, {}, json.dumps(self.asked).encode())
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        type(self).asked.append({"path": parts.path, "query": query, "form": form, "headers": dict(self.headers)})
        return self._send(*self.answer(parts.path, query, form))

    def _send(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def serve(handler: type[Handler], make: Any = None) -> None:
    """Serves for ever at a port of the system's choice, whose URL is printed first; `make` is told it before."""
    handler.behaviour, handler.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    if make is not None:
        make(url)
    print(url, flush=True)
    server.serve_forever()
