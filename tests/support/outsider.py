"""What one server of a federation does by hand, where a test wants it done wrong: requests signed as its own, and
events made of another's templates.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from synapse.api.room_versions import room_version
from synapse.events.builder import seal
from synapse.events.canonical import encode_lenient
from synapse.events.event import Event
from synapse.federation.client import authorization
from tests.support.two_servers import Network

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


class Outsider:
    """The server `name` as it asks the server `of`."""

    def __init__(self, net: Network, name: str, of: str) -> None:
        self._net = net
        self._short = name
        hs, asked = net[name].hs, net[of].hs
        self.name = hs.config.server.server_name
        self.of = asked.config.server.server_name
        self.key = hs.rooms.signer.key

    def user(self, name: str) -> str:
        return f"@{name}:{self.name}"

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer of a signed request."""
        signature = authorization(self.name, self.key, self.of, method, path, body)
        headers = {"authorization": signature, "content-type": "application/json", "host": self.of}
        sent = None if body is None else encode_lenient(body)
        answer = await self._net.carry(self._short, method, f"https://{self.of}{path}", sent, headers)
        return answer.code, orjson.loads(answer.body)

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Status and errcode of what must fail; every error has a sentence."""
        code, answer = await self.ask(method, path, body)
        assert code >= 400, answer
        assert answer["error"].endswith("."), answer
        return code, answer["errcode"]

    async def template(self, membership: str, room: str, user: str, *versions: str) -> dict[str, Any]:
        """What `make_join` and its like give."""
        code, answer = await self.ask("GET", self.template_path(membership, room, user, *versions))
        assert code == 200, answer
        return dict(answer)

    def template_path(self, membership: str, room: str, user: str, *versions: str) -> str:
        query = "&".join(f"ver={version}" for version in versions)
        return f"{V1}/make_{membership}/{quote(room, safe='')}/{quote(user, safe='')}{'?' if query else ''}{query}"

    def sealed(self, template: dict[str, Any], **changes: Any) -> Event:
        """The event of a template, with some fields changed, hashed and signed by this server."""
        version = room_version(template["room_version"])
        raw = {**template["event"], **changes}
        if version.identifier in ("1", "2"):
            raw.setdefault("event_id", f"$made-{len(self._net.asked)}:{self.name}")
        return seal(raw, version, self.name, self.key)

    def path(self, what: str, event: Event, version: str = V2) -> str:
        """Where the event is brought: `what` is `send_join` or its like."""
        return f"{version}/{what}/{quote(event.room_id, safe='')}/{quote(event.event_id, safe='')}"
