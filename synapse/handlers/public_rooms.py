"""The published room directory: listing this server's public rooms, page by page. Other servers' lists are asked for
over federation, which is not done here.

Client-server API, "Published room directory".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.errors import invalid_param, not_found
from synapse.handlers.room_summaries import shown
from synapse.storage.rooms import ListedRoom, Place, Search
from synapse.util.batch_tokens import pack, unpack

if TYPE_CHECKING:
    from synapse.storage.rooms import RoomsStore

MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 100


class Filter(msgspec.Struct, frozen=True):
    """`filter` of the request."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class Wish(msgspec.Struct, frozen=True):
    """What of the directory is wanted: the body of the request, or its query."""

    limit: int | None = None
    since: str | None = None
    filter: Filter = Filter()
    include_all_networks: bool = False
    third_party_instance_id: str | None = None
    server: str | None = None


class PublicRooms:
    """Lists rooms."""

    def __init__(self, store: RoomsStore, server_name: str) -> None:
        self._store = store
        self._server_name = server_name

    async def page(self, wish: Wish) -> dict[str, Any]:
        """A page of the list, the largest rooms first, with the tokens of the pages before and after it.

        Raises M_INVALID_PARAM for a token that is not ours, M_NOT_FOUND for another server's list.
        """
        if wish.server not in (None, self._server_name):
            raise not_found("This server cannot ask others for their rooms yet; leave 'server' out.")
        search = Search(wish.filter.generic_search_term, wish.filter.room_types)
        total = await self._store.count_listed(search)
        result: dict[str, Any] = {"chunk": [], "total_room_count_estimate": total}
        if wish.third_party_instance_id is not None and not wish.include_all_networks:
            return {**result, "total_room_count_estimate": 0}  # no bridge has published a list here
        limit = DEFAULT_PAGE if wish.limit is None else wish.limit
        if limit < 0:
            raise invalid_param("'limit' must not be negative.")
        if limit == 0:
            return result
        await self._fill(result, search, min(limit, MAX_PAGE), wish.since)
        return result

    async def _fill(self, result: dict[str, Any], search: Search, limit: int, since: str | None) -> None:
        backwards, place = (False, None) if since is None else _parse(since)
        after, before = (None, place) if backwards else (place, None)
        rooms = await self._store.listed(search, limit + 1, after=after, before=before)
        more = len(rooms) > limit
        rooms = rooms[-limit:] if backwards else rooms[:limit]
        result["chunk"] = [shown(room) for room in rooms]
        if rooms and (more or backwards):
            result["next_batch"] = _token("n", rooms[-1])
        if rooms and (place is not None and (more or not backwards)):
            result["prev_batch"] = _token("p", rooms[0])


def _token(direction: str, room: ListedRoom) -> str:
    return pack(direction, room.joined_members, room.room_id)


def _parse(token: str) -> tuple[bool, Place]:
    """Whether the token leads backwards, and from which place."""
    values = unpack(token, str, int, str)
    if values is None or values[0] not in ("n", "p") or abs(values[1]) >= 2**31:
        raise invalid_param("'since' is not a token of this list.")
    direction, members, room_id = values
    return direction == "p", Place(members, room_id)
