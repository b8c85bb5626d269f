"""`/_matrix/key/v2/server`: this server's own keys."""

from __future__ import annotations

from synapse.handlers.server_keys import ServerKeys
from synapse.http.server import RawJson, Request, serves


class KeyServer:
    """Publishes the keys. A key id in the path, which old servers send, changes nothing: they are all in the answer."""

    def __init__(self, keys: ServerKeys) -> None:
        self._keys = keys

    @serves("server_keys")
    async def own_keys(self, request: Request, key_id: str) -> RawJson:
        return RawJson(self._keys.published())
