"""Upgrading a room: a new one of another version takes its place.

Everything that could be refused is built before anything is written: the new room's events, and the tombstone that
leads to it. Then the new room is written at once, the tombstone after it, and what leads to the old room (aliases, the
directory) leads to the new one; the old room is closed as far as its upgrader has the power to.

What members take along when they join is `handlers.room_succession`. Client-server API, "Room Upgrades".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from synapse.api.constants import EventTypes, GuestAccess, Membership, RoomTypes
from synapse.api.errors import Codes, MatrixError, forbidden, not_found
from synapse.api.identifiers import parse_room_id
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.event import Event
from synapse.events.power_levels import creators_of
from synapse.handlers.event_content import aliases_in
from synapse.handlers.event_creation import Draft
from synapse.handlers.room_plan import PlannedState, checked_creators
from synapse.handlers.upgrade_levels import (
    TRANSFERRED,
    carried_over,
    closed,
    for_founding,
    supported_join_rules,
    tombstone_of,
)
from synapse.state.filters import StateFilter
from synapse.storage.persist_events import NewRoom

if TYPE_CHECKING:
    from synapse.handlers.event_creation import EventCreation
    from synapse.handlers.new_rooms import NewRooms, RoomBuilder
    from synapse.handlers.room_succession import RoomSuccession
    from synapse.http.request import Requester
    from synapse.state.store import StateReader
    from synapse.storage.aliases import AliasesStore
    from synapse.storage.events import EventsStore
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist_events import Request
    from synapse.storage.rooms import Room, RoomsStore
    from synapse.sync.breath import Breath
    from synapse.sync.shared import SharedWork

logger = logging.getLogger(__name__)

MAX_BANS: Final = 1_000
"""Bans that are carried over, the latest ones: each is an event to be signed and written."""

MAX_CHILDREN: Final = 400
"""Children of a space that are carried over."""

_WITHOUT: Final = {EventTypes.GUEST_ACCESS: {"guest_access": GuestAccess.FORBIDDEN}}
"""What holds in a room without such an event, and is said in the new one: recommended to be carried over."""

_CREATE: Final = (EventTypes.CREATE, "")
_POWER_LEVELS: Final = (EventTypes.POWER_LEVELS, "")
_CANONICAL: Final = (EventTypes.CANONICAL_ALIAS, "")
_CANNOT_BE: Final = frozenset({Codes.BAD_JSON, Codes.TOO_LARGE, Codes.INVALID_PARAM, Codes.INVALID_ROOM_STATE})


class UpgradeRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/upgrade`."""

    new_version: str
    additional_creators: list[str] = msgspec.field(default_factory=list)


class Stores(NamedTuple):
    """What an upgrade reads and moves."""

    rooms: RoomsStore
    aliases: AliasesStore
    members: MembershipsStore
    invitees: InviteesStore
    events: EventsStore


class _Old(NamedTuple):
    """The room that is upgraded."""

    room: Room
    create: Event
    state: dict[tuple[str, str], dict[str, Any]]  # contents, as they may be shown
    bans: list[Event]
    aliases: list[str]

    @property
    def version(self) -> RoomVersion:
        return self.create.room_version


