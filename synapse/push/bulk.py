"""Whom of this server's users an event concerns: the push rules of all local members of its room, evaluated at once.

The shell around the pure evaluator: it knows who is in the room (`RoomMembers`, kept true by the events stream) and
what rules they have, so that a message in a room in use asks the database nothing. What comes out is written with the
event, counted as unread by sync, and sent by the pushers.

Client-server API, "Push notifications"; "Threading", "Unthreaded and threaded read receipts", for threads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

import orjson

from synapse.api.constants import EventTypes, Membership, RelationTypes
from synapse.api.identifiers import domain_of
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels
from synapse.push.conditions import EventFacts
from synapse.push.evaluator import Actions, Program, evaluate_all, is_highlight
from synapse.storage.persist_events import PushAction
from synapse.storage.relations import relation_of

if TYPE_CHECKING:
    from synapse.storage.events import EventsStore, StoredEvent
    from synapse.storage.memberships import MembershipsStore
    from synapse.util.caches import Cache

MAX_HOPS: Final = 3
"""How many relations are followed to find the thread of an event."""

MAIN: Final = "main"

Programs = Callable[[Collection[str]], Awaitable[Mapping[str, Program]]]
"""The compiled push rules of users, all of those asked for."""


class Members:
    """The joined members of a room: the local ones with their display names there, and how many there are in all."""

    __slots__ = ("count", "local")

    def __init__(self, local: dict[str, str | None], count: int) -> None:
        self.local = local
        self.count = count


class RoomMembers:
    """Who is in which room, as far as notifying goes."""

    def __init__(self, store: MembershipsStore, server_name: str, cache: Cache[str, Members]) -> None:
        self._store = store
        self._server_name = server_name
        self._cache = cache

    async def get(self, room_id: str) -> Members:
        """The members of a room. No statement when warm, else one."""
        return await self._cache.fetch(room_id, self._load)

    async def _load(self, room_id: str) -> Members:
        return Members(*await self._store.joined_local(room_id))

    # -- fed by the events stream ------------------------------------------------------------------------------

    def learn(self, room_id: str, user_id: str, event: Event | None) -> None:
        """A member's entry in the room's present state changes."""
        members = self._cache.peek(room_id)
        if members is None or domain_of(user_id) != self._server_name:
            # Whether a foreign user changes the number of members is not known here.
            self.forget(room_id)
            return
        members.count -= user_id in members.local
        members.local.pop(user_id, None)
        if event is not None and event.membership == Membership.JOIN:
            name = event.content.get("displayname")
            members.local[user_id] = name if isinstance(name, str) else None
            members.count += 1

    def learn_new_room(self, room_id: str) -> None:
        """A room begins, without members."""
        if self._cache.peek(room_id) is None:
            self.forget(room_id)
            self._cache.set(room_id, Members({}, 0))

    def forget(self, room_id: str) -> None:
        """Drop what is known about a room, and what is being read."""
        self._cache.invalidate(room_id)

    def forget_all(self) -> None:
        """Drop everything: rows of the stream may have been missed."""
        self._cache.clear()


class BulkPush:
    """Evaluates push rules for events that are about to be written."""

    def __init__(self, members: RoomMembers, programs: Programs, events: EventsStore, server_name: str) -> None:
        self._members = members
        self._programs = programs
        self._events = events
        self._server_name = server_name
        self._described: dict[int, tuple[Actions, str, bool]] = {}

    async def __call__(self, event: Event, state: Mapping[StateKey, StoredEvent]) -> tuple[str, Collection[PushAction]]:
        """The event's thread, and the local users to be told, with how. `state` is the room's before the event; its
        create and power levels events are enough."""
        members = await self._members.get(event.room_id)
        levels = PowerLevels.of_state({key: stored.event for key, stored in state.items()}, event.room_version)
        return await self.evaluate(event, members, levels)

    async def evaluate(self, event: Event, members: Members, levels: PowerLevels) -> tuple[str, Collection[PushAction]]:
        """The same with the members and power levels at hand."""
        names = dict(members.local)  # which may change while rules are read
        invited = self._invited(event)
        if invited is not None:
            names.setdefault(invited, None)
        if not names or (len(names) == 1 and event.sender in names):
            return MAIN, ()
        programs = await self._programs(names)
        users = ((user_id, name, programs[user_id]) for user_id, name in names.items())
        told = evaluate_all(EventFacts(event, members.count, levels), users)
        if not told:
            return MAIN, ()
        return await self._thread_of(event), [self._action(user_id, actions) for user_id, actions in told.items()]

    def _invited(self, event: Event) -> str | None:
        """The local user whom the event invites: not in the room, and yet concerned."""
        if event.type != EventTypes.MEMBER or event.membership != Membership.INVITE or event.state_key is None:
            return None
        return event.state_key if domain_of(event.state_key) == self._server_name else None

    def _action(self, user_id: str, actions: Actions) -> PushAction:
        # The actions of a rule are one object for all its users: told apart by identity, which the entry keeps alive.
        known = self._described.get(id(actions))
        if known is None:
            if len(self._described) > 1000:
                self._described.clear()
            known = (actions, orjson.dumps(actions).decode(), is_highlight(actions))
            self._described[id(actions)] = known
        return PushAction(user_id, True, known[2], known[1])

    async def _thread_of(self, event: Event) -> str:
        content = event.content
        for _hop in range(MAX_HOPS):
            relation = relation_of(content) if "m.relates_to" in content else None
            if relation is None or relation.rel_type is None:
                return MAIN
            if relation.rel_type == RelationTypes.THREAD:
                return relation.event_id
            stored = await self._events.get(relation.event_id)
            if stored is None or stored.event.room_id != event.room_id:
                return MAIN
            content = stored.event.content
        return MAIN
