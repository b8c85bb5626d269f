"""The table of streams: rows that survive the wire, and readers that neither skip nor repeat."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from synapse.replication.event_rows import EventRow, StateRow
from synapse.replication.streams import (
    BY_NAME,
    STREAMS,
    TOKEN_FIELDS,
    PrivateDeviceListRow,
    ReceiptRow,
    Stream,
    concerned,
)
from synapse.storage.database import Database
from synapse.storage.transaction import Transaction
from synapse.sync.tokens import StreamToken

EVENT = EventRow("!r", "$e", 3, "m.room.message", None, "@a:x", 1, ("$d",), 7, True, None, '{"a":"\\u0000\\n"}')
ROWS: dict[str, Any] = {
    "events": EVENT,
    "typing": ("!r", ["@a:x"]),
    "presence": "@a:x",
    "receipts": ReceiptRow("!r", "@a:x"),
    "account_data": "@a:x",
    "to_device": "@a:x",
    "device_lists": "@a:x",
    "push_rules": "@a:x",
    "caches": ("c", ["a", "b"]),
}
INSERTS = {
    "presence": "INSERT INTO presence VALUES (%(n)s, '@u%(n)s:x', 'online', NULL, 1, true)",
    "receipts": "INSERT INTO receipts VALUES (%(n)s, '!r', 'm.read', '@u%(n)s:x', '', '$e', 1, '{}')",
    "account_data": "INSERT INTO account_data VALUES ('@u%(n)s:x', '', 't', '{}', %(n)s)",
    "to_device": "INSERT INTO to_device_messages VALUES (%(n)s, '@u%(n)s:x', 'D', '{}'),"
    " (%(n)s, '@v%(n)s:x', 'D', '{}'), (%(n)s, '@v%(n)s:x', 'E', '{}')",
    "device_lists": "INSERT INTO device_lists_private SELECT %(n)s, '@v%(n)s:x', '{@w:x}' WHERE %(n)s IN (2, 3, 5);"
    " INSERT INTO device_lists_stream SELECT %(n)s, '@u%(n)s:x', 'D' WHERE %(n)s <> 5",
    "push_rules": "INSERT INTO push_rules_stream VALUES (%(n)s, '@u%(n)s:x')",
}


def test_the_fields_of_a_sync_token_are_the_streams() -> None:
    assert StreamToken._fields == TOKEN_FIELDS


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_rows_survive_the_wire(stream: Stream) -> None:
    row = ROWS[stream.name]
    line = msgspec.json.encode(row)
    assert b"\n" not in line
    assert stream.decode(line) == row


def test_a_state_row_survives_too() -> None:
    row = StateRow("!r", "m.room.name", "", None, "$old")
    assert BY_NAME["events"].decode(msgspec.json.encode(row)) == row


def test_whom_rows_concern_is_gathered() -> None:
    member = EventRow("!s", "$m", 3, "m.room.member", "@b:x", "@a:x", 1, (), 7, False, None, "")
    assert concerned(BY_NAME["events"], [(1, EVENT), (2, member)]) == ({"@b:x"}, {"!r", "!s"}, set())
    assert concerned(BY_NAME["presence"], [(1, "@a:x")]) == ({"@a:x"}, set(), {"@a:x"})
    rows = [(1, PrivateDeviceListRow("@a:x")), (2, "@b:x")]
    assert concerned(BY_NAME["device_lists"], rows) == ({"@a:x", "@b:x"}, set(), {"@b:x"})


def test_private_changes_of_device_lists_survive_too() -> None:
    row = PrivateDeviceListRow("@a:x")
    assert BY_NAME["device_lists"].decode_all(msgspec.json.encode([row, "@b:x"])) == [row, "@b:x"]


@pytest.mark.parametrize("name", INSERTS)
@ensureDeferred
async def test_readers_neither_skip_nor_repeat(database: Database, name: str) -> None:
    stream = BY_NAME[name]
    read = stream.read
    assert read is not None

    def fill(txn: Transaction) -> None:
        for position in range(1, 8):
            txn.execute(INSERTS[name].replace("%(n)s", str(position)))

    await database.write("fill", fill)
    whole = list(await database.read("read", read, 0, 7, 1000))
    assert sorted({position for position, _ in whole}) == list(range(1, 8))
    for limit in (1, 2, 3):
        after, pieces = 0, []
        while page := list(await database.read("read", read, after, 6, limit)):
            positions = {position for position, _ in page}
            assert len(page) >= min(limit, len(positions))
            pieces += page
            after = page[-1][0]
        assert pieces == [row for row in whole if row[0] <= 6]
    assert [position for position, _ in await database.read("read", read, 3, 5, 1000)] == sorted(
        position for position, _ in whole if 3 < position <= 5
    )


class _Nothing:
    """A transaction of which only the SQL matters."""

    def execute(self, sql: str, params: Any) -> None:
        self.params = params

    def rows(self) -> list[Any]:
        return []


@settings(suppress_health_check=[*settings.default.suppress_health_check, HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(1, 1000))
def test_readers_take_any_position(after: int, until: int, limit: int) -> None:
    for stream in STREAMS:
        if stream.read is not None:
            txn: Any = _Nothing()
            assert list(stream.read(txn, after, until, limit)) == []