class RoomUpgrade:
    """Upgrades rooms.

    :param breath: lets others have a turn while many events are built.
    :param shared: remembers upgrades for a while: a client that lost the answer, and asks again, must not get another
        room.
    """

    def __init__(
        self,
        creation: EventCreation,
        rooms: NewRooms,
        state: StateReader,
        stores: Stores,
        succession: RoomSuccession,
        breath: Breath,
        shared: SharedWork[str],
    ) -> None:
        self._creation = creation
        self._rooms = rooms
        self._state = state
        self._stores = stores
        self._succession = succession
        self._breath = breath
        self._shared = shared

    async def upgrade(self, requester: Requester, room_id: str, wish: UpgradeRoom) -> str:
        """Replace the room; the id of the new one, also if the same was asked a moment ago.

        Raises 400 M_UNSUPPORTED_ROOM_VERSION, M_BAD_JSON; 404 M_NOT_FOUND for a room that is not known here, and 403
        M_FORBIDDEN for whoever may not send its tombstone.
        """
        key = (requester.user_id, room_id, wish.new_version, *wish.additional_creators)
        return await self._shared.do(key, lambda: self._upgrade(requester, room_id, wish))

    async def _upgrade(self, requester: Requester, room_id: str, wish: UpgradeRoom) -> str:
        parse_room_id(room_id)
        version = room_version(wish.new_version)
        creators = checked_creators(wish.additional_creators) if version.privileged_creators else []
        old = await self._read(room_id)
        builder = self._rooms.begin(version, requester.user_id, MAX_BANS + MAX_CHILDREN + 100)
        create = _create_content(old, version, requester.user_id, creators)
        if version.room_id_from_create:
            builder.add(EventTypes.CREATE, "", create)
            tombstone = await self._tombstone(requester, room_id, builder.room_id)
        else:
            tombstone = await self._tombstone(requester, room_id, builder.room_id)
            create["predecessor"]["event_id"] = tombstone.events[0].event.event_id
            builder.add(EventTypes.CREATE, "", create)
        await self._furnish(builder, requester, old)
        await self._rooms.write(builder, NewRoom(requester.user_id, old.room.is_public))
        await self._creation.finish(tombstone)
        await self._move(requester, old, builder.room_id)
        return builder.room_id

    async def _read(self, room_id: str) -> _Old:
        room = await self._stores.rooms.get(room_id)
        if room is None:
            raise not_found("This server does not know that room.")
        await self._creation.refresh(room_id)
        keys = [_CREATE, _POWER_LEVELS, _CANONICAL, *((event_type, "") for event_type in TRANSFERRED)]
        state = await self._state.current(room_id, keys)
        if _CREATE not in state:
            raise forbidden("You are not in that room, or there is no such room.")
        create = state[_CREATE].event
        if create.content.get("type") == RoomTypes.SPACE:
            state.update(await self._state.current(room_id, StateFilter.of(EventTypes.SPACE_CHILD)))
        banned = await self._stores.members.banned(room_id, MAX_BANS)
        bans = [stored.event for stored in (await self._stores.events.get_many(banned)).values()]
        contents = {key: dict(stored.shown.content) for key, stored in state.items()}
        return _Old(room, create, contents, bans, await self._stores.aliases.of_room(room_id))

    async def _tombstone(self, requester: Requester, old_id: str, new_id: str) -> Request:
        draft = Draft(old_id, requester.user_id, EventTypes.TOMBSTONE, tombstone_of(new_id), "")
        return await self._creation.prepare(draft)

    # -- the new room ------------------------------------------------------------------------------------------------

    async def _furnish(self, builder: RoomBuilder, requester: Requester, old: _Old) -> None:
        """Everything after the create event."""
        profile = (await self._stores.invitees.get(requester.user_id)).as_json()
        builder.add(EventTypes.MEMBER, requester.user_id, {**profile, "membership": Membership.JOIN})
        create = builder.events[0]
        levels = carried_over(
            _levels_of(old), old.version, builder.version, creators_of(old.create), creators_of(create)
        )
        banned = [ban.state_key or "" for ban in old.bans]
        founding = for_founding(levels, builder.version, requester.user_id, banned)
        builder.add(*_POWER_LEVELS, founding)
        for planned in _transferred(old, builder.version):
            self._add(builder, old, planned)
        for ban in old.bans:
            if ban.state_key is not None and ban.state_key != requester.user_id:
                self._add(builder, old, PlannedState(EventTypes.MEMBER, ban.state_key, _ban_content(ban)))
                await self._breath.after(10)
        if founding != levels:
            builder.add(*_POWER_LEVELS, levels)

    def _add(self, builder: RoomBuilder, old: _Old, planned: PlannedState) -> None:
        """Adds what the new room's version can hold, and its levels allow."""
        try:
            builder.add(*planned)
        except MatrixError as error:
            if error.errcode not in _CANNOT_BE:
                raise
            logger.info("%s in %s cannot be in its successor: %s", planned.type, old.room.room_id, error.message)

    # -- the old room ------------------------------------------------------------------------------------------------

    async def _move(self, requester: Requester, old: _Old, new_id: str) -> None:
        """What led to the old room leads to the new one. What its upgrader has no power over stays."""
        old_id = old.room.room_id
        await self._stores.aliases.move(old_id, new_id)
        if old.room.is_public:
            await self._stores.rooms.set_public(old_id, False)
        if old.state.get(_CANONICAL):
            with suppress(MatrixError):
                await self._creation.create(requester, old_id, EventTypes.CANONICAL_ALIAS, {}, state_key="")
        levels = _levels_of(old)
        if (restricted := closed(levels, old.version)) != levels:
            with suppress(MatrixError):
                await self._creation.create(requester, old_id, EventTypes.POWER_LEVELS, restricted, state_key="")
        await self._succession.carry(requester.user_id, old_id, new_id)


