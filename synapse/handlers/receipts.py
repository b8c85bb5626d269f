"""Read receipts and the fully-read marker: where a user says that they have read up to.

Written by the main process, since every receipt has a position in the stream `receipts`; a receipt that does not lie
ahead of the present one changes nothing. What a receipt covers is no longer counted as unread
(`synapse.storage.unread`).

Client-server API, "Receipts" and "Read and unread markers".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.constants import AccountDataTypes, ReceiptTypes
from synapse.api.errors import bad_json, invalid_param, not_found
from synapse.api.identifiers import is_event_id, parse_event_id
from synapse.replication.calls import Call
from synapse.replication.streams import ReceiptRow
from synapse.storage.receipts import Receipt
from synapse.storage.unread import MAIN

if TYPE_CHECKING:
    from synapse.handlers.account_data import AccountData
    from synapse.handlers.positions import StreamWriter
    from synapse.handlers.visibility import RoomDoor
    from synapse.replication.calls import MainProcess
    from synapse.storage.receipts import ReceiptStore
    from synapse.util.clock import Clock

_TYPES: Final = (ReceiptTypes.READ, ReceiptTypes.READ_PRIVATE, ReceiptTypes.FULLY_READ)


class SetReceipt(msgspec.Struct, frozen=True):
    """A receipt of a local user, checked; `event_stream` is the position of its event."""

    receipt: Receipt
    event_stream: int


SET: Final = Call("receipts.set", SetReceipt, type(None))


class Receipts:
    """Takes receipts in any process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        store: ReceiptStore,
        stream: StreamWriter,
        door: RoomDoor,
        account_data: AccountData,
        main: MainProcess,
        clock: Clock,
    ) -> None:
        self._store = store
        self._stream = stream
        self._door = door
        self._account_data = account_data
        self._main = main
        self._clock = clock
        main.expose(SET, self._set)

    async def receive(self, user_id: str, room_id: str, receipt_type: str, event_id: str, body: dict[str, Any]) -> None:
        """`POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`. Raises 400, 403, 404."""
        if receipt_type not in _TYPES:
            raise invalid_param(f"The receipt type must be one of {', '.join(_TYPES)}.")
        thread_id = _thread_of(receipt_type, body)
        await self._door.check_joined(user_id, room_id)
        await self._mark(user_id, room_id, receipt_type, parse_event_id(event_id), thread_id)

    async def receive_markers(self, user_id: str, room_id: str, body: dict[str, Any]) -> None:
        """`POST /rooms/{roomId}/read_markers`: any of the three at once. Raises 400, 403, 404."""
        markers = {name: body[name] for name in _TYPES if body.get(name) is not None}
        for name, event_id in markers.items():
            if not isinstance(event_id, str):
                raise bad_json(f"The key '{name}' must be a string.")
            parse_event_id(event_id)
        await self._door.check_joined(user_id, room_id)
        for name, event_id in markers.items():
            await self._mark(user_id, room_id, name, event_id, "")

    async def _mark(self, user_id: str, room_id: str, receipt_type: str, event_id: str, thread_id: str) -> None:
        event = await self._store.event(room_id, event_id)
        if event is None:
            raise not_found("The room has no such event.")
        if receipt_type == ReceiptTypes.FULLY_READ:
            await self._account_data.write(user_id, room_id, AccountDataTypes.FULLY_READ, {"event_id": event_id})
            return
        if thread_id and thread_id not in event.threads:
            raise invalid_param("The event has nothing to do with the thread that 'thread_id' names.")
        data: dict[str, Any] = {"ts": int(self._clock.seconds() * 1000)}
        if thread_id:
            data["thread_id"] = thread_id
        receipt = Receipt(room_id, receipt_type, user_id, thread_id, event_id, orjson.dumps(data).decode())
        await self._main(SET, SetReceipt(receipt, event.stream))

    async def _set(self, setting: SetReceipt) -> None:
        receipt = setting.receipt
        private = receipt.receipt_type == ReceiptTypes.READ_PRIVATE
        await self._stream.append(
            lambda position: self._store.put(receipt, setting.event_stream, position),
            lambda moved: [ReceiptRow(receipt.room_id, receipt.user_id, private)] if moved else [],
        )


def _thread_of(receipt_type: str, body: dict[str, Any]) -> str:
    """The thread that a receipt is for, "" for none. Raises 400 M_INVALID_PARAM."""
    if "thread_id" not in body:
        return ""
    thread_id = body["thread_id"]
    if not isinstance(thread_id, str) or not (thread_id == MAIN or is_event_id(thread_id)):
        raise invalid_param("'thread_id' must be 'main' or the ID of the event at the root of a thread.")
    if receipt_type == ReceiptTypes.FULLY_READ:
        raise invalid_param("The marker m.fully_read is for the whole room and takes no 'thread_id'.")
    return thread_id
