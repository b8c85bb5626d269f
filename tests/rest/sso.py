"""People with browsers, who log in to a server by identity providers that run as processes of their own."""

from __future__ import annotations

import html
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from synapse.http.server import RawRequest
from synapse.storage.database import Database
from tests.rest.accounts import Server
from tests.rest.driver import Reply, _reply
from tests.support.reactor import HeldReactor, real_reactor

BASE = "https://hs.test"
CLIENT = "https://client.test/?p=http%3A%2F%2Fserver"
LOGIN = "/_matrix/client/v3/login/sso/redirect"


class Impatient(HeldReactor):
    """Tells the time that the test holds, but does not wait for it: for requests that must fail by themselves."""

    def callLater(self, delay: float, what: Any, *args: Any, **kw: Any) -> Any:
        return real_reactor().callLater(delay, what, *args, **kw)


def server_with(database: Database, *, reactor: HeldReactor | None = None, **options: Any) -> Server:
    """A server that reaches others."""
    return Server(database, reactor=reactor or HeldReactor(), public_baseurl=BASE, **options)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Browser:
    """Follows links, keeps the server's cookies, fills in forms."""

    def __init__(self, server: Server, address: str = "198.51.100.1") -> None:
        self.server = server
        self.address = address
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []
        self.url = ""

    async def get(self, url: str, **query: str) -> Reply:
        """One request; a path is the server's."""
        return await self._ask("GET", url + ("?" + urlencode(query) if query else ""), b"")

    async def post(self, url: str, form: dict[str, Any]) -> Reply:
        return await self._ask("POST", url, urlencode(form, doseq=True).encode())

    async def follow(self, reply: Reply) -> Reply:
        """The page to which redirects lead, or the first URL that is neither the server's nor a provider's."""
        while reply.code in (302, 303) and not reply.headers["location"].startswith("https://client.test"):
            reply = await self.get(reply.headers["location"])
        return reply

    async def log_in(self, provider: str = "", url: str = CLIENT) -> Reply:
        """From a client's link to where it ends."""
        return await self.follow(await self.get(LOGIN + (f"/{provider}" if provider else ""), redirectUrl=url))

    async def _ask(self, method: str, url: str, body: bytes) -> Reply:
        self.url = url
        if url.startswith("http://127.0.0.1:"):
            return _elsewhere(url, body or None)
        headers = {"host": "hs.test"}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        raw = RawRequest(method, url.removeprefix(BASE), headers, body, client_ip=self.address)
        answer = await self.server.driver.router.handle(raw)
        for name, value in answer.headers:
            if name == "Set-Cookie":
                self.set_cookies.append(value)
                key, _, secret = value.partition(";")[0].partition("=")
                self.cookies[key] = secret
        return _reply(answer)


def _elsewhere(url: str, body: bytes | None) -> Reply:
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(url, body, timeout=10) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def text(reply: Reply, element: str) -> str:
    """What stands in the page's element of that id."""
    found = re.search(rf'id="{element}"[^>]*>(.*?)</', reply.body.decode(), re.DOTALL)
    assert found is not None, reply.body.decode()
    return html.unescape(re.sub(r"<[^>]*>", "", found[1])).strip()


def fields(reply: Reply) -> dict[str, list[str]]:
    """The fields of the page's form with their values, boxes as they are ticked."""
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", reply.body.decode()):
        attributes = {name: html.unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        found.setdefault(attributes["name"], []).append(attributes.get("value", ""))
    return found


def login_token(reply: Reply) -> str:
    """The token that leads back to the client: in a redirect, or in the page that asks first."""
    if reply.code == 302:
        url = reply.headers["location"]
    else:
        found = re.search(r'id="continue" href="([^"]*)"', reply.body.decode())
        assert found is not None, reply.body.decode()
        url = html.unescape(found[1])
    (token,) = parse_qs(urlsplit(url).query)["loginToken"]
    return token


async def redeem(server: Server, token: str) -> Reply:
    """Logs in as a client would."""
    return await server.call("POST", "/login", {"type": "m.login.token", "token": token})


async def user_of(server: Server, reply: Reply) -> str:
    """Who was logged in."""
    done = await redeem(server, login_token(reply))
    assert done.code == 200, done
    return str(done.json["user_id"])
