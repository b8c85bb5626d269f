"""Requests to other servers: found by their names, and signed as this server's.

Server-server API, "Request Authentication".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.events import canonical
from synapse.events.signing import key_id_of

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.federation.discovery import Discovery
    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient


class FederationClient:
    """Sends requests in the name of this server."""

    def __init__(self, server_name: str, key: SigningKey, discovery: Discovery, client: OutsideClient) -> None:
        self._server_name = server_name
        self._key = key
        self._discovery = discovery
        self._client = client

    async def request(
        self, destination: str, method: str, path: str, content: dict[str, Any] | None = None, *, within: float = 30.0
    ) -> ClientAnswer:
        """The answer of the server `destination`, whatever its status. `path` begins with `/_matrix/`, its query
        included. Raises ClientError."""
        target = await self._discovery.find(destination)
        headers = (
            ("Host", target.header),
            ("Authorization", authorization(self._server_name, self._key, destination, method, path, content)),
            ("Content-Type", "application/json"),
        )
        return await self._client.request(
            method,
            f"https://{target.name}:{target.port}{path}",
            None if content is None else canonical.encode_lenient(content),
            headers,
            within=within,
            connect_to=target.host if target.host != target.name else None,
        )


def authorization(
    server_name: str, key: SigningKey, destination: str, method: str, path: str, content: dict[str, Any] | None
) -> str:
    """The header `Authorization` of a request that `server_name` signs, to another server or an identity server."""
    from signedjson.sign import sign_json

    signed: dict[str, Any] = {"method": method, "uri": path, "origin": server_name, "destination": destination}
    if content is not None:
        signed["content"] = content
    sign_json(signed, server_name, key)
    key_id = key_id_of(key)
    signature = signed["signatures"][server_name][key_id]
    return f'X-Matrix origin="{server_name}",destination="{destination}",key="{key_id}",sig="{signature}"'
