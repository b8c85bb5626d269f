"""Rooms made by hand: rows as the writer of events would leave them, for tests of what reads them.

`World` puts events into the tables one after another, each at the next stream position and in a state group of its
own where it is state, and keeps current state, memberships and statistics in step. It signs nothing and checks
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from synapse.storage import persist_relations
from synapse.storage.database import Database, Transaction
from synapse.storage.past_state import Delta
from synapse.storage.relations import AGGREGATED
from synapse.storage.timeline import TimelineRow

SERVER = "test"
START_TS = 1_600_000_000_000

Key = tuple[str, str]


@dataclass
class Room:
    """A room's head as the builder knows it."""

    room_id: str
    version: str
    depth: int = 0
    prev: list[str] = field(default_factory=list)
    group: int | None = None
    number: int = -1
    state: dict[Key, str] = field(default_factory=dict)
    memberships: dict[str, str] = field(default_factory=dict)


@dataclass
class World:
    """The server's rooms. `on_event` is called with each new row and its delta, as the stream would tell them."""

    db: Database
    stream: int = 0
    groups: int = 0
    ids: int = 0
    rooms: dict[str, Room] = field(default_factory=dict)
    on_event: list[Callable[[TimelineRow, Delta | None], None]] = field(default_factory=list)

    def event_id(self) -> str:
        self.ids += 1
        return f"${self.ids:043d}"

    async def room(
        self,
        creator: str = "@alice:test",
        *,
        visibility: str | None = None,
        version: str = "12",
        **state: dict[str, Any],
    ) -> str:
        """A room with its creator joined; `state` is content by type, dots written as two underscores."""
        room = Room(f"!{len(self.rooms) + 1:043d}", version)
        self.rooms[room.room_id] = room
        await self.db.write("world.room", _insert_room, room, creator)
        await self.state(room.room_id, creator, "m.room.create", {"room_version": version})
        await self.member(room.room_id, creator)
        await self.state(room.room_id, creator, "m.room.power_levels", {"users": {}})
        await self.state(room.room_id, creator, "m.room.join_rules", {"join_rule": "public"})
        if visibility is not None:
            await self.state(room.room_id, creator, "m.room.history_visibility", {"history_visibility": visibility})
        for name, content in state.items():
            await self.state(room.room_id, creator, name.replace("__", "."), content)
        return room.room_id

    async def member(
        self, room_id: str, user_id: str, membership: str = "join", sender: str | None = None, **content: Any
    ) -> TimelineRow:
        content = {"membership": membership, **content}
        return await self.event(room_id, sender or user_id, "m.room.member", content, user_id)

    async def state(
        self, room_id: str, sender: str, event_type: str, content: dict[str, Any], state_key: str = ""
    ) -> TimelineRow:
        return await self.event(room_id, sender, event_type, content, state_key)

    async def message(self, room_id: str, sender: str, body: str = "hello", **content: Any) -> TimelineRow:
        return await self.event(room_id, sender, "m.room.message", {"msgtype": "m.text", "body": body, **content})

    async def event(
        self,
        room_id: str,
        sender: str,
        event_type: str,
        content: dict[str, Any],
        state_key: str | None = None,
        **columns: Any,
    ) -> TimelineRow:
        """Any event. `columns` override those of the events table, and `depth`.

        Where forks meet, the rules decide: with `loses`, a state event does not become part of the state; with `turn`
        (type, state key, event id), an entry of the state goes back to what an earlier event says.
        """
        room = self.rooms[room_id]
        self.stream += 1
        room.depth = columns.pop("depth", room.depth + 1)
        event_id = columns.pop("event_id", None) or self.event_id()
        raw: dict[str, Any] = {
            "auth_events": [],
            "content": content,
            "depth": room.depth,
            "hashes": {"sha256": ""},
            "origin_server_ts": columns.pop("origin_server_ts", START_TS + self.stream),
            "prev_events": room.prev,
            "room_id": room_id,
            "sender": sender,
            "signatures": {},
            "type": event_type,
            **columns.pop("extra", {}),
        }
        if state_key is not None:
            raw["state_key"] = state_key
        stream = columns.pop("stream", self.stream)
        json = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS).decode()
        prev_state = room.state.get((event_type, state_key or ""))
        prev_group = room.group
        loses, turn = columns.pop("loses", False), columns.pop("turn", None)
        is_current = state_key is not None and not columns.get("outlier") and not columns.get("soft_failed")
        is_current = is_current and not loses
        if is_current:
            self.groups += 1
            room.group, room.number = self.groups, room.number + 1
        relation = content.get("m.relates_to", {})
        row = TimelineRow(
            stream,
            room_id,
            event_id,
            room.depth,
            event_type,
            state_key,
            sender,
            raw["origin_server_ts"],
            room.group,
            columns.get("redacted_by"),
            "url" in content,
            json,
            prev_state if is_current else None,
        )
        hidden = {name: columns.get(name) for name in ("outlier", "soft_failed", "rejected")}
        await self.db.write("world.event", _insert_event, row, hidden, relation, prev_group, room.number, is_current)
        delta = None
        if is_current and state_key is not None:
            await self.db.write("world.state", _insert_state, row, content, prev_state, SERVER)
            room.state[event_type, state_key] = event_id
            if event_type == "m.room.member":
                room.memberships[state_key] = content["membership"]
            delta = Delta(stream, room_id, event_type, state_key, event_id, prev_state)
        if turn is not None:
            delta = Delta(stream, room_id, *turn, room.state[turn[:2]])
            room.state[turn[:2]] = turn[2]
            await self.db.write("world.turn", _turn_state, delta)
        room.prev = [event_id]
        for tell in self.on_event:
            tell(row, delta)
        return row

    async def redact(self, row: TimelineRow, sender: str, reason: str = "because") -> TimelineRow:
        redaction = await self.event(
            row.room_id, sender, "m.room.redaction", {"redacts": row.event_id, "reason": reason}
        )
        changed = {row.event_id: (redaction.event_id, row.room_id)}
        await self.db.write("world.redact", persist_relations.write_redactions, changed)
        return redaction

    async def push_action(
        self, user_id: str, row: TimelineRow, *, highlight: bool = False, thread_id: str = "main"
    ) -> None:
        await self.sql(
            "INSERT INTO push_actions VALUES (%s, %s, %s, %s, %s, true, %s, '[]')",
            user_id,
            row.room_id,
            row.stream,
            row.event_id,
            thread_id,
            highlight,
        )

    async def sql(self, sql: str, *params: Any) -> None:
        await self.db.write("world.sql", lambda txn: txn.execute(sql, params))


