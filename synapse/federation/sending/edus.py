"""What servers are told besides events that need not last: who types, who has read what, who is there. Pure.

The latest word on each matter takes the place of those before it, and what nobody wants to hear any more is dropped.
Messages to devices and changes of device lists are not here: they last (`outboxes`).

Server-server API, "Typing Notifications", "Presence", "Receipts".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from synapse.events import canonical
from synapse.storage.presence import PresenceState
from synapse.storage.receipts import Receipt

TYPING_FRESH_MS: Final = 30_000
"""Word of who types is not told any more after that."""
MAX_TYPISTS: Final = 200
MAX_RECEIPTS: Final = 1_000
MAX_PRESENCE: Final = 2_000
"""Matters of each kind that are kept for a server; the oldest go first."""
PER_EDU: Final = 100
"""Receipts, or users, in one EDU."""

ReceiptKey = tuple[str, str, str, str]


class Typist(NamedTuple):
    """Somebody types in a room, or does not any more, since `at` (milliseconds)."""

    room_id: str
    user_id: str
    typing: bool
    at: int


class Taken(NamedTuple):
    """What went into a transaction. Typing does not come back."""

    receipts: tuple[Receipt, ...] = ()
    presence: tuple[PresenceState, ...] = ()


NOTHING: Final = Taken()


class Ephemeral:
    """What one server is still to be told."""

    __slots__ = ("_presence", "_receipts", "_typing")

    def __init__(self) -> None:
        self._typing: dict[tuple[str, str], Typist] = {}
        self._receipts: dict[ReceiptKey, Receipt] = {}
        self._presence: dict[str, PresenceState] = {}

    def __len__(self) -> int:
        return len(self._typing) + len(self._receipts) + len(self._presence)

    @property
    def has_receipts(self) -> bool:
        return bool(self._receipts)

    def add_typist(self, typist: Typist) -> None:
        _put(self._typing, (typist.room_id, typist.user_id), typist, MAX_TYPISTS)

    def add_receipt(self, receipt: Receipt) -> None:
        _put(self._receipts, _key(receipt), receipt, MAX_RECEIPTS)

    def add_presence(self, state: PresenceState) -> None:
        _put(self._presence, state.user_id, state, MAX_PRESENCE)

    def take(self, limit: int, now: int) -> tuple[list[bytes], Taken]:
        """As much as fits into `limit` EDUs at `now` (milliseconds); it is here no longer."""
        edus: list[bytes] = []
        presence: list[PresenceState] = []
        receipts: list[Receipt] = []
        if self._presence and len(edus) < limit:
            presence = [self._presence.pop(user_id) for user_id in list(islice(self._presence, PER_EDU))]
            edus.append(presence_edu(presence, now))
        while self._receipts and len(edus) < limit:
            batch = self._next_receipts()
            receipts += batch
            edus.append(receipts_edu(batch))
        while self._typing and len(edus) < limit:
            typist = self._typing.pop(next(iter(self._typing)))
            if now - typist.at < TYPING_FRESH_MS:
                edus.append(typing_edu(typist))
        return edus, Taken(tuple(receipts), tuple(presence))

    def put_back(self, taken: Taken) -> None:
        """It did not arrive. What was said since then stands."""
        self._receipts = {**{_key(receipt): receipt for receipt in taken.receipts}, **self._receipts}
        self._presence = {**{state.user_id: state for state in taken.presence}, **self._presence}
        _trim(self._receipts, MAX_RECEIPTS)
        _trim(self._presence, MAX_PRESENCE)

    def _next_receipts(self) -> list[Receipt]:
        """Some that one EDU can hold: in a room, a user has one place in it, whatever the thread."""
        batch: dict[ReceiptKey, Receipt] = {}
        for receipt in islice(self._receipts.values(), PER_EDU):
            batch.setdefault((receipt.room_id, receipt.receipt_type, receipt.user_id, ""), receipt)
        for receipt in batch.values():
            del self._receipts[_key(receipt)]
        return list(batch.values())


def typing_edu(typist: Typist) -> bytes:
    """m.typing."""
    content = {"room_id": typist.room_id, "user_id": typist.user_id, "typing": typist.typing}
    return edu("m.typing", content)


def presence_edu(states: Iterable[PresenceState], now: int) -> bytes:
    """m.presence, with how long ago each was active at `now` (milliseconds)."""
    push = []
    for state in states:
        entry: dict[str, Any] = {
            "user_id": state.user_id,
            "presence": state.state,
            "last_active_ago": max(0, now - state.last_active_ts),
            "currently_active": state.currently_active,
        }
        if state.status_msg is not None:
            entry["status_msg"] = state.status_msg
        push.append(entry)
    return edu("m.presence", {"push": push})


def receipts_edu(receipts: Iterable[Receipt]) -> bytes:
    """m.receipt."""
    content: dict[str, dict[str, dict[str, Any]]] = {}
    for receipt in receipts:
        data = orjson.loads(receipt.data)
        kept: dict[str, Any] = {"ts": data.get("ts", 0)}
        if receipt.thread_id:
            kept["thread_id"] = receipt.thread_id
        users = content.setdefault(receipt.room_id, {}).setdefault(receipt.receipt_type, {})
        users[receipt.user_id] = {"event_ids": [receipt.event_id], "data": kept}
    return edu("m.receipt", content)


def edu(edu_type: str, content: Mapping[str, Any]) -> bytes:
    """An EDU as canonical JSON."""
    return canonical.encode({"edu_type": edu_type, "content": content})


def _key(receipt: Receipt) -> ReceiptKey:
    return receipt[:4]


def _put(kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept.pop(key, None)  # so that it becomes the newest
    kept[key] = value
    _trim(kept, most)


def _trim(kept: dict[Any, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
