"""How far users of other servers have read: taken in by any process, written by the main process.

A receipt for an event that is not here (yet) is kept all the same: it is the user's latest. Threads have to be known,
though, so that nobody fills the table with receipts of threads that there are not.

Server-server API, "Receipts".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.constants import ReceiptTypes
from synapse.api.errors import MatrixError, invalid_param, too_large
from synapse.api.identifiers import is_event_id, is_room_id
from synapse.handlers.edus.parsing import number, own_user
from synapse.replication.calls import Call
from synapse.replication.streams import ReceiptRow
from synapse.storage.receipts import FarReceipt, Receipt
from synapse.storage.unread import MAIN

if TYPE_CHECKING:
    from synapse.handlers.edus.speakers import Speakers
    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.receipts import ReceiptStore

MAX_RECEIPTS: Final = 500
"""In one EDU."""

_NO_EVENTS: Final = ("", MAIN)  # as threads


RECEIVE: Final = Call("receipts.receive", list[FarReceipt], type(None))


class FarReceipts:
    """Takes m.receipt."""

    def __init__(self, speakers: Speakers, store: ReceiptStore, stream: StreamWriter, main: MainProcess) -> None:
        self._speakers = speakers
        self._store = store
        self._stream = stream
        self._main = main
        main.expose(RECEIVE, self._write)

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Receipts that are not well-formed, or not the server's to tell, are dropped one by one. Raises 400, 403, 413
        where that is all of them.
        """
        given, problem = _receipts(origin, content)
        found: list[Receipt] = []
        for room_id, receipts in given.items():
            try:
                joined = await self._speakers.in_room(origin, room_id, {receipt.user_id for receipt in receipts})
            except MatrixError as error:
                problem = error
                continue
            found += [receipt for receipt in receipts if receipt.user_id in joined]
        if placed := await self._placed(found):
            await self._main(RECEIVE, placed)
        elif problem is not None:
            raise problem

    async def _placed(self, receipts: Sequence[Receipt]) -> list[FarReceipt]:
        """Those of the receipts whose events and threads belong together, as far as they are here. One statement."""
        named = {(r.room_id, i) for r in receipts for i in (r.event_id, r.thread_id) if i not in _NO_EVENTS}
        events = await self._store.events(named)
        placed: list[FarReceipt] = []
        for receipt in receipts:
            room_id, thread_id = receipt.room_id, receipt.thread_id
            event = events.get((room_id, receipt.event_id))
            if event is not None:
                is_good = not thread_id or thread_id in event.threads
            else:
                is_good = thread_id in _NO_EVENTS or (room_id, thread_id) in events
            if is_good:
                placed.append(FarReceipt(receipt, None if event is None else event.stream))
        return placed

    async def _write(self, receipts: list[FarReceipt]) -> None:
        await self._stream.append_many(
            len(receipts),
            lambda positions: self._store.put_many(receipts, positions),
            lambda moved: {position: [ReceiptRow(*whose, False)] for position, whose in moved.items()},
        )


def _receipts(origin: str, content: Mapping[str, Any]) -> tuple[dict[str, list[Receipt]], MatrixError | None]:
    """What is well-formed, by room, and what was wrong with the rest. Raises 413."""
    found: dict[str, list[Receipt]] = {}
    problem: MatrixError | None = None
    count = 0
    for room_id, types in content.items():
        # Only these: others are private, or of a future that this server does not know.
        users = types.get(ReceiptTypes.READ) if isinstance(types, dict) and is_room_id(room_id) else None
        for user_id, receipt in users.items() if isinstance(users, dict) else ():
            count += 1
            if count > MAX_RECEIPTS:
                raise too_large(f"An EDU may hold {MAX_RECEIPTS} receipts at most.")
            try:
                found.setdefault(room_id, []).append(_receipt(origin, room_id, user_id, receipt))
            except MatrixError as error:
                problem = error
    return found, problem


def _receipt(origin: str, room_id: str, user_id: str, receipt: object) -> Receipt:
    own_user(origin, {"user_id": user_id})
    event_ids, data = (receipt.get("event_ids"), receipt.get("data")) if isinstance(receipt, dict) else (None, None)
    if not isinstance(event_ids, list) or len(event_ids) != 1 or not isinstance(data, dict):
        raise invalid_param("A receipt must have one event ID, and data.")
    event_id, thread_id = event_ids[0], data.get("thread_id", "")
    if not isinstance(event_id, str) or not is_event_id(event_id):
        raise invalid_param("A receipt must have an event ID.")
    if not isinstance(thread_id, str) or not (thread_id in ("", MAIN) or is_event_id(thread_id)):
        raise invalid_param("The thread of a receipt must be 'main' or an event ID.")
    kept: dict[str, Any] = {"ts": number(data, "ts")}
    if thread_id:
        kept["thread_id"] = thread_id
    return Receipt(room_id, ReceiptTypes.READ, user_id, thread_id, event_id, orjson.dumps(kept).decode())
