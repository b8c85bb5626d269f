"""The endpoint that tells clients of an OAuth 2.0 authorization server. Client-server API, `GET /auth_metadata`."""

from __future__ import annotations

from synapse.handlers.oauth_metadata import KEPT, OAuthMetadata
from synapse.http.answers import RawJson, encode_json
from synapse.http.server import Request, serves


class AuthMetadata:
    """`/auth_metadata`."""

    def __init__(self, metadata: OAuthMetadata) -> None:
        self._metadata = metadata

    @serves("auth_metadata")
    async def get(self, request: Request) -> RawJson:
        found = await self._metadata.get()
        return RawJson(encode_json(found), headers=(("Cache-Control", f"public, max-age={KEPT}"),))
