"""Endpoints by which other servers look things up: profiles, aliases, public rooms, spaces, events by time.

Server-server API, "Querying for information", "Published Room Directory", "Spaces", "Retrieving events".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.errors import missing_param, not_found
from synapse.handlers.public_rooms import Wish
from synapse.handlers.served_lookups import ServedLookups
from synapse.handlers.spaces import Spaces
from synapse.http.server import RawJson, Request, serves

_LATEST: Final = 2**53


class FederationQueries:
    """`/query/{queryType}` and `/publicRooms`."""

    def __init__(self, lookups: ServedLookups) -> None:
        self._lookups = lookups

    @serves("federation_query")
    async def query(self, request: Request, query_type: str) -> dict[str, Any]:
        if query_type == "profile":
            return await self._lookups.profile(request.required_arg("user_id"), request.arg("field"))
        if query_type == "directory":
            return await self._lookups.directory(request.required_arg("room_alias"))
        raise not_found("This server knows the queries 'profile' and 'directory', and no others.")

    @serves("federation_public_rooms")
    async def public_rooms(self, request: Request) -> dict[str, Any]:
        wish = Wish(
            limit=request.int_arg("limit"),
            since=request.arg("since"),
            include_all_networks=request.bool_arg("include_all_networks"),
            third_party_instance_id=request.arg("third_party_instance_id"),
        )
        return await self._lookups.public_rooms(_unlimited(wish))

    @serves("federation_public_rooms_search")
    async def search(self, request: Request) -> dict[str, Any]:
        return await self._lookups.public_rooms(_unlimited(request.body_as(Wish)))


class FederationFinding:
    """`/hierarchy/{roomId}` and `/timestamp_to_event/{roomId}`."""

    def __init__(self, spaces: Spaces, lookups: ServedLookups) -> None:
        self._spaces = spaces
        self._lookups = lookups

    @serves("federation_hierarchy")
    async def hierarchy(self, request: Request, room_id: str) -> RawJson:
        suggested_only = request.bool_arg("suggested_only")
        return RawJson(await self._spaces.served(request.origin, room_id, suggested_only))

    @serves("federation_timestamp_to_event")
    async def timestamp_to_event(self, request: Request, room_id: str) -> dict[str, Any]:
        timestamp = request.int_arg("ts", None, -_LATEST, _LATEST)
        if timestamp is None:
            raise missing_param("ts")
        backwards = request.choice_arg("dir", ("f", "b")) == "b"
        return await self._lookups.nearest_event(request.origin, room_id, timestamp, backwards=backwards)


def _unlimited(wish: Wish) -> Wish:
    """Between servers, a limit of 0 is none. Whose list is wanted goes without saying."""
    return msgspec.structs.replace(wish, limit=wish.limit or None, server=None)
