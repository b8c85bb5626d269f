"""The outbox of device lists: which servers hear of which changes of local users' devices and keys.

A change concerns the servers that share a room with the user when this process hears of it, and whoever comes into a
room tells the servers that are in it of all their devices, if these do not know them. A server that comes (back) into a
room is told of those users there of whom it has known something that is not true any more; other lists, it asks for
when it needs them. Whom that concerns is noted in the database together with how far the streams have been taken in, so
nothing is lost when the process dies, and nothing is told twice because another takes over. (But of devices without
keys, which no client sees, nobody is told then of whom it had yet to be.)

Server-server API, "Device Management".
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.federation.outboxes import Waiting, Wake, encoded
from synapse.federation.outboxes.chain import chain
from synapse.replication.event_rows import StateRow
from synapse.storage.device_keys import KEEP_CHANGES
from synapse.storage.device_lists_outbox import Positions, Told
from synapse.storage.errors import DatabaseClosed
from synapse.storage.shown_keys import ShownKeys
from synapse.util.caches import LruCache
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.replication.contacts import RoomsOf
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.storage.device_lists_outbox import DeviceListOutboxStore, Due
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 2.0
"""How long nobody is told of devices without keys of who comes into a room. Most publish keys by then, of which servers
are told at once."""
KEEP_EVERY: Final = 1_000
"""Positions that concern no other server, after which it is noted down how far the streams have been taken in."""

_MOST_HEARD: Final = 1_000
_CHAINS: Final = 1_000  # that are remembered: of those who are in rooms with many servers


class Mark(NamedTuple):
    """How much a server knows of a user, once it has the EDU."""

    user_id: str
    told: Told


class _Told(NamedTuple):
    edus: list[bytes]
    told: Told


class _Heard:
    """Whom rows of the streams were about since these were taken in; `is_unsure` where some were missed."""

    __slots__ = ("is_unsure", "room_ids", "user_ids")

    def __init__(self, is_unsure: bool = False) -> None:
        self.is_unsure = is_unsure
        self.room_ids: set[str] = set()  # into which somebody came
        self.user_ids: set[str] = set()  # of this server, with other devices or keys

    def bound(self) -> None:
        if len(self.room_ids) + len(self.user_ids) > _MOST_HEARD:
            self.is_unsure = True
            self.room_ids.clear()
            self.user_ids.clear()


class DeviceListOutbox:
    """For the process that sends.

    :param rooms_of: the rooms that users are joined to.
    :param with_names: whether other servers are told the names of devices.
    """

    most: Final = 50
    """EDUs in one transaction, and users of whom a server is told at a time."""

    def __init__(
        self,
        store: DeviceListOutboxStore,
        rooms_of: RoomsOf,
        hosts: RoomHosts,
        notifier: Notifier,
        clock: Clock,
        server_name: str,
        *,
        with_names: bool,
    ) -> None:
        self._store = store
        self._rooms_of = rooms_of
        self._hosts = hosts
        self._notifier = notifier
        self._clock = clock
        self._server_name = server_name
        self._with_names = with_names
        self._wake: Wake | None = None
        self._reached = self._kept = Positions(0, 0)
        self._heard = _Heard(is_unsure=True)
        self._following = False
        self._again = False
        self._without_keys: set[str] = set()  # who are in rooms for a while, and are to be told of now
        self._chains: LruCache[tuple[str, Told | None, int], _Told] = LruCache("device_list_chains", _CHAINS)
        notifier.subscribe("device_lists", self._learn_lists, self._missed)
        notifier.subscribe("events", self._learn_events, self._missed)

    async def begin(self, wake: Wake) -> None:
        """Takes in what happened while nobody sent; from now on, `wake` hears of what is new."""
        self._reached = self._kept = await self._store.begin(self._present())
        self._heard = _Heard(is_unsure=True)
        self._wake = wake
        await self._follow()

    def end(self) -> None:
        """Nobody sends any more."""
        self._wake = None

    async def destinations(self) -> set[str]:
        """The servers that are to be told of somebody."""
        return await self._store.destinations()

    async def waiting(self, destinations: Collection[str]) -> dict[str, list[Waiting]]:
        """What comes next for each server, in order. All that concerns a user comes together."""
        found: dict[str, list[Waiting]] = {}
        nothing_to_say: list[tuple[str, str, Told]] = []
        full: set[str] = set()
        for due in await self._store.due(destinations, self.most):
            told = await self._chain(due)
            if not told.edus:
                nothing_to_say.append((due.destination, due.user_id, told.told))
            waiting = found.setdefault(due.destination, [])
            if len(waiting) + len(told.edus) > self.most:
                full.add(due.destination)
            if due.destination not in full:
                waiting += [Waiting(edu, Mark(due.user_id, told.told)) for edu in told.edus]
        await self._store.told(nothing_to_say)
        return {destination: waiting for destination, waiting in found.items() if waiting}

    async def sent(self, marks: Mapping[str, Sequence[Mark]]) -> None:
        """These servers know so much; they are told of what came after."""
        unique = {(destination, mark) for destination, each in marks.items() for mark in each}
        await self._store.told([(destination, *mark) for destination, mark in unique])

    async def _chain(self, due: Due) -> _Told:
        until = self._notifier.position("device_lists")
        key = (due.user_id, due.told, until)
        found = self._chains.get(key)
        if found is None:
            after = -1 if due.told is None else due.told.stream_id
            devices = await self._store.devices(due.user_id, after, until, KEEP_CHANGES)
            shown = ShownKeys(devices.published, "")
            keys = {each.device_id: shown.device(each, with_name=False) for each in devices.published.devices}
            for each in keys.values():
                del each["unsigned"]
            signing: dict[str, Any] = {f"{usage}_key": each for _, usage, each in shown.signing_keys()}
            if not self._with_names:
                devices = devices._replace(names=dict.fromkeys(devices.names))
            links = chain(due.user_id, devices, due.told, keys.get, signing)
            found = _Told([encoded(*edu) for edu in links.edus], Told(links.stream_id, links.update_id))
            self._chains.set(key, found)
        return found

    # -- following the streams -----------------------------------------------------------------------------------------

    def _present(self) -> Positions:
        return Positions(self._notifier.position("device_lists"), self._notifier.position("events"))

    def _learn_lists(self, _position: int, rows: Rows) -> None:
        if self._wake is None:
            return
        user_ids = [row for _, row in rows if isinstance(row, str) and self._is_ours(row)]
        if user_ids:
            self._heard.user_ids.update(user_ids)
            self._soon()

    def _learn_events(self, _position: int, rows: Rows) -> None:
        if self._wake is None:
            return
        come = [row for _, row in rows if _has_come(row)]
        if come:
            self._heard.room_ids.update(row.room_id for row in come)
            self._soon()

    def _missed(self, _position: int) -> None:
        """Rows were missed."""
        self._heard.is_unsure = True
        if self._wake is not None:
            self._soon()

    def _is_ours(self, user_id: str) -> bool:
        return domain_of(user_id) == self._server_name

    def _soon(self) -> None:
        """On another turn of the reactor, when everybody here has heard of the rows."""
        self._heard.bound()
        self._again = True
        if not self._following:
            self._following = True
            self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        spawn(self._follow())

    async def _follow(self) -> None:
        self._following = True
        self._again = False
        heard, self._heard = self._heard, _Heard()
        try:
            if self._wake is not None:
                await self._take_in(self._present(), heard)
        except DatabaseClosed:
            self._following = False
            return
        except Exception as error:
            log_failure(logger, error, "Who is to be told of changed devices was not found out; it is tried again")
            self._heard.is_unsure = True
            self._clock.callLater(RETRY_SECONDS, self._go_on)
            return
        if self._again and self._wake is not None:
            self._clock.callLater(0, self._go_on)
        else:
            self._following = False

    def _tell_of(self, newcomers: set[str]) -> None:
        if self._wake is not None:
            self._without_keys |= newcomers
            self._soon()

    async def _concerns_others(self, heard: _Heard) -> bool:
        """Whether any other server can have to do with it; where none has, the database is not asked any further."""
        if heard.is_unsure:
            return True
        rooms = dict(await self._rooms_of(heard.user_ids)) if heard.user_ids else {}
        hosts = await self._hosts.joined_many(heard.room_ids.union(*rooms.values()))
        return any(server != self._server_name for servers in hosts.values() for server in servers)

    async def _take_in(self, present: Positions, heard: _Heard) -> None:
        without_keys = frozenset(self._without_keys)
        if not without_keys and not await self._concerns_others(heard):
            if max(new - old for new, old in zip(present, self._kept, strict=True)) >= KEEP_EVERY:
                await self._store.add((), present)
                self._kept = present
            self._reached = present
            return
        before = self._reached
        changed = dict.fromkeys(without_keys, 0)
        changed |= await self._store.changed(before.device_lists, present.device_lists, self._server_name)
        come = await self._store.entered(before.events, present.events, self._server_name)
        entered = [(user_id, room_id) for user_id, room_id, has_keys in come if has_keys]
        newcomers = {user_id for user_id, _, has_keys in come if not has_keys}
        rooms = dict(await self._rooms_of(changed)) if changed else {}
        room_ids = {room_id for each in rooms.values() for room_id in each} | {room_id for _, room_id in entered}
        hosts = await self._hosts.joined_many(room_ids)
        returned = await self._store.returned(before.events, present.events, self._server_name)
        due: dict[tuple[str, str], int] = dict.fromkeys(returned, 0)
        for user_id, room_id in entered:
            due.update(((server, user_id), 0) for server in hosts.get(room_id, ()))
        for user_id, position in changed.items():
            for room_id in rooms.get(user_id, ()):
                due.update(((server, user_id), position) for server in hosts.get(room_id, ()))
        rows = [(server, user_id, n) for (server, user_id), n in due.items() if server != self._server_name]
        destinations = await self._store.add(rows, present)
        self._reached = self._kept = present
        self._without_keys -= without_keys
        if newcomers:
            self._clock.callLater(QUIET_SECONDS, self._tell_of, newcomers)
        if destinations and self._wake is not None:
            self._wake(destinations)


def _has_come(row: object) -> TypeGuard[StateRow]:
    """Whether somebody came into a room, or perhaps did."""
    return (
        isinstance(row, StateRow)
        and row.type == EventTypes.MEMBER
        and (row.membership is None or row.membership == Membership.JOIN != row.prev_membership)
    )
