"""Room aliases, and whether a room is listed in the directory. What is known of other servers is `Elsewhere`.

Client-server API, "Room aliases", "Published room directory".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.api.errors import Codes, MatrixError, forbidden, invalid_param, not_found
from synapse.api.identifiers import parse_room_alias, parse_room_id
from synapse.api.room_versions import room_version
from synapse.events.power_levels import PowerLevels
from synapse.handlers.directory_rules import NO_RULES
from synapse.storage.aliases import Alias

if TYPE_CHECKING:
    from synapse.handlers.directory_rules import DirectoryRules
    from synapse.handlers.event_creation import EventCreation
    from synapse.http.request import Requester
    from synapse.state.store import StateReader
    from synapse.storage.aliases import AliasesStore
    from synapse.storage.rooms import Room, RoomsStore

logger = logging.getLogger(__name__)

_CANONICAL = (EventTypes.CANONICAL_ALIAS, "")


class Located(NamedTuple):
    """What an alias leads to: the room, and servers that are likely to be in it, the best to ask first."""

    room_id: str
    servers: list[str]


class Elsewhere(Protocol):
    """What concerns other servers: `synapse.handlers.federated_aliases`."""

    async def servers_of(self, room_id: str) -> list[str]:
        """Servers in a room: this one first, where it is in it."""

    async def locate(self, alias: str) -> Located:
        """What an alias of another server leads to. Raises 404 M_NOT_FOUND, 502, 504 where it cannot be asked."""


class Aliases:
    """Looks up, makes and removes aliases; lists rooms."""

    def __init__(
        self,
        store: AliasesStore,
        rooms: RoomsStore,
        state: StateReader,
        creation: EventCreation,
        server_name: str,
        elsewhere: Elsewhere,
        rules: DirectoryRules = NO_RULES,
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._state = state
        self._creation = creation
        self._server_name = server_name
        self._elsewhere = elsewhere
        self._rules = rules

    async def locate(self, alias: str) -> Located:
        """What an alias leads to, of whichever server.

        Raises 400 M_INVALID_PARAM, 404 M_NOT_FOUND, 502 and 504 where another server would know and does not answer.
        """
        if parse_room_alias(alias).domain != self._server_name:
            return await self._elsewhere.locate(alias)
        room_id = await self.resolve(alias)
        # Of a room that nobody is in any more, this server is the last to know something.
        return Located(room_id, await self._elsewhere.servers_of(room_id) or [self._server_name])

    async def resolve(self, alias: str) -> str:
        """The room that an alias leads to. Raises as `locate` does."""
        if parse_room_alias(alias).domain != self._server_name:
            return (await self._elsewhere.locate(alias)).room_id
        found = await self._store.get(alias)
        if found is None:
            raise not_found(f"There is no room alias {alias}.")
        return found.room_id

    async def create(self, requester: Requester, alias: str, room_id: str) -> None:
        """Let an alias of this server lead to a room that the requester has joined.

        Raises 409 M_UNKNOWN where it exists, 403 M_FORBIDDEN, 400 M_INVALID_PARAM.
        """
        if parse_room_alias(alias).domain != self._server_name:
            raise invalid_param(f"An alias made here must end in :{self._server_name}.")
        parse_room_id(room_id)
        self._rules.check_namespace(alias, requester.app_service)
        await self._require_joined(requester, room_id)
        if not requester.is_admin:
            self._rules.check_alias(requester.user_id, room_id, alias)
        if not await self._store.create(Alias(alias, room_id, requester.user_id)):
            raise MatrixError(409, Codes.UNKNOWN, f"The room alias {alias} exists already.")

    async def delete(self, requester: Requester, alias: str) -> None:
        """Remove an alias: whoever made it may, whoever may change the room's canonical alias, and administrators."""
        parse_room_alias(alias)
        found = await self._store.get(alias)
        if found is None:
            raise not_found(f"There is no room alias {alias}.")
        self._rules.check_namespace(alias, requester.app_service)
        may_change = await self._may_change_aliases(requester.user_id, found.room_id)
        if not (may_change or requester.is_admin or found.creator == requester.user_id):
            raise forbidden("An alias may be removed by whoever made it, or may change the room's aliases.")
        await self._store.delete(alias)
        if may_change:
            await self._take_out_of_state(requester, found)

    async def of_room(self, requester: Requester, room_id: str) -> list[str]:
        """The aliases of a room that the requester has joined, or that anybody may read."""
        visibility = (EventTypes.HISTORY_VISIBILITY, "")
        state = await self._state.current(room_id, [visibility])
        open_to_all = visibility in state and (
            state[visibility].shown.content.get("history_visibility") == HistoryVisibility.WORLD_READABLE
        )
        if not open_to_all:
            await self._require_joined(requester, room_id)
        return await self._store.of_room(room_id)

    # -- the directory -----------------------------------------------------------------------------------------

    async def is_listed(self, room_id: str) -> bool:
        """Whether the room is in the directory; raises M_NOT_FOUND."""
        return (await self._existing(room_id)).is_public

    async def list_room(self, requester: Requester, room_id: str, is_public: bool) -> None:
        """Put the room into the directory or take it out: for those who may change its canonical alias.

        Raises 404 M_NOT_FOUND, 403 M_FORBIDDEN.
        """
        await self._existing(room_id)
        if not requester.is_admin:
            if not await self._may_change_aliases(requester.user_id, room_id):
                raise forbidden("To list a room, you need the power to change its canonical alias.")
            if is_public:
                aliases = await self._all_aliases(room_id) if self._rules.ask_for_aliases else ()
                self._rules.check_publication(requester.user_id, room_id, aliases)
        await self._rooms.set_public(room_id, is_public)

    # ------------------------------------------------------------------------------------------------------------

    async def _all_aliases(self, room_id: str) -> list[str]:
        """The local aliases of a room, and those that its state names."""
        state = await self._state.current(room_id, [_CANONICAL])
        content = state[_CANONICAL].shown.content if _CANONICAL in state else {}
        named = [content.get("alias"), *(others if isinstance(others := content.get("alt_aliases"), list) else ())]
        return [*await self._store.of_room(room_id), *(alias for alias in named if isinstance(alias, str))]

    async def _existing(self, room_id: str) -> Room:
        room = await self._rooms.get(room_id)
        if room is None:
            raise not_found("There is no such room.")
        return room

    async def _require_joined(self, requester: Requester, room_id: str) -> None:
        member = (EventTypes.MEMBER, requester.user_id)
        state = await self._state.current(room_id, [member])
        if member not in state or state[member].event.membership != Membership.JOIN:
            raise forbidden("You are not in that room, or there is no such room.")

    async def _may_change_aliases(self, user_id: str, room_id: str) -> bool:
        room = await self._rooms.get(room_id)
        if room is None:
            return False
        member = (EventTypes.MEMBER, user_id)
        found = await self._state.current(room_id, [(EventTypes.CREATE, ""), (EventTypes.POWER_LEVELS, ""), member])
        state = {key: stored.event for key, stored in found.items()}
        if member not in state or state[member].membership != Membership.JOIN:
            return False
        levels = PowerLevels.of_state(state, room_version(room.room_version))
        return levels.user(user_id) >= levels.required(EventTypes.CANONICAL_ALIAS, True)

    async def _take_out_of_state(self, requester: Requester, gone: Alias) -> None:
        state = await self._state.current(gone.room_id, [_CANONICAL])
        if _CANONICAL not in state:
            return
        content = dict(state[_CANONICAL].shown.content)
        changed: dict[str, Any] = {key: value for key, value in content.items() if value != gone.alias}
        if isinstance(others := content.get("alt_aliases"), list):
            changed["alt_aliases"] = [alias for alias in others if alias != gone.alias]
        if changed == content:
            return
        try:
            await self._creation.create(requester, gone.room_id, EventTypes.CANONICAL_ALIAS, changed, state_key="")
        except MatrixError as error:  # the alias is gone all the same, which is what was asked for
            logger.info("The alias %s stays in the state of its room %s: %s", gone.alias, gone.room_id, error)
