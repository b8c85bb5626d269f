"""Endpoints that find rooms: those of a space, a single one from outside, those that two users share. Client-server
API, "Spaces", "Room Summary API", "Mutual Rooms"."""

from __future__ import annotations

from typing import Any

from synapse.api.identifiers import parse_room_id
from synapse.handlers.mutual_rooms import MutualRooms
from synapse.handlers.room_summaries import RoomSummaries
from synapse.handlers.spaces import Spaces, Wish
from synapse.http.server import RawJson, Request, serves


class FindingRooms:
    """`/rooms/{roomId}/hierarchy`, `/room_summary/{roomIdOrAlias}`, `/mutual_rooms`."""

    def __init__(self, spaces: Spaces, summaries: RoomSummaries, mutual: MutualRooms) -> None:
        self._spaces = spaces
        self._summaries = summaries
        self._mutual = mutual

    @serves("room_hierarchy")
    async def hierarchy(self, request: Request, room_id: str) -> RawJson:
        wish = Wish(
            request.bool_arg("suggested_only"),
            request.int_arg("max_depth"),
            request.int_arg("limit"),
            request.arg("from"),
        )
        return RawJson(await self._spaces.hierarchy(request.user.user_id, parse_room_id(room_id), wish))

    @serves("room_summary", "room_summary_unstable", "room_summary_oldest")
    async def summary(self, request: Request, room_id_or_alias: str) -> dict[str, Any]:
        user_id = None if request.requester is None else request.requester.user_id
        return await self._summaries.of(user_id, room_id_or_alias, request.args("via"))

    @serves("mutual_rooms")
    async def mutual(self, request: Request) -> dict[str, Any]:
        return await self._mutual.of(request.user.user_id, request.required_arg("user_id"), request.arg("from"))

    @serves("mutual_rooms_unstable")
    async def mutual_unstable(self, request: Request) -> dict[str, Any]:
        """The same before it was specified: clients of today still ask so, and call the token otherwise."""
        token = request.arg("batch_token")
        answer = await self._mutual.of(request.user.user_id, request.required_arg("user_id"), token)
        if "next_batch" in answer:
            answer["next_batch_token"] = answer.pop("next_batch")
        return answer
