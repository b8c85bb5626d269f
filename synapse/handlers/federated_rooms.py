"""The room directories of other servers, asked for when a user wants to look into one.

Server-server API, "Published Room Directory".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.constants import MAX_INT
from synapse.federation.errors import FederationError, matrix_error
from synapse.handlers.room_summaries import shown
from synapse.handlers.told_rooms import listed_room

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.handlers.public_rooms import Wish
    from synapse.sync.shared import SharedWork

KEEP_SECONDS: Final = 30.0
KEPT: Final = 100
"""Pages that are remembered for so long."""
MAX_TOKEN: Final = 5_000  # characters


class FederatedRooms:
    """Answers in any process.

    :param shared: keeps answers for a short time.
    """

    def __init__(self, api: FederationApi, shared: SharedWork[dict[str, Any]]) -> None:
        self._api = api
        self._shared = shared

    async def page(self, server: str, wish: Wish, limit: int) -> dict[str, Any]:
        """A page of the server's list, of `limit` rooms at most. Raises what the server answers, 502 and 504 where it
        cannot be asked."""
        key = (server, limit, msgspec.json.encode(wish))
        return await self._shared.do(key, lambda: self._ask(server, wish, limit))

    async def _ask(self, server: str, wish: Wish, limit: int) -> dict[str, Any]:
        search = {
            "generic_search_term": wish.filter.generic_search_term,
            "room_types": wish.filter.room_types,
        }
        try:
            found = await self._api.for_users.public_rooms(
                server,
                limit=max(limit, 1),  # between servers, a limit of 0 is none
                since=wish.since,
                search={name: value for name, value in search.items() if value is not None},
                include_all_networks=wish.include_all_networks,
                third_party_instance_id=wish.third_party_instance_id,
            )
        except FederationError as error:
            raise matrix_error(error) from error
        rooms = [room for said in found.chunk[:limit] if (room := listed_room(said)) is not None]
        answer: dict[str, Any] = {"chunk": [shown(room) for room in rooms]}
        for name in ("next_batch", "prev_batch"):
            token = getattr(found, name)
            if token is not None and len(token) <= MAX_TOKEN and limit:
                answer[name] = token
        if found.total_room_count_estimate is not None:
            answer["total_room_count_estimate"] = min(max(found.total_room_count_estimate, 0), MAX_INT)
        return answer
