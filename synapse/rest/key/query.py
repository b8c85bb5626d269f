"""`/_matrix/key/v2/query`: the keys of other servers, as this one knows them."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.constants import MAX_INT
from synapse.api.errors import bad_json
from synapse.federation.notary import ANY, Notary
from synapse.http.server import Request, serves


class Criteria(msgspec.Struct):
    """Until when a key should be valid, in milliseconds."""

    minimum_valid_until_ts: int | None = None


class Query(msgspec.Struct):
    """By server and key id."""

    server_keys: dict[str, dict[str, Criteria]]


class KeyQuery:
    """Serves as a notary."""

    def __init__(self, notary: Notary) -> None:
        self._notary = notary

    @serves("notary_query")
    async def query(self, request: Request) -> dict[str, Any]:
        asked = request.body_as(Query)
        wanted = {
            server: {key_id: _until(criteria.minimum_valid_until_ts) for key_id, criteria in keys.items()}
            for server, keys in asked.server_keys.items()
        }
        return {"server_keys": await self._notary.query(wanted)}

    @serves("notary_query_of")
    async def query_of(self, request: Request, server_name: str, key_id: str) -> dict[str, Any]:
        until = request.int_arg("minimum_valid_until_ts", None, 0, MAX_INT)
        # Older servers name a key; without one, any will do that is valid for so long.
        return {"server_keys": await self._notary.query({server_name: {key_id or ANY: until}})}


def _until(until: int | None) -> int | None:
    if until is not None and not 0 <= until <= MAX_INT:
        raise bad_json(f"'minimum_valid_until_ts' must lie between 0 and {MAX_INT}.")
    return until
