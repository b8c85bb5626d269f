"""What is told to other servers besides events and is over soon: follows the streams of typing, receipts and presence,
and finds out which servers each piece of news concerns.

Receipts and presence are followed by position, like events: who takes over the duty goes on from where it was a moment
ago. Receipts in large rooms are told together, the less often the more servers there are.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.federation.sending.edus import Ephemeral, Typist
from synapse.replication.event_rows import StateRow
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from synapse.federation.hosts import RoomHosts
    from synapse.federation.sending.dispatch import Dispatch
    from synapse.replication.contacts import RoomsOf
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.storage.federation_events import FederationEventsStore
    from synapse.storage.presence import PresenceState
    from synapse.storage.receipts import Receipt
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

TYPING_AGAIN: Final = 20.0  # seconds after which who still types is told of again
RECEIPTS_DELAY: Final = 0.1  # for more to come
PRESENCE_DELAY: Final = 0.5
RETRY_SECONDS: Final = 5.0
PAGE: Final = 500
MAX_COMERS: Final = 1_000


class _Following:
    """A stream that is read on from where it was, some time after there is news, and never twice at once."""

    def __init__(
        self, clock: Clock, stream: str, delay: float, present: Callable[[], int], take: Callable[[int, int], Any]
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._delay = delay
        self._present = present
        self._take = take  # (after, until): how far it has come
        self._timer: Any = None
        self._running = False
        self._begun = 0  # times that the duty was taken up
        self.on_duty = False
        self.position = 0

    def begin(self, position: int) -> None:
        self.on_duty, self.position = True, position
        self._begun += 1
        self.soon()

    def end(self) -> None:
        self.on_duty = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def soon(self, delay: float | None = None) -> None:
        if self.on_duty and not self._running and (self._timer is None or not self._timer.active()):
            pause = self._delay if delay is None else delay
            self._timer = self._clock.callLater(pause, lambda: spawn(self._run()))

    async def _run(self) -> None:
        self._running = True
        delay: float | None = None
        try:
            while self.on_duty and self.position < (until := self._present()):
                begun = self._begun
                come = await self._take(self.position, until)
                if begun == self._begun:  # else the duty was another's meanwhile, and begins elsewhere
                    self.position = come
        except Exception as error:
            log_failure(logger, error, "News of %s could not be followed for other servers", self._stream)
            delay = RETRY_SECONDS
        finally:
            self._running = False
        if delay is not None or self.position < self._present():
            self.soon(delay)


class News:
    """Tells the dispatch.

    :param per_second: transactions for receipts that a room may bring about.
    """

    def __init__(
        self,
        server_name: str,
        store: FederationEventsStore,
        hosts: RoomHosts,
        rooms_of: RoomsOf,
        notifier: Notifier,
        dispatch: Dispatch,
        clock: Clock,
        per_second: float,
    ) -> None:
        self._server_name = server_name
        self._hosts = hosts
        self.typing = TypingNews(self._is_ours, self._servers, dispatch, clock)
        self.receipts = ReceiptNews(store, self._servers, dispatch, notifier, clock, per_second)
        self.presence = PresenceNews(self._is_ours, store, self._servers, rooms_of, dispatch, notifier, clock)

    def _is_ours(self, user_id: str) -> bool:
        return domain_of(user_id) == self._server_name

    async def _servers(self, room_ids: Collection[str]) -> dict[str, list[str]]:
        """The other servers in each of the rooms."""
        found = await self._hosts.joined_many(room_ids)
        return {
            room_id: [server for server in hosts if server != self._server_name] for room_id, hosts in found.items()
        }


Servers = Callable[[Collection[str]], "Awaitable[Mapping[str, Collection[str]]]"]


class TypingNews:
    """Who types."""

    def __init__(self, is_ours: Callable[[str], bool], servers: Servers, dispatch: Dispatch, clock: Clock) -> None:
        self._is_ours = is_ours
        self._servers = servers
        self._dispatch = dispatch
        self._clock = clock
        self._typing: dict[str, set[str]] = {}
        self._timer: Any = None
        self._on_duty = False

    def begin(self) -> None:
        self._on_duty = True

    def end(self) -> None:
        self._on_duty = False
        self._typing.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def rows(self, position: int, rows: Rows) -> None:
        if not self._on_duty:
            return
        changed: dict[str, list[Typist]] = defaultdict(list)
        now = int(self._clock.seconds() * 1000)
        for _, (room_id, user_ids) in rows:
            before, after = self._typing.get(room_id, set()), {user for user in user_ids if self._is_ours(user)}
            changed[room_id] += [Typist(room_id, user_id, True, now) for user_id in sorted(after - before)]
            changed[room_id] += [Typist(room_id, user_id, False, now) for user_id in sorted(before - after)]
            if after:
                self._typing[room_id] = after
            else:
                self._typing.pop(room_id, None)
        self._tell(changed)

    def reset(self, position: int) -> None:
        """Who types now is told next; whom we told of may not be among them."""
        if self._on_duty and self._typing:
            self.rows(position, [(position, (room_id, [])) for room_id in list(self._typing)])

    def _tell(self, changed: Mapping[str, list[Typist]]) -> None:
        told = {room_id: typists for room_id, typists in changed.items() if typists}
        if told:
            spawn(self._tell_servers(told)).addErrback(_log)
        if self._typing and (self._timer is None or not self._timer.active()):
            self._timer = self._clock.callLater(TYPING_AGAIN, self._again)

    async def _tell_servers(self, told: Mapping[str, list[Typist]]) -> None:
        servers = await self._servers(list(told))
        for room_id, typists in told.items():

            def add(ephemeral: Ephemeral, typists: list[Typist] = typists) -> None:
                for typist in typists:
                    ephemeral.add_typist(typist)

            self._dispatch.tell(servers.get(room_id, ()), room_id, add)

    def _again(self) -> None:
        """Others believe that somebody types for a while only."""
        now = int(self._clock.seconds() * 1000)
        self._tell({room: [Typist(room, user, True, now) for user in sorted(us)] for room, us in self._typing.items()})


class ReceiptNews:
    """Who has read what, in public."""

    def __init__(
        self,
        store: FederationEventsStore,
        servers: Servers,
        dispatch: Dispatch,
        notifier: Notifier,
        clock: Clock,
        per_second: float,
    ) -> None:
        self._store = store
        self._servers = servers
        self._dispatch = dispatch
        self._clock = clock
        self._per_second = per_second
        self._waiting: dict[str, dict[tuple[str, ...], Receipt]] = {}  # rooms that were told of lately
        self._free_at: dict[str, float] = {}  # when a room may be told of again
        self.following = _Following(
            clock, "receipts", RECEIPTS_DELAY, lambda: notifier.position("receipts"), self._take
        )

    def begin(self, position: int) -> None:
        self.following.begin(position)

    def end(self) -> None:
        self.following.end()
        self._waiting.clear()
        self._free_at.clear()

    def rows(self, position: int, rows: Rows) -> None:
        self.following.soon()

    def missed(self, position: int) -> None:
        self.following.soon()

    async def _take(self, after: int, until: int) -> int:
        found = await self._store.receipts(after, until, PAGE)
        rooms: dict[str, list[Receipt]] = defaultdict(list)
        for _, receipt in found:
            rooms[receipt.room_id].append(receipt)
        if rooms:
            servers = await self._servers(list(rooms))
            for room_id, receipts in rooms.items():
                self._room(room_id, servers.get(room_id, ()), receipts)
        return found[-1][0] if len(found) == PAGE else until

    def _room(self, room_id: str, servers: Collection[str], receipts: list[Receipt]) -> None:
        if not servers:
            return
        are_first = room_id not in self._waiting
        self._waiting.setdefault(room_id, {}).update({receipt[:4]: receipt for receipt in receipts})
        now = self._clock.seconds()
        free_at = self._free_at.get(room_id, 0.0)
        if free_at <= now:
            self._tell(room_id, servers)
        elif are_first:
            self._clock.callLater(free_at - now, self._tell_later, room_id)

    def _tell_later(self, room_id: str) -> None:
        if self.following.on_duty and room_id in self._waiting:
            spawn(self._tell_room(room_id)).addErrback(_log)

    async def _tell_room(self, room_id: str) -> None:
        self._tell(room_id, (await self._servers([room_id])).get(room_id, ()))

    def _tell(self, room_id: str, servers: Collection[str]) -> None:
        receipts = list(self._waiting.pop(room_id, {}).values())
        now = self._clock.seconds()
        for room in [room for room, at in self._free_at.items() if at <= now]:
            del self._free_at[room]
        self._free_at[room_id] = now + len(servers) / self._per_second

        def add(ephemeral: Ephemeral) -> None:
            for receipt in receipts:
                ephemeral.add_receipt(receipt)

        self._dispatch.tell(servers, room_id, add)


class PresenceNews:
    """Who is there. Servers that come into a room are told of those in it, and the servers in it of those who come."""

    def __init__(
        self,
        is_ours: Callable[[str], bool],
        store: FederationEventsStore,
        servers: Servers,
        rooms_of: RoomsOf,
        dispatch: Dispatch,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._is_ours = is_ours
        self._store = store
        self._servers = servers
        self._rooms_of = rooms_of
        self._dispatch = dispatch
        self._comers: dict[tuple[str, str], None] = {}  # (room, user) who came
        self.following = _Following(
            clock, "presence", PRESENCE_DELAY, lambda: notifier.position("presence"), self._take
        )
        self._clock = clock
        self._timer: Any = None

    def begin(self, position: int) -> None:
        self.following.begin(position)

    def end(self) -> None:
        self.following.end()
        self._comers.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def rows(self, position: int, rows: Rows) -> None:
        self.following.soon()

    def missed(self, position: int) -> None:
        self.following.soon()

    def events(self, position: int, rows: Rows) -> None:
        """News of the events stream: who comes."""
        if not self.following.on_duty:
            return
        for _, row in rows:
            if (
                isinstance(row, StateRow)
                and row.type == EventTypes.MEMBER
                and row.membership == Membership.JOIN != row.prev_membership
                and len(self._comers) < MAX_COMERS
            ):
                self._comers[(row.room_id, row.state_key)] = None
        if self._comers and (self._timer is None or not self._timer.active()):
            self._timer = self._clock.callLater(PRESENCE_DELAY, lambda: spawn(self._tell_comers()).addErrback(_log))

    async def _take(self, after: int, until: int) -> int:
        found = await self._store.presence(after, until, PAGE)
        states = {state.user_id: state for _, state in found}
        rooms = await self._rooms_of(states) if states else {}
        servers = await self._servers({room_id for each in rooms.values() for room_id in each})
        for user_id, state in states.items():
            concerned = {server for room_id in rooms.get(user_id, ()) for server in servers.get(room_id, ())}
            self._tell(concerned, [state])
        return found[-1][0] if len(found) == PAGE else until

    async def _tell_comers(self) -> None:
        comers, self._comers = list(self._comers), {}
        rooms = {room_id for room_id, _ in comers}
        servers = await self._servers(rooms)
        shared = [room_id for room_id in rooms if servers.get(room_id)]
        if not shared:
            return
        present = await self._store.present_in(shared)
        for room_id, user_id in comers:
            states = present.get(room_id, [])
            if self._is_ours(user_id):
                self._tell(servers.get(room_id, ()), [state for state in states if state.user_id == user_id])
            else:
                self._tell([domain_of(user_id)], states)

    def _tell(self, servers: Collection[str], states: Collection[PresenceState]) -> None:
        if not states:
            return

        def add(ephemeral: Ephemeral) -> None:
            for state in states:
                ephemeral.add_presence(state)

        self._dispatch.tell(servers, "presence", add)


def _log(failure: Any) -> None:
    logger.error("News for other servers were lost", exc_info=failure.value)
