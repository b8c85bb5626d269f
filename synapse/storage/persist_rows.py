"""The rows that a batch of new events consists of, and their one transaction.

`Rows` is filled by `synapse.storage.persist_plan`, which knows what the events mean; here it is only known how they are
stored. All statements of a batch travel in a single round trip, one statement a table however many events there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.storage.event_txns import TxnKey
from synapse.storage.persist_entering_rows import Entered, KnownRoom, write_entered, write_known_rooms
from synapse.storage.persist_received_rows import (
    Lack,
    PendingRedaction,
    ReceivedRow,
    Released,
    columns_of,
    write_arrived,
    write_awaited,
    write_closed,
    write_received,
    write_released,
)
from synapse.storage.persist_relations import write_parents, write_redactions, write_threads

if TYPE_CHECKING:
    from synapse.storage.database import Transaction

Params = tuple[Any, ...]

STATS_OF_STATE: Final = {
    "m.room.name": ("name", "name"),
    "m.room.topic": ("topic", "topic"),
    "m.room.canonical_alias": ("canonical_alias", "alias"),
    "m.room.avatar": ("avatar_url", "url"),
    "m.room.join_rules": ("join_rules", "join_rule"),
    "m.room.history_visibility": ("history_visibility", "history_visibility"),
    "m.room.guest_access": ("guest_access", "guest_access"),
    "m.room.encryption": ("encryption", "algorithm"),
    "m.room.create": ("room_type", "type"),
}
"""Which column of room_stats each state event with an empty state key fills, and from which key of its content."""


class HeadChange(NamedTuple):
    """A row of room_heads."""

    room_id: str
    event_ids: list[str]
    state_group: int
    state_ordering: int
    stream_ordering: int


class Rows:
    """What one transaction writes. Where a row may change several times within a batch, only its last form is kept."""

    def __init__(self) -> None:
        self.events: list[Params] = []
        self.txns: dict[TxnKey, Params] = {}
        self.rooms: list[Params] = []
        self.aliases: list[Params] = []
        self.event_auth: list[Params] = []
        self.state_groups: list[Params] = []
        self.group_entries: list[Params] = []
        self.current: dict[tuple[str, str, str], Params | None] = {}  # None: the entry is gone
        self.deltas: dict[Params, Params] = {}
        self.memberships: list[Params] = []
        self.local_memberships: dict[tuple[str, str], Params] = {}
        self.stats: dict[str, dict[str, Any]] = {}
        self.heads: dict[str, HeadChange] = {}
        self.push_actions: list[Params] = []
        self.read: dict[tuple[str, str, str], int] = {}  # who has, by writing, read a room's thread up to where
        self.parents: set[tuple[str, str]] = set()  # (event, room): it is related to
        self.threads: list[Params] = []  # (room, root, sender, depth, position) of events in threads
        self.redactions: dict[str, tuple[str, str]] = {}  # target: (redaction, room)
        self.received: list[ReceivedRow] = []  # events of others' making
        self.arrived: list[ReceivedRow] = []  # likewise, which were here as outliers
        self.lacks: list[Lack] = []
        self.pending: list[PendingRedaction] = []
        self.released: list[Released] = []
        self.come: list[tuple[str, str]] = []  # (room, event): was awaited
        self.closed: list[tuple[str, int]] = []  # (room, position) of gaps
        self.known_rooms: dict[str, KnownRoom] = {}  # those that this server does not create
        self.entered: list[Entered] = []

    def add(self, other: Rows) -> None:
        """Take over the rows of an event that comes after those that are here."""
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if name == "stats":
                for room_id, changes in theirs.items():
                    self.change_stats(room_id, changes)
            elif isinstance(mine, list):
                mine.extend(theirs)
            else:
                mine.update(theirs)

    def change_stats(self, room_id: str, changes: dict[str, Any]) -> None:
        """Columns of room_stats: texts replace what is there, numbers of members are added to it."""
        if not changes:
            return
        stats = self.stats.setdefault(room_id, {})
        for column, value in changes.items():
            stats[column] = stats.get(column, 0) + value if column in _COUNTED else value

    def write(self, txn: Transaction) -> None:
        """All of it, to be sent with the COMMIT."""
        write_received(txn, self.received)
        write_arrived(txn, self.arrived)
        write_known_rooms(txn, self.known_rooms)
        for sql, rows in (
            (_MEMBERSHIPS, self.memberships),
            (_EVENTS, self.events),
            (_TXNS, self.txns.values()),
            (_ROOMS, self.rooms),
            (_ALIASES, self.aliases),
            (_EVENT_AUTH, self.event_auth),
            (_STATE_GROUPS, self.state_groups),
            (_GROUP_ENTRIES, self.group_entries),
        ):
            _later(txn, sql, rows)
        write_entered(txn, self.entered)
        _later(txn, _CURRENT, [row for row in self.current.values() if row is not None])
        _later(txn, _DELTAS, self.deltas.values())
        _later(txn, _HEADS, self.heads.values())
        gone = [key for key, row in self.current.items() if row is None]
        if gone:
            txn.later(_CURRENT_GONE, [list(column) for column in zip(*gone, strict=True)])
        self._write_stats(txn)
        if self.local_memberships:
            columns = zip(*self.local_memberships.values(), strict=True)
            txn.planned_later(_LOCAL_MEMBERSHIPS, dict(zip(_LOCAL_COLUMNS, map(list, columns), strict=True)))
        self._write_push_actions(txn)
        write_parents(txn, self.parents)
        write_threads(txn, self.threads)
        write_redactions(txn, self.redactions)
        write_awaited(txn, self.lacks, self.pending, self.come)
        write_released(txn, self.released)
        write_closed(txn, self.closed)

    def _write_push_actions(self, txn: Transaction) -> None:
        """What is unread from now on, and what is not any more, in one statement."""
        if not self.read and not self.push_actions:
            return
        new = [row for row in self.push_actions if row[2] > self.read.get((row[0], row[1], row[4]), 0)]
        read = [(*key, position) for key, position in self.read.items()]
        txn.planned_later(_PUSH_ACTIONS, [*columns_of(read, 4), *columns_of(new, 8)])

    def _write_stats(self, txn: Transaction) -> None:
        by_columns: dict[tuple[str, ...], list[Params]] = {}
        for room_id, stats in self.stats.items():
            columns = tuple(sorted(stats))
            by_columns.setdefault(columns, []).append((room_id, *(stats[column] for column in columns)))
        for columns, rows in by_columns.items():
            changes = ", ".join(
                f"{column} = room_stats.{column} + excluded.{column}"
                if column in _COUNTED
                else f"{column} = excluded.{column}"
                for column in columns
            )
            _later(
                txn,
                f"INSERT INTO room_stats (room_id, {', '.join(columns)}) VALUES %s "
                f"ON CONFLICT (room_id) DO UPDATE SET {changes}",
                rows,
            )


def _later(txn: Transaction, sql: str, rows: Iterable[Params]) -> None:
    txn.values(sql, rows, later=True)


_COUNTED: Final = frozenset({"joined_members", "invited_members"})

_EVENTS: Final = """
    INSERT INTO events (stream_ordering, event_id, room_id, depth, type, state_key, sender, origin_server_ts,
        received_ts, state_group, contains_url, relates_to, relation_type, replaces, json, relay) VALUES %s
