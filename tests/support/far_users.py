"""Other servers' users in rooms of a server under test: rows as the writer would leave them, told as it would."""

from __future__ import annotations

from typing import Any

from synapse.app._homeserver import Homeserver
from synapse.replication.event_rows import StateRow
from synapse.storage.database import Transaction

_EVENT = "$of-{}-{}"


async def put_into_room(
    hs: Homeserver, room_id: str, user_id: str, membership: str = "join", *, as_event: bool = False
) -> None:
    """Gives a user a membership in a room, though no event says so; `as_event`: the tables of changes have it too."""

    def write(txn: Transaction) -> str | None:
        txn.execute(
            "SELECT membership FROM current_state WHERE room_id = %s AND type = 'm.room.member' AND state_key = %s",
            (room_id, user_id),
        )
        row = txn.one_or_none()
        event_id = _EVENT.format(membership, user_id)
        values: dict[str, Any] = {"room": room_id, "user": user_id, "event": event_id, "membership": membership}
        txn.execute(
            """
            INSERT INTO current_state (room_id, type, state_key, event_id, membership, stream_ordering)
            VALUES (%(room)s, 'm.room.member', %(user)s, %(event)s, %(membership)s, 1)
            ON CONFLICT (room_id, type, state_key) DO UPDATE SET membership = EXCLUDED.membership
            """,
            values,
        )
        if as_event:
            txn.execute(
                """
                INSERT INTO memberships (event_id, room_id, user_id, sender, membership, stream_ordering)
                VALUES (%(event)s, %(room)s, %(user)s, %(user)s, %(membership)s, 1)
                """,
                values,
            )
            txn.execute(
                """
                INSERT INTO current_state_deltas (stream_ordering, room_id, type, state_key, event_id)
                VALUES (1, %(room)s, 'm.room.member', %(user)s, %(event)s)
                """,
                values,
            )
        return None if row is None else row[0]

    before = await hs.database.write("test", write)
    hs.queries.hosts.forget_all()
    row = StateRow(room_id, "m.room.member", user_id, "$new", None if before is None else "$old", membership, before)
    position = hs.notifier.position("events")
    hs.notifier.on_advance("events", position, [(position, row)])
