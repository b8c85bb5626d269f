"""The devices and keys of other servers' users: taking in what is told of them, and dropping what nobody needs.

Checked by any process; lists are written by the main process. Only of users who share a room with somebody here is
anything kept, since of no others would this server be told what changes.

Server-server API, "Device Management", "End-to-End Encryption".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden
from synapse.api.identifiers import domain_of
from synapse.handlers.edus import parsing, their_keys
from synapse.handlers.edus.gaps import NEVER, Kept, Verdict, judge
from synapse.replication.calls import Call
from synapse.replication.event_rows import Row, StateRow
from synapse.storage.cross_signing import MASTER
from synapse.storage.remote_devices import Applied, Device, Keys, ListRow
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.handlers.edus.resync import Resync
    from synapse.handlers.edus.shares import DeviceShares
    from synapse.handlers.edus.speakers import Speakers
    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.cross_signing import CrossSigningStore
    from synapse.storage.remote_devices import RemoteDeviceStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_PREVIOUS: Final = 100


class Update(msgspec.Struct, frozen=True):
    """An m.device_list_update, checked. `device` None: it is gone."""

    user_id: str
    device_id: str
    stream_id: int
    prev_ids: list[int]
    device: Device | None


class SigningUpdate(msgspec.Struct, frozen=True):
    """An m.signing_key_update, checked."""

    user_id: str
    keys: Keys


UPDATE: Final = Call("device_lists.update", Update, type(None))
SIGNING_UPDATE: Final = Call("device_lists.signing_update", SigningUpdate, type(None))
FETCH: Final = Call("device_lists.fetch", list[str], dict[str, str], within=90.0)
"""Lists of these users; what was wrong where that failed, by user."""


def parse_update(origin: str, content: dict[str, Any]) -> Update:
    """Raises 400, 403, 413."""
    user_id, device_id = parsing.own_user(origin, content), parsing.text(content, "device_id")
    device: Device | None = None
    if content.get("deleted") is not True:
        given = content.get("keys")
        keys = None if given is None else parsing.device_keys(user_id, device_id, given)
        device = Device(device_id, keys, parsing.name_of(content))
    previous = parsing.numbers(content, "prev_id", MAX_PREVIOUS)
    return Update(user_id, device_id, parsing.number(content, "stream_id"), previous, device)


class FarDeviceLists:
    """Takes m.device_list_update and m.signing_key_update."""

    def __init__(self, speakers: Speakers, cross_signing: CrossSigningStore, main: MainProcess) -> None:
        self._speakers = speakers
        self._cross_signing = cross_signing
        self._main = main

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """m.device_list_update. Raises 400, 403, 413."""
        update = parse_update(origin, content)
        await self._check(update.user_id)
        await self._main(UPDATE, update)

    async def receive_signing_keys(self, origin: str, content: dict[str, Any]) -> None:
        """m.signing_key_update. Raises 400, 403."""
        user_id = parsing.own_user(origin, content)
        await self._check(user_id)
        known = (await self._cross_signing.keys_of(user_id)).get(MASTER)
        public_key = None if known is None else known.public_key
        keys = their_keys.signing_keys(user_id, content.get("master_key"), content.get("self_signing_key"), public_key)
        if keys.keys:
            await self._main(SIGNING_UPDATE, SigningUpdate(user_id, keys))

    async def _check(self, user_id: str) -> None:
        if not await self._speakers.sharing([user_id]):
            raise forbidden("The user shares no room with anybody of this server.")


class DeviceListKeeper:
    """Keeps lists; for the main process."""

    def __init__(
        self,
        store: RemoteDeviceStore,
        shares: DeviceShares,
        stream: StreamWriter,
        resync: Resync,
        speakers: Speakers,
        main: MainProcess,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._store = store
        self._shares = shares
        self._stream = stream
        self._resync = resync
        self._speakers = speakers
        self._clock = clock
        self._server_name = server_name
        main.expose(UPDATE, self._update)
        main.expose(SIGNING_UPDATE, self._take_in)
        main.expose(FETCH, resync.fetch_all)

    async def _update(self, update: Update) -> None:
        device = update.device
        if device is not None and not await self._shares.has_place(update.user_id, device):
            device = None
        verdicts: list[Verdict] = []

        def decide(row: ListRow | None) -> Applied:
            kept = None if row is None else Kept(*row)
            verdicts.append(judge(kept, update.stream_id, update.prev_ids))
            if verdicts[-1] is Verdict.KNOWN:
                return Applied(None)
            if verdicts[-1] is Verdict.GAP:
                return Applied(ListRow(*(kept or Kept(NEVER))._replace(stale=True)), device)
            assert kept is not None, "an update comes after something"
            return Applied(ListRow(*kept.with_update(update.stream_id)), device)

        await self._stream.append(
            lambda position: self._store.apply(
                update.user_id, update.device_id, decide, their_keys.MAX_DEVICES, position
            ),
            lambda changed: [update.user_id] if changed else [],
        )
        if verdicts[-1] is Verdict.GAP:
            self._resync.want(update.user_id, update.stream_id)

    async def _take_in(self, update: SigningUpdate) -> None:
        await self._stream.append(
            lambda position: self._store.take_in(update.user_id, update.keys, position),
            lambda changed: [update.user_id] if changed else [],
        )

    # -- forgetting ----------------------------------------------------------------------------------------------------

    def learn(self, rows: Iterable[Row]) -> None:
        """Rows of the events stream: who goes out of a room may share none with us any more."""
        users: set[str] = set()
        rooms: set[str] = set()
        for row in rows:
            if isinstance(row, StateRow) and row.type == EventTypes.MEMBER and _goes(row):
                if domain_of(row.state_key) != self._server_name:
                    users.add(row.state_key)
                else:
                    rooms.add(row.room_id)
        if users or rooms:
            # On another turn of the reactor, when everybody here has heard of it.
            self._clock.callLater(0, self._begin_to_forget, users, rooms)

    def _begin_to_forget(self, users: set[str], rooms: set[str]) -> None:
        Deferred.fromCoroutine(self._forget(users, rooms))

    async def _forget(self, users: set[str], rooms: set[str]) -> None:
        try:
            for room_id in rooms:
                if not await self._speakers.is_in(room_id):
                    users.update(await self._store.listed_in(room_id))
            listed = await self._store.listed(list(users)) if users else []
            gone = set(listed) - await self._speakers.sharing(listed)
            if gone:
                await self._resync.forget(gone)
        except Exception as error:
            log_failure(logger, error, "The devices of users whom nobody here meets any more were not forgotten")


def _goes(row: StateRow) -> bool:
    """Whether somebody was in a room who is not any more, as far as that is told."""
    was_in = row.prev_membership == Membership.JOIN or (row.prev_membership is None and row.prev_event_id is not None)
    return was_in and row.membership != Membership.JOIN
