"""The answer to a join that another server has brought: the room's state before it, and what that rests on.

A room may have tens of thousands of members. The events are never parsed: their stored texts go into the answer piece
by piece, which is kept in a file on its way out where it is long, so that neither memory nor the time in which nobody
else is answered grows with the room.

Server-server API, `PUT /send_join`.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

import orjson

from synapse.api.identifiers import domain_of
from synapse.federation.serving.visibility import copy_of
from synapse.http.answers import JSON_TYPE, Answer, FileAnswer, RawJson
from synapse.state.filters import ALL, StateFilter

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.storage.events import StoredEvent
    from synapse.storage.past_state import PastStateStore
    from synapse.storage.served_events import ServedEventsStore
    from synapse.storage.state import StateStore

PIECE: Final = 1_000
"""So many events are read at once: a few hundred kilobytes."""

IN_MEMORY: Final = 2_000
"""Answers of so many events are not worth a file."""


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
        before, after = (b"[200,", b"]") if wrapped else (b"", b"")
        if len(state) + len(chain) <= IN_MEMORY:
            return RawJson(b"".join([before, *[piece async for piece in pieces], after]))
        file = tempfile.TemporaryFile()  # noqa: SIM115  # the server closes it
        try:
            await _write(file, before, pieces, after)
            return FileAnswer(file, JSON_TYPE)
        except BaseException:
            file.close()
            raise

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
        async for piece in self._array(chain):
            yield piece
        yield b'],"state":['
        async for piece in self._array(state):
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

    async def _array(self, event_ids: Collection[str]) -> AsyncIterator[bytes]:
        separator = b""
        for some in _cut(list(event_ids)):
            events = await self._store.many(some)
            yield separator + b",".join([copy_of(event) for event in events.values()])
            separator = b","


def _cut(event_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(event_ids), PIECE):
        yield event_ids[start : start + PIECE]


async def _write(file: BinaryIO, before: bytes, pieces: AsyncIterator[bytes], after: bytes) -> None:
    file.write(before)
    async for piece in pieces:
        file.write(piece)
    file.write(after)
    file.seek(0)
