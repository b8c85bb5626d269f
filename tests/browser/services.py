"""Services that pages and server turn to, on loopback: a captcha's, text messages', a CAS server, a client."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from urllib.parse import parse_qs, urlencode, urlsplit

CAPTCHA_SECRET, SMS_SECRET = "a captcha secret", "a text message secret"
# As the real one does: it puts a field into the form, and calls what the element names once the captcha is solved.
_CAPTCHA_SCRIPT = """
const begin = () => {
  for (const element of document.getElementsByClassName("g-recaptcha")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "I am not a robot";
    button.onclick = () => {
      const field = document.createElement("textarea");
      field.name = "g-recaptcha-response";
      field.hidden = true;
      field.value = "solved for " + element.dataset.sitekey;
      element.append(field);
      window[element.dataset.callback](field.value);
    };
    element.append(button);
  }
};
if (document.readyState === "loading") addEventListener("DOMContentLoaded", begin);
else begin();
"""
_CAS_PAGE = """<!DOCTYPE html><html lang="en"><title>CAS</title><h1>CAS</h1>
<form method="post"><label>Name <input name="username"></label><button>Log in</button></form></html>"""
_CAS_ANSWER = """<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas"><cas:authenticationSuccess>
<cas:user>{}</cas:user></cas:authenticationSuccess></cas:serviceResponse>"""
_CLIENT = "<!DOCTYPE html><html lang='en'><title>A client</title><h1>A client</h1></html>"


class Services:
    """What they have heard."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.texts: Queue[str] = Queue()  # text messages that were sent
        self.tickets: dict[str, tuple[str, str]] = {}  # CAS: service and user

    @property
    def client(self) -> str:
        """The page of a client to which single sign-on leads back."""
        return f"{self.url}/client"


class _Handler(BaseHTTPRequestHandler):
    services: Services

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/recaptcha/api.js":
            self._say(200, "text/javascript", _CAPTCHA_SCRIPT)
        elif parts.path == "/cas/login":
            self._say(200, "text/html", _CAS_PAGE)
        elif parts.path == "/cas/proxyValidate":
            service, user = self.services.tickets.pop(query["ticket"], ("", ""))
            assert service == query["service"]
            self._say(200, "text/xml", _CAS_ANSWER.format(user))
        elif parts.path == "/client":
            self._say(200, "text/html", _CLIENT)
        else:
            self._say(404, "text/plain", "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        parts = urlsplit(self.path)
        if parts.path == "/recaptcha/api/siteverify":
            asked = parse_qs(body)
            good = asked["secret"] == [CAPTCHA_SECRET] and asked["response"] == ["solved for a site key"]
            self._say(200, "application/json", json.dumps({"success": good}))
        elif parts.path == "/sms":
            if self.headers["Authorization"] != f"Bearer {SMS_SECRET}":
                return self._say(401, "text/plain", "")
            self.services.texts.put(json.loads(body)["text"])
            self._say(200, "application/json", "{}")
        elif parts.path == "/cas/login":
            service = parse_qs(parts.query)["service"][0]
            ticket = f"ST-{secrets.token_hex(8)}"
            self.services.tickets[ticket] = service, parse_qs(body)["username"][0]
            self._say(
                302, "text/plain", "", f"{service}{'&' if '?' in service else '?'}{urlencode({'ticket': ticket})}"
            )
        else:
            self._say(404, "text/plain", "")
        return None

    def _say(self, code: int, content_type: str, text: str, location: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text.encode())))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_services() -> Iterator[Services]:
    """The services, until they are no longer needed."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    services = Services(server.server_address[1])
    handler.services = services
    thread = threading.Thread(target=server.serve_forever, name="services", daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
