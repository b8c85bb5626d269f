"""The answer to a join that another server has brought: the room's state before it, and what that rests on.

Server-server API, `PUT /send_join`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING

import orjson

from synapse.api.identifiers import domain_of
from synapse.federation.serving.long_answers import answer_of, array_of
from synapse.http.answers import Answer
from synapse.state.filters import ALL, StateFilter

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.storage.events import StoredEvent
    from synapse.storage.past_state import PastStateStore
    from synapse.storage.served_events import ServedEventsStore
    from synapse.storage.state import StateStore


class JoinAnswers:
    """Makes the answers, in any process. Two statements, and one for each thousand of events."""

    def __init__(
        self,
        groups: StateStore,
        store: ServedEventsStore,
        hosts: RoomHosts,
        summaries: PastStateStore,
        server_name: str,
    ) -> None:
        self._groups = groups
        self._store = store
        self._hosts = hosts
        self._summaries = summaries
        self._server_name = server_name

    async def of(self, join: StoredEvent, *, omit_members: bool, wrapped: bool) -> Answer:
        """The answer to a join that has been accepted.

        `omit_members`: without memberships but those that name the room, and with nothing in the auth chain that is
        in the state. `wrapped`: as version 1 of the endpoint wants it, `[200, {…}]`.
        """
        state = await self._state_before(join, omit_members)
        chain = await self._store.auth_chain_ids([join.event.event_id, *state])
        if omit_members:
            chain = [event_id for event_id in chain if event_id not in state]
        pieces = self._pieces(join, state, chain, omit_members)
        return await answer_of(_wrapped(pieces) if wrapped else pieces, len(state) + len(chain))

    async def _state_before(self, join: StoredEvent, omit_members: bool) -> frozenset[str]:
        assert join.state_group is not None, "only outliers have no state"
        place = (await self._groups.places([join.state_group]))[join.state_group]
        if place.prev_group is None:
            return frozenset()
        wanted = StateFilter.members(await self._heroes(join)) if omit_members else ALL
        return frozenset((await self._groups.ids([place.prev_group], wanted))[place.prev_group].values())

    async def _heroes(self, join: StoredEvent) -> Collection[str]:
        summaries = await self._summaries.summaries([join.event.room_id], join.event.sender)
        return [user_id for summary in summaries for user_id in summary.heroes or ()]

    async def _pieces(
        self, join: StoredEvent, state: Collection[str], chain: Collection[str], omit_members: bool
    ) -> AsyncIterator[bytes]:
        yield b'{"auth_chain":['
        async for piece in array_of(self._store, chain):
            yield piece
        yield b'],"state":['
        async for piece in array_of(self._store, state):
            yield piece
        yield b'],"event":' + join.event.json
        rest = {"origin": self._server_name, "members_omitted": omit_members}
        if omit_members:
            rest["servers_in_room"] = await self._servers_before(join)
        yield b"," + orjson.dumps(rest)[1:]

    async def _servers_before(self, join: StoredEvent) -> list[str]:
        hosts = dict(await self._hosts.joined(join.event.room_id))
        origin = domain_of(join.event.sender)
        if hosts.get(origin) == 1:
            del hosts[origin]  # who has joined just now
        return list(hosts)


async def _wrapped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"[200,"
    async for piece in pieces:
        yield piece
    yield b"]"
