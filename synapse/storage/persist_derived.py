"""What follows from an event for the tables beside it: rows, from plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from synapse.api.constants import EventTypes, Membership, RelationTypes
from synapse.api.identifiers import domain_of, is_room_alias
from synapse.events.event import Event, StateKey
from synapse.storage.persist_events import NewEvent, Replaced
from synapse.storage.persist_received_rows import ReceivedRow
from synapse.storage.persist_rows import STATS_OF_STATE, Rows
from synapse.storage.relations import AGGREGATED, Relation, relation_kept_of

_COUNTED = {Membership.JOIN: "joined_members", Membership.INVITE: "invited_members"}
# What a room list may show as such; content is anybody's.
_FORMS: dict[str, Callable[[str], bool]] = {
    "canonical_alias": is_room_alias,
    # Old rooms have pictures on the web.
    "avatar_url": lambda text: text.startswith(("mxc://", "https://", "http://")),
}


class Change(NamedTuple):
    """A change of a room's present state: from which entry (None: there was none) to which event (None: it is gone)."""

    key: StateKey
    old: Replaced
    new: Event | None


def write_event(rows: Rows, new: NewEvent, position: int, group: int, now: int, replaces: str | None) -> None:
    """The event itself, its transaction id, its auth events (of state events alone), and whom it concerns.

    `replaces` is the state event whose place it takes.
    """
    event = new.event
    relation = relation_of_row(event)
    rows.events.append(
        (
            position,
            event.event_id,
            event.room_id,
            event.depth,
            event.type,
            event.state_key,
            event.sender,
            event.origin_server_ts,
            now,
            group,
            has_url(event),
            None if relation is None else relation.event_id,
            None if relation is None else relation.rel_type,
            replaces,
            event.json.decode(),
            new.relay,
        )
    )
    if new.txn is not None:
        rows.txns[new.txn] = (*new.txn, event.event_id, now)
    if relation is not None:
        write_relation(rows, event, relation, position)
    if event.is_state():
        write_auth_events(rows, event)
        if event.type == EventTypes.MEMBER:
            rows.memberships.append(membership_row(event, position))
    write_audience(rows, new, position)


def received_row(event: Event, position: int, group: int | None, now: int) -> ReceivedRow:
    """The row of an event of another server's making, of which nothing else is to be said. Without a group, it is an
    outlier."""
    return ReceivedRow(
        stream_ordering=position,
        event_id=event.event_id,
        room_id=event.room_id,
        depth=event.depth,
        type=event.type,
        state_key=event.state_key,
        sender=event.sender,
        origin_server_ts=event.origin_server_ts,
        received_ts=now,
        state_group=group,
        outlier=group is None,
        soft_failed=False,
        rejected=None,
        redacted_by=None,
        contains_url=has_url(event),
        relates_to=None,
        relation_type=None,
        replaces=None,
        json=event.json.decode(),
        relay=None,
        after_gap=False,
        fills=None,
    )


def relation_of_row(event: Event) -> Relation | None:
    """The relation that stands in the event's row."""
    return relation_kept_of(event) if "m.relates_to" in event.content else None


def has_url(event: Event) -> bool:
    """Whether the event carries media."""
    return isinstance(event.content.get("url"), str)


def write_relation(rows: Rows, event: Event, relation: Relation, position: int) -> None:
    """What the event means for the one that it relates to."""
    if relation.rel_type in AGGREGATED:
        rows.parents.add((relation.event_id, event.room_id))
        if relation.rel_type == RelationTypes.THREAD:
            rows.threads.append((event.room_id, relation.event_id, event.sender, event.depth, position))


def write_auth_events(rows: Rows, event: Event) -> None:
    """What a state event cites."""
    rows.event_auth += [(event.event_id, cited) for cited in dict.fromkeys(event.auth_event_ids)]


def write_audience(rows: Rows, new: NewEvent, position: int) -> None:
    """Whom the event concerns, and what its sender has read."""
    event = new.event
    place = (event.room_id, position, event.event_id, new.thread_id)
    rows.push_actions += [(p.user_id, *place, p.notify, p.highlight, p.actions) for p in new.push]
    if event.type != EventTypes.MEMBER:
        rows.read[event.sender, event.room_id, new.thread_id] = position


def write_changes(rows: Rows, room_id: str, changes: Iterable[Change], position: int, server_name: str) -> None:
    """The room's present state, the history of its changes, and what is derived from it."""
    for key, old, new in changes:
        place = (room_id, *key)
        event_id = None if new is None else new.event_id
        membership = None if new is None else new.membership
        rows.current[place] = None if new is None else (*place, event_id, membership, position)
        rows.deltas[position, *place] = (position, *place, event_id, old.event_id)
        rows.change_stats(room_id, stats_change(key, old, new))
        if key[0] != EventTypes.MEMBER or domain_of(key[1]) != server_name:
            continue
        if new is not None and membership is not None:
            local = (key[1], room_id, membership, new.sender, new.event_id, position)
            rows.local_memberships[key[1], room_id] = local
        elif new is None and old.event_id is not None:
            # Overruled by what happened elsewhere: who has come by that is not in the room any more.
            local = (key[1], room_id, Membership.LEAVE, key[1], old.event_id, position)
            rows.local_memberships[key[1], room_id] = local


def write_redaction(rows: Rows, room_id: str, redaction: str, target_id: str, present: Event | None) -> None:
    """A redaction comes into force. `present` is the room's present state where the target would stand."""
    rows.redactions.setdefault(target_id, (redaction, room_id))
    if present is not None and present.event_id == target_id:
        rows.change_stats(room_id, stats_change(present.key, Replaced(target_id), present.redacted()))


def stats_change(key: StateKey, old: Replaced, new: Event | None) -> dict[str, Any]:
    """What the change of an entry means for `room_stats`."""
    if key[0] == EventTypes.MEMBER:
        changes: dict[str, Any] = {}
        for membership, step in ((old.membership, -1), (None if new is None else new.membership, 1)):
            column = _COUNTED.get(membership or "")
            if column is not None:
                changes[column] = changes.get(column, 0) + step
        return {column: step for column, step in changes.items() if step}
    column, name = STATS_OF_STATE.get(key[0], (None, "")) if key[1] == "" else (None, "")
    if column is None:
        return {}
    text = None if new is None else _text(new.content.get(name))
    is_such = _FORMS.get(column)
    return {column: text if text is None or is_such is None or is_such(text) else None}


def membership_row(event: Event, position: int) -> tuple[Any, ...]:
    """A row of `memberships`."""
    content = event.content
    return (
        event.event_id,
        event.room_id,
        event.state_key,
        event.sender,
        _text(event.membership) or "",
        _text(content.get("displayname")),
        _text(content.get("avatar_url")),
        position,
    )


def _text(value: Any) -> str | None:
    """A text of an event as a column can hold it; events may have anything where the specification has a text."""
    return value.replace("\x00", "") if isinstance(value, str) else None