"""
_TXNS: Final = "INSERT INTO event_txns (user_id, device_id, room_id, txn_id, event_id, sent_ts) VALUES %s"
_ROOMS: Final = "INSERT INTO rooms (room_id, creator, room_version, is_public, created_ts) VALUES %s"
_ALIASES: Final = "INSERT INTO room_aliases (alias, room_id, creator) VALUES %s"
# What was an outlier has these already.
_EVENT_AUTH: Final = "INSERT INTO event_auth (event_id, auth_event_id) VALUES %s ON CONFLICT DO NOTHING"
_STATE_GROUPS: Final = "INSERT INTO state_groups (id, room_id, prev_group, base_group, number) VALUES %s"
_GROUP_ENTRIES: Final = "INSERT INTO state_group_entries (state_group, type, state_key, event_id) VALUES %s"
_CURRENT: Final = """
    INSERT INTO current_state (room_id, type, state_key, event_id, membership, stream_ordering) VALUES %s
    ON CONFLICT (room_id, type, state_key) DO UPDATE
    SET event_id = excluded.event_id, membership = excluded.membership, stream_ordering = excluded.stream_ordering
"""
_CURRENT_GONE: Final = """
    DELETE FROM current_state c USING unnest(%s::text[], %s::text[], %s::text[]) AS gone (room_id, type, state_key)
    WHERE (c.room_id, c.type, c.state_key) = (gone.room_id, gone.type, gone.state_key)