def _levels_of(old: _Old) -> dict[str, Any]:
    """The old room's power levels; where it has none, what holds then."""
    if _POWER_LEVELS in old.state:
        return old.state[_POWER_LEVELS]
    return {"users": dict.fromkeys(creators_of(old.create), 100)}


def _create_content(old: _Old, version: RoomVersion, founder: str, additional_creators: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "room_version": version.identifier,
        "predecessor": {"room_id": old.room.room_id},
    }
    for name in ("type", "m.federate"):
        if name in old.create.content:
            content[name] = old.create.content[name]
    if not version.implicit_creator:
        content["creator"] = founder
    others = [user_id for user_id in dict.fromkeys(additional_creators) if user_id != founder]
    if others:
        content["additional_creators"] = others
    return content


def _transferred(old: _Old, version: RoomVersion) -> Iterator[PlannedState]:
    for event_type in TRANSFERRED:
        content = old.state.get((event_type, ""), _WITHOUT.get(event_type))
        if content is not None:
            transferred = supported_join_rules(content, version) if event_type == EventTypes.JOIN_RULES else content
            yield PlannedState(event_type, "", transferred)
    children = [item for item in old.state.items() if item[0][0] == EventTypes.SPACE_CHILD and _is_child(item[1])]
    for (event_type, state_key), content in children[:MAX_CHILDREN]:
        yield PlannedState(event_type, state_key, content)
    if (canonical := _moved_aliases(old)) is not None:
        yield PlannedState(*_CANONICAL, canonical)


def _is_child(content: dict[str, Any]) -> bool:
    """Whether an m.space.child is in force (client-server API, "Spaces")."""
    via = content.get("via")
    return isinstance(via, list) and len(via) > 0


def _moved_aliases(old: _Old) -> dict[str, Any] | None:
    """The canonical alias as it is true of the new room, to which the aliases of this server will lead."""
    content = old.state.get(_CANONICAL, {})
    try:
        wanted = [alias for alias in aliases_in(content) if alias in old.aliases]
    except MatrixError:
        return None
    moved = dict(content)
    if "alias" in moved and moved["alias"] not in wanted:
        del moved["alias"]
    if "alt_aliases" in moved:
        moved["alt_aliases"] = [alias for alias in moved["alt_aliases"] if alias in wanted]
    return moved if wanted else None


def _ban_content(ban: Event) -> dict[str, Any]:
    kept = {name: ban.content[name] for name in ("displayname", "avatar_url", "reason") if name in ban.content}
    return {**{name: value for name, value in kept.items() if isinstance(value, str)}, "membership": Membership.BAN}
