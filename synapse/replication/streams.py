"""The streams: what processes tell one another, declared once.

A stream is a sequence of rows, each at a position; several rows may share one. The main process hands positions out and
announces them in order. `STREAMS` says for each stream what its rows are, how a process that was away reads what
it missed from the database, and whom a row concerns. The order of those with `in_token` is that of the fields of a
sync token.

Two streams are kept in memory. `typing` is a snapshot of what is true now: who was away gets the snapshot, never
history. `caches` says what to forget: who was away forgets everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from synapse.replication import event_rows
from synapse.replication.event_rows import EventRow

if TYPE_CHECKING:
    from synapse.storage.transaction import Transaction

Rows = Sequence[tuple[int, Any]]
Reader = Callable[["Transaction", int, int, int], Rows]

PAGE: Final = 500
"""Rows that a process reads at a time to catch up."""


class Concerned(NamedTuple):
    """Whom a row concerns: users, rooms (and thereby who is in them), and users whose rooms' members it concerns."""

    users: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    contacts_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """One stream.

    `read(txn, after, until, limit)` returns the rows of positions after < p ≤ until, in order; at least `limit` of
    them if there are as many, and of each position all. None for a stream that is kept in memory.
    """

    name: str
    row: Any  # a type that msgspec reads and writes
    concerns: Callable[[Any], Concerned]
    read: Reader | None = None
    maximum: str = ""  # the SQL expression of the highest position in the tables
    in_token: bool = True
    has_snapshot: bool = False  # in memory, and who joins is told what is true now
    encode: Callable[[Any], bytes] = msgspec.json.encode

    @property
    def in_database(self) -> bool:
        return self.read is not None

    @cached_property
    def decode(self) -> Callable[[bytes | str], Any]:
        """A row from its JSON. Raises `msgspec.DecodeError`."""
        return msgspec.json.Decoder(self.row).decode

    @cached_property
    def decode_all(self) -> Callable[[bytes | str], list[Any]]:
        """Rows from a JSON list of them."""
        return msgspec.json.Decoder(list[self.row]).decode  # type: ignore[name-defined]  # a type made at run time


def _event(row: event_rows.Row) -> Concerned:
    if isinstance(row, EventRow) and row.type == "m.room.member" and row.state_key is not None:
        return Concerned(users=(row.state_key,), rooms=(row.room_id,))
    return Concerned(rooms=(row.room_id,))


def _user(user_id: str) -> Concerned:
    return Concerned(users=(user_id,))


def _user_and_contacts(user_id: str) -> Concerned:
    return Concerned(users=(user_id,), contacts_of=(user_id,))


def _room(row: tuple[str, Any]) -> Concerned:
    return Concerned(rooms=(row[0],))


class ReceiptRow(NamedTuple):
    """A receipt that moved. A private one concerns its owner alone; others are told without the last field, as
    processes of the first release expect.
    """

    room_id: str
    user_id: str
    private: bool = False


def _receipt(row: ReceiptRow) -> Concerned:
    return Concerned(users=(row.user_id,)) if row.private else Concerned(rooms=(row.room_id,))


def _encode_receipt(row: ReceiptRow) -> bytes:
    return msgspec.json.encode(row if row.private else row[:2])


class PrivateDeviceListRow(NamedTuple):
    """A change of keys that this user alone can see."""

    user_id: str


DeviceListRow = str | PrivateDeviceListRow
"""Whose devices or keys changed, in the eyes of all who share a room with them; or who has to look by themselves."""


def _device_list(row: DeviceListRow) -> Concerned:
    return _user_and_contacts(row) if isinstance(row, str) else Concerned(users=(row.user_id,))


def _nobody(row: object) -> Concerned:
    return Concerned()


def _reader(columns: str, table: str, kind: Any) -> Reader:
    """Reads a table in which each position has one entry or several, each with its own entity."""
    # All rows of the last position, however many: a page never ends within one.
    sql = f"""
        SELECT DISTINCT stream_id, {columns} FROM {table}
        WHERE stream_id > %s AND stream_id <= LEAST(%s, COALESCE((
            SELECT stream_id FROM {table} WHERE stream_id > %s ORDER BY stream_id OFFSET %s LIMIT 1
        ), %s)) ORDER BY stream_id
    """

    def read(txn: Transaction, after: int, until: int, limit: int) -> Rows:
        txn.execute(sql, (after, until, after, limit - 1, until))
        return [(row[0], row[1] if kind is str else kind(*row[1:])) for row in txn.rows()]

    return read


def _read_device_lists(txn: Transaction, after: int, until: int, limit: int) -> Rows:
    """From two tables: a position may have a row in each."""
    fetched = limit + 2
    txn.execute(
        """
        SELECT stream_id, user_id, false FROM device_lists_stream WHERE stream_id > %(after)s AND stream_id <= %(until)s
        UNION ALL
        SELECT stream_id, user_id, true FROM device_lists_private WHERE stream_id > %(after)s AND stream_id <= %(until)s
        ORDER BY 1, 3 LIMIT %(fetched)s
        """,
        {"after": after, "until": until, "fetched": fetched},
    )
    found = txn.rows()
    if len(found) == fetched:  # there may be more of the last position
        found = [row for row in found if row[0] < found[-1][0]]
    return [(position, PrivateDeviceListRow(user_id) if private else user_id) for position, user_id, private in found]


def _of_table(
    name: str,
    concerns: Callable[[Any], Concerned],
    table: str = "",
    row: Any = str,
    columns: str = "user_id",
    encode: Callable[[Any], bytes] = msgspec.json.encode,
) -> Stream:
    table = table or name
    maximum = f"SELECT MAX(stream_id) FROM {table}"
    return Stream(name, row, concerns, _reader(columns, table, row), maximum, encode=encode)


# Users for whom there are messages, and servers whose users they are for.
_TO_DEVICE: Final = """(
    SELECT stream_id, user_id FROM to_device_messages UNION ALL SELECT stream_id, destination FROM to_device_outbox
) AS waiting"""

STREAMS: Final[tuple[Stream, ...]] = (
    Stream("events", event_rows.Row, _event, event_rows.read, "SELECT MAX(stream_ordering) FROM events"),
    Stream("typing", tuple[str, list[str]], _room, has_snapshot=True),
    _of_table("presence", _user_and_contacts),
    _of_table(
        "receipts",
        _receipt,
        row=ReceiptRow,
        columns="room_id, user_id, receipt_type = 'm.read.private'",
        encode=_encode_receipt,
    ),
    _of_table("account_data", _user),
    _of_table("to_device", _user, table=_TO_DEVICE),
    Stream(
        "device_lists",
        DeviceListRow,
        _device_list,
        _read_device_lists,
        "SELECT GREATEST((SELECT MAX(stream_id) FROM device_lists_stream), MAX(stream_id)) FROM device_lists_private",
    ),
    _of_table("push_rules", _user, table="push_rules_stream"),
    Stream("caches", tuple[str, str | list[str] | None], _nobody, in_token=False),
)
BY_NAME: Final = {stream.name: stream for stream in STREAMS}
TOKEN_FIELDS: Final = tuple(stream.name for stream in STREAMS if stream.in_token)


def concerned(stream: Stream, rows: Iterable[tuple[int, Any]]) -> tuple[set[str], set[str], set[str]]:
    """Whom rows concern, together: users, rooms, users whose contacts."""
    users: set[str] = set()
    rooms: set[str] = set()
    contacts: set[str] = set()
    for _, row in rows:
        each = stream.concerns(row)
        users.update(each.users)
        rooms.update(each.rooms)
        contacts.update(each.contacts_of)
    return users, rooms, contacts