def _insert_room(txn: Transaction, room: Room, creator: str) -> None:
    txn.execute(
        "INSERT INTO rooms (room_id, creator, room_version, created_ts) VALUES (%s, %s, %s, %s)",
        (room.room_id, creator, room.version, START_TS),
    )
    txn.execute("INSERT INTO room_stats (room_id) VALUES (%s)", (room.room_id,))


def _insert_event(
    txn: Transaction,
    row: TimelineRow,
    hidden: dict[str, Any],
    relation: dict[str, Any],
    prev_group: int | None,
    number: int,
    is_current: bool,
) -> None:
    txn.execute(
        """
        INSERT INTO events (stream_ordering, event_id, room_id, depth, type, state_key, sender, origin_server_ts,
            received_ts, state_group, outlier, soft_failed, rejected, redacted_by, contains_url, relates_to,
            relation_type, json, replaces)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            row.stream,
            row.event_id,
            row.room_id,
            row.depth,
            row.type,
            row.state_key,
            row.sender,
            row.origin_server_ts,
            row.origin_server_ts,
            None if hidden["outlier"] else row.state_group,
            bool(hidden["outlier"]),
            bool(hidden["soft_failed"]),
            hidden["rejected"],
            row.redacted_by,
            row.contains_url,
            relation.get("event_id"),
            relation.get("rel_type"),
            row.json,
            row.replaces,
        ),
    )
    is_shown = not any(hidden.values())
    if is_shown and relation.get("rel_type") in AGGREGATED:
        persist_relations.write_parents(txn, [(relation["event_id"], row.room_id)])
    if is_shown and relation.get("rel_type") == "m.thread":
        persist_relations.write_threads(txn, [(row.room_id, relation["event_id"], row.sender, row.depth, row.stream)])
    if is_current:
        txn.execute(
            "INSERT INTO state_groups (id, room_id, prev_group, base_group, number) VALUES (%s, %s, %s, %s, %s)",
            (row.state_group, row.room_id, prev_group, prev_group, number),
        )
        txn.execute(
            "INSERT INTO state_group_entries VALUES (%s, %s, %s, %s)",
            (row.state_group, row.type, row.state_key, row.event_id),
        )


def _insert_state(
    txn: Transaction, row: TimelineRow, content: dict[str, Any], prev_event_id: str | None, server: str
) -> None:
    membership = content.get("membership") if row.type == "m.room.member" else None
    txn.execute(
        """
        INSERT INTO current_state VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (room_id, type, state_key) DO UPDATE
        SET event_id = EXCLUDED.event_id, membership = EXCLUDED.membership, stream_ordering = EXCLUDED.stream_ordering
        """,
        (row.room_id, row.type, row.state_key, row.event_id, membership, row.stream),
    )
    txn.execute(
        "INSERT INTO current_state_deltas VALUES (%s, %s, %s, %s, %s, %s)",
        (row.stream, row.room_id, row.type, row.state_key, row.event_id, prev_event_id),
    )
    if membership is not None:
        _insert_membership(txn, row, content, server)
    columns = {"m.room.name": ("name", "name"), "m.room.canonical_alias": ("canonical_alias", "alias")}
    columns |= {"m.room.encryption": ("encryption", "algorithm")}
    if row.type in columns:
        column, key = columns[row.type]
        txn.execute(f"UPDATE room_stats SET {column} = %s WHERE room_id = %s", (content.get(key), row.room_id))


def _turn_state(txn: Transaction, delta: Delta) -> None:
    txn.execute(
        "UPDATE current_state SET event_id = %s, stream_ordering = %s WHERE (room_id, type, state_key) = (%s, %s, %s)",
        (delta.event_id, delta.stream, *delta.entry),
    )
    txn.execute(
        "INSERT INTO current_state_deltas VALUES (%s, %s, %s, %s, %s, %s)",
        (delta.stream, *delta.entry, delta.event_id, delta.prev_event_id),
    )


def _insert_membership(txn: Transaction, row: TimelineRow, content: dict[str, Any], server: str) -> None:
    membership, user_id = content["membership"], row.state_key
    txn.execute(
        "INSERT INTO memberships VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            row.event_id,
            row.room_id,
            user_id,
            row.sender,
            membership,
            content.get("displayname"),
            content.get("avatar_url"),
            row.stream,
        ),
    )
    if user_id is not None and user_id.endswith(f":{server}"):
        txn.execute(
            """
            INSERT INTO local_memberships VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (user_id, room_id) DO UPDATE
            SET membership = EXCLUDED.membership, sender = EXCLUDED.sender, event_id = EXCLUDED.event_id,
                stream_ordering = EXCLUDED.stream_ordering, forgotten = false
            """,
            (user_id, row.room_id, membership, row.sender, row.event_id, row.stream),
        )
    txn.execute(
        """
        UPDATE room_stats SET (joined_members, invited_members) = (
            SELECT COUNT(*) FILTER (WHERE membership = 'join'), COUNT(*) FILTER (WHERE membership = 'invite')
            FROM current_state WHERE room_id = %s AND type = 'm.room.member'
        ) WHERE room_id = %s
        """,
        (row.room_id, row.room_id),
    )