"""
_DELTAS: Final = """
    INSERT INTO current_state_deltas (stream_ordering, room_id, type, state_key, event_id, prev_event_id) VALUES %s
"""
_MEMBERSHIPS: Final = """
    INSERT INTO memberships (event_id, room_id, user_id, sender, membership, display_name, avatar_url, stream_ordering)
    VALUES %s ON CONFLICT (event_id) DO UPDATE SET stream_ordering = excluded.stream_ordering
    WHERE memberships.stream_ordering < 0 AND excluded.stream_ordering > 0
"""
# A room that was forgotten stays so until its user enters or is asked in again.
# Who comes or goes begins anew to count what is unread: by then, an invite has been seen. A new name is no coming.
_LOCAL_COLUMNS: Final = ("users", "rooms", "memberships", "senders", "events", "positions")
_LOCAL_MEMBERSHIPS: Final = """
    WITH done AS (
        DELETE FROM push_actions
        USING unnest(%(users)s::text[], %(rooms)s::text[], %(positions)s::bigint[], %(memberships)s::text[])
            AS turn (user_id, room_id, position, membership)
        LEFT JOIN local_memberships was ON (was.user_id, was.room_id) = (turn.user_id, turn.room_id)
        WHERE (push_actions.user_id, push_actions.room_id) = (turn.user_id, turn.room_id)
            AND was.membership IS DISTINCT FROM turn.membership
            AND push_actions.stream_ordering < turn.position
    )
    INSERT INTO local_memberships (user_id, room_id, membership, sender, event_id, stream_ordering)
    SELECT * FROM unnest(%(users)s::text[], %(rooms)s::text[], %(memberships)s::text[], %(senders)s::text[],
        %(events)s::text[], %(positions)s::bigint[])
    ON CONFLICT (user_id, room_id) DO UPDATE
    SET membership = excluded.membership, sender = excluded.sender, event_id = excluded.event_id,
        stream_ordering = excluded.stream_ordering,
        forgotten = local_memberships.forgotten AND excluded.membership IN ('leave', 'ban')
"""
_HEADS: Final = """
    INSERT INTO room_heads (room_id, event_ids, state_group, state_ordering, stream_ordering) VALUES %s
    ON CONFLICT (room_id) DO UPDATE
    SET event_ids = excluded.event_ids, state_group = excluded.state_group,
        state_ordering = excluded.state_ordering, stream_ordering = excluded.stream_ordering
"""
# Who writes has read what came before (client-server API, "Marking notifications as read").
_PUSH_ACTIONS: Final = """
    WITH done AS (
        DELETE FROM push_actions USING unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
            AS read (user_id, room_id, thread_id, position)
        WHERE (push_actions.user_id, push_actions.room_id) = (read.user_id, read.room_id)
            AND push_actions.thread_id = read.thread_id AND push_actions.stream_ordering <= read.position
    )
    INSERT INTO push_actions (user_id, room_id, stream_ordering, event_id, thread_id, notify, highlight, actions)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::boolean[], %s::boolean[],
        %s::text[])
"""
