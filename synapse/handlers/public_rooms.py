"""The published room directory: listing this server's public rooms, page by page. Other servers are asked for theirs.

Client-server API, "Published room directory".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from synapse.api.errors import invalid_param, missing_token
from synapse.api.identifiers import is_server_name
from synapse.handlers.room_summaries import shown
from synapse.storage.rooms import ListedRoom, Place, Search
from synapse.util.batch_tokens import pack, unpack

if TYPE_CHECKING:
    from synapse.handlers.federated_rooms import FederatedRooms
    from synapse.http.request import Requester
    from synapse.storage.rooms import RoomsStore

MAX_PAGE: Final = 500
"""Also where no limit is given: who gives none wants the whole list."""
MAX_TERM: Final = 256  # characters
MAX_TYPES: Final = 100


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
    """Lists rooms.

    :param enabled: whether the list can be read at all; if not, it looks empty.
    :param without_account: whether it can be read by people who have no account.
    """

    def __init__(
        self,
        store: RoomsStore,
        server_name: str,
        elsewhere: FederatedRooms,
        *,
        enabled: bool = True,
        without_account: bool = True,
    ) -> None:
        self._elsewhere = elsewhere
        self._store = store
        self._server_name = server_name
        self._enabled = enabled
        self._without_account = without_account

    async def page(self, requester: Requester | None, wish: Wish) -> dict[str, Any]:
        """A page of the list, the largest rooms first, with the tokens of the pages before and after it.

        Raises M_INVALID_PARAM for a token that is not ours; 401 M_MISSING_TOKEN for those without an account where the
        list is not for them, or is another server's; of such a list what that server says, 502 and 504 where it cannot
        be asked.
        """
        if requester is None and not self._without_account:
            raise missing_token()
        if wish.server is not None and wish.server != self._server_name:
            if not is_server_name(wish.server):
                raise invalid_param("'server' is not the name of a server.")
            if requester is None:
                raise missing_token("Other servers' lists are asked for on behalf of those who have an account here.")
            limit = _limit_of(wish)
            theirs = replace(wish, server=None, since=wish.since or None)
            return await self._elsewhere.page(wish.server, theirs, min(limit, MAX_PAGE))
        return await self.own_page(wish)

    async def own_page(self, wish: Wish, *, for_others: bool = False) -> dict[str, Any]:
        """The same of this server's list, for whoever may read it; or `for_others`, whose users can take part in rooms
        that federate alone."""
        limit = _limit_of(wish)
        search = Search(wish.filter.generic_search_term or None, wish.filter.room_types, for_others)
        # No bridge has published a list of its own here.
        if not self._enabled or wish.third_party_instance_id is not None:
            return {"chunk": [], "total_room_count_estimate": 0}
        result: dict[str, Any] = {"chunk": [], "total_room_count_estimate": await self._store.count_listed(search)}
        if limit == 0:
            return result
        await self._fill(result, search, min(limit, MAX_PAGE), wish.since or None)
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


def _limit_of(wish: Wish) -> int:
    """How many rooms are wanted. Raises M_INVALID_PARAM for what cannot be."""
    if wish.include_all_networks and wish.third_party_instance_id is not None:
        raise invalid_param("With 'include_all_networks', there can be no 'third_party_instance_id'.")
    if len(wish.filter.generic_search_term or "") > MAX_TERM or len(wish.filter.room_types or ()) > MAX_TYPES:
        raise invalid_param(f"A search has at most {MAX_TERM} characters and {MAX_TYPES} types of rooms.")
    limit = MAX_PAGE if wish.limit is None else wish.limit
    if limit < 0:
        raise invalid_param("'limit' must not be negative.")
    return limit


def _token(direction: str, room: ListedRoom) -> str:
    return pack(direction, room.joined_members, room.room_id)


def _parse(token: str) -> tuple[bool, Place]:
    """Whether the token leads backwards, and from which place."""
    values = unpack(token, str, int, str)
    if values is None or values[0] not in ("n", "p") or abs(values[1]) >= 2**31:
        raise invalid_param("'since' is not a token of this list.")
    direction, members, room_id = values
    return direction == "p", Place(members, room_id)
