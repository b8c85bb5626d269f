"""What users want of rooms that this server takes no part in: whom to ask, and what they say there.

Works in any process; joining itself is the main process's. Whoever is refused here is refused by what another server
says, by what this one knows of the user's own invite, or because there is no server to ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden
from synapse.api.identifiers import domain_of
from synapse.events.power_levels import PowerLevels
from synapse.federation.hosts import by_size
from synapse.handlers.remote.candidates import (
    able_to_invite,
    candidates,
    candidates_for,
    server_of_room,
    servers_of_stripped,
)
from synapse.handlers.remote.joining import JOIN, Join

if TYPE_CHECKING:
    from synapse.events.event import Event
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.event_creation import Draft, EventCreation
    from synapse.handlers.remote.aside import Aside
    from synapse.handlers.remote.inviting import Inviting
    from synapse.push.bulk import RoomMembers
    from synapse.replication.calls import MainProcess
    from synapse.state.heads import RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.events import EventsStore
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist_events import Persisted

_CREATE: Final = (EventTypes.CREATE, "")
_POWER_LEVELS: Final = (EventTypes.POWER_LEVELS, "")
_PENDING: Final = frozenset({Membership.INVITE, Membership.KNOCK})


class RemoteMemberships:
    """Has others help.

    :param main: the way to whoever joins: `handlers.remote.joining`.
    :param aside, inviting: made when somebody needs them.
    :param caught_up: waits until this process has heard of what was written.
    """

    def __init__(
        self,
        main: MainProcess,
        aside: Callable[[], Aside],
        inviting: Callable[[], Inviting],
        creation: EventCreation,
        heads: RoomHeads,
        members: RoomMembers,
        state: StateReader,
        events: EventsStore,
        store: MembershipsStore,
        hosts: RoomHosts,
        server_name: str,
        caught_up: Callable[[int], Awaitable[None]],
    ) -> None:
        self._main = main
        self._aside = aside
        self._inviting = inviting
        self._creation = creation
        self._heads = heads
        self._members = members
        self._state = state
        self._events = events
        self._store = store
        self._hosts = hosts
        self._server_name = server_name
        self._caught_up = caught_up

    async def is_elsewhere(self, room_id: str) -> bool:
        """Whether only others can change memberships of the room: nobody of this server is in it, and it is not a room
        that has died here. No statement for rooms that somebody here is known to be in."""
        if (await self._members.get(room_id)).local:
            return False
        await self._creation.refresh(room_id)
        if await self._heads.get(room_id) is None:
            return True
        self._members.forget(room_id)
        members = await self._members.get(room_id)
        return not members.local and members.count > 0

    # -- coming --------------------------------------------------------------------------------------------------------

    async def join(self, user_id: str, room_id: str, content: Mapping[str, Any], named: Sequence[str]) -> bool:
        """Has the user come in, with the help of the servers that are named, or known to be good for it. False where
        somebody of this server came in meanwhile, so that the user can join like any other."""
        wish = Join(
            room_id=room_id,
            user_id=user_id,
            content=dict(content),
            servers=await self._candidates(user_id, room_id, named),
        )
        joined = await self._main(JOIN, wish)
        await self._caught_up(joined.position)
        return not joined.is_here

    async def join_vouched(self, user_id: str, room_id: str, content: Mapping[str, Any], named: Sequence[str]) -> bool:
        """Has the user come into a room that this server is in, by another one that can vouch for it. False where there
        is none to ask."""
        servers = candidates(self._server_name, named, await self._able(room_id), await self._present(room_id))
        if not servers:
            return False
        wish = Join(room_id=room_id, user_id=user_id, content=dict(content), servers=servers, vouched=True)
        joined = await self._main(JOIN, wish)
        await self._caught_up(joined.position)
        return True

    async def knock(self, user_id: str, room_id: str, content: Mapping[str, Any], named: Sequence[str]) -> None:
        """Has the user knock."""
        servers = await self._candidates(user_id, room_id, named)
        await self._caught_up(await self._aside().knock(room_id, user_id, content, servers))

    async def invite(self, draft: Draft) -> Persisted:
        """Invites another server's user; see `handlers.remote.inviting`."""
        return await self._inviting().invite(draft)

    # -- going ---------------------------------------------------------------------------------------------------------

    async def leave(self, user_id: str, room_id: str, content: Mapping[str, Any]) -> None:
        """Refuses an invite, or takes back a knock. Whoever has left already stays so. Raises 403 M_FORBIDDEN for those
        who never had to do with the room, and who are banned from it."""
        own = await self._store.of_user(user_id, room_id)
        if own is None:
            raise forbidden("You are not in that room, or there is no such room.")
        if own.membership == Membership.LEAVE:
            return
        stored = await self._events.get(own.event_id) if own.membership in _PENDING else None
        if stored is None:
            raise forbidden("You are banned from that room.")
        servers = candidates(self._server_name, *self._behind(stored.event), await self._present(room_id))
        await self._caught_up(await self._aside().leave(stored.event, user_id, content, servers))

    # -- whom to ask ---------------------------------------------------------------------------------------------------

    async def _candidates(self, user_id: str, room_id: str, named: Sequence[str]) -> list[str]:
        groups: list[list[str]] = [list(named)]
        own = await self._store.of_user(user_id, room_id)
        if own is not None and own.membership in _PENDING:
            stored = await self._events.get(own.event_id)
            groups += [] if stored is None else self._behind(stored.event)
        return candidates_for(self._server_name, room_id, named=groups, known=await self._present(room_id))

    def _behind(self, event: Event) -> list[list[str]]:
        """The servers that an invite came from, or a knock went to, and those that its stripped state tells of."""
        unsigned = event.raw.get("unsigned")
        carried = unsigned if isinstance(unsigned, dict) else {}
        state = carried.get("invite_room_state", carried.get("knock_room_state"))
        told = [entry for entry in state if isinstance(entry, dict)] if isinstance(state, list) else []
        return [[domain_of(event.sender)], servers_of_stripped(told), server_of_room(event.room_id)]

    async def _present(self, room_id: str) -> list[str]:
        """The servers that are in the room, or were when this one was there last."""
        return by_size(await self._hosts.joined(room_id))

    async def _able(self, room_id: str) -> list[str]:
        """The servers in the room with somebody who may invite."""
        found = await self._state.current(room_id, [_CREATE, _POWER_LEVELS])
        state = {key: stored.event for key, stored in found.items()}
        if _CREATE not in state:
            return []
        levels = PowerLevels.of_state(state, state[_CREATE].room_version)
        users = state[_POWER_LEVELS].content.get("users") if _POWER_LEVELS in state else None
        named = [user_id for user_id in users if isinstance(user_id, str)] if isinstance(users, dict) else []
        known = {user_id: levels.user(user_id) for user_id in (state[_CREATE].sender, *named)}
        present = await self._hosts.joined(room_id)
        return [name for name in able_to_invite(known, levels.invite) if name in present]
