"""Events as clients see them: bytes of JSON, assembled from the stored bytes.

An event is stored as servers exchange it. Clients get a few of its keys, its id, and `unsigned`: what we know of it
besides. The content is never decoded for that: the wanted keys are cut out of the stored text and put together anew.
Only what is rare goes the long way through dicts: redacted events, redactions, and filters that ask for single
fields.

Client-server API, "Room event format" and "Redactions"; `unsigned`: `ClientEventWithoutRoomID`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

from synapse.api.constants import EventTypes
from synapse.api.filters import Path, only_fields
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.redaction import redact
from synapse.storage.event_txns import REDACT
from synapse.storage.timeline import Annotation, TimelineRow, TimelineStore
from synapse.sync.bundles import NO_BUNDLES, Bundle, Bundler, Child
from synapse.sync.visibility import Access

NOWHERE: Final[Mapping[str, Access]] = {}

Fields = tuple[Path, ...]
"""`event_fields` of a filter."""


class _Stored(msgspec.Struct, gc=False):
    """The keys of a stored event that clients get, uncut."""

    content: Raw
    origin_server_ts: Raw
    sender: Raw
    type: Raw
    state_key: Raw | UnsetType = UNSET


class _Content(msgspec.Struct, gc=False):
    content: Raw
    sender: Raw


_stored = msgspec.json.Decoder(_Stored)
_content = msgspec.json.Decoder(_Content)


class Notes:
    """What `unsigned` tells of some events besides their age, each by event id."""

    __slots__ = ("because", "bundles", "prev", "txn", "versions")

    def __init__(
        self,
        annotations: Iterable[Annotation],
        versions: Mapping[str, RoomVersion],
        bundles: Mapping[str, Bundle] = NO_BUNDLES,
    ) -> None:
        self.prev: dict[str, Annotation] = {}
        self.because: dict[str, Annotation] = {}
        self.txn: dict[str, str | None] = {}
        self.versions = versions
        self.bundles = bundles
        for annotation in annotations:
            if annotation.kind == "txn":
                self.txn[annotation.event_id] = annotation.text
            else:
                kind = self.prev if annotation.kind == "prev" else self.because
                kind[annotation.event_id] = annotation


NO_NOTES = Notes((), {})


class Annotator:
    """Finds the notes of events."""

    def __init__(self, timeline: TimelineStore, bundler: Bundler) -> None:
        self._timeline = timeline
        self._bundler = bundler
        self._versions: dict[str, RoomVersion] = {}  # of rooms with redacted events; a room never changes its version

    async def notes(
        self,
        rows: Sequence[TimelineRow],
        user_id: str,
        device_id: str | None,
        bundled: Mapping[str, Access] = NOWHERE,
    ) -> Notes:
        """One statement, none where there is nothing to tell; one more for rooms first seen to have redacted events.

        With `bundled`, how the user stands to those rooms whose events are to come with what relates to them; that is
        another statement where there is such a thing (`Bundler`).
        """
        annotations = await self._timeline.annotations(rows, user_id, device_id)
        bundles = await self._bundler.bundles(rows, user_id, device_id, bundled) if bundled else NO_BUNDLES
        redacted = {row.room_id for row in rows if row.redacted_by is not None}
        redacted.update(row.room_id for bundle in bundles.values() for row in bundle.redacted())
        if not (annotations or redacted or bundles):
            return NO_NOTES
        return Notes(annotations, await self._versions_of(redacted), bundles)

    async def versions(self, rows: Iterable[TimelineRow]) -> Notes:
        """Only what is needed to show redacted events as redacted: for state, where `unsigned` is of no interest."""
        redacted = {row.room_id for row in rows if row.redacted_by is not None}
        return Notes((), await self._versions_of(redacted)) if redacted else NO_NOTES

    async def _versions_of(self, room_ids: set[str]) -> dict[str, RoomVersion]:
        missing = [room_id for room_id in room_ids if room_id not in self._versions]
        if missing:
            if len(self._versions) > 10_000:
                self._versions.clear()
            found = await self._timeline.room_versions(missing)
            self._versions.update((room_id, room_version(version)) for room_id, version in found.items())
        return {room_id: self._versions[room_id] for room_id in room_ids if room_id in self._versions}


class Forms:
    """Writes events for one answer.

    `now` is in milliseconds. `room_ids` says whether events carry their room's id (all but those in /sync do), `old`
    whether also what the clients of the endpoints before /sync look for: the sender as `user_id`, and the age.
    `federation` hands out the events as servers see them (`event_format` of a filter), `fields` only parts of them.
    """

    def __init__(
        self,
        now: int,
        *,
        room_ids: bool,
        old: bool = False,
        federation: bool = False,
        fields: Fields | None = None,
    ) -> None:
        self._now = now
        self._room_ids = room_ids
        self._old = old
        self._federation = federation
        self._fields = fields

    def form(self, row: TimelineRow, notes: Notes = NO_NOTES, membership: str | None = None) -> bytes:
        """One event; `membership` is the reader's at the time of the event, where it is known."""
        if self._federation:
            return _federation_form(row, notes)
        form = self._finish(head(row, notes), row, self._unsigned(row, notes, membership))
        return form if self._fields is None else _select(form, self._fields)

    def of_head(self, head: bytes, row: TimelineRow) -> bytes:
        """An event of which the head is at hand, made by `head`. Not in the form of the federation."""
        form = self._finish(head, row, self._unsigned(row, NO_NOTES, None))
        return form if self._fields is None else _select(form, self._fields)

    def forms(self, rows: Iterable[TimelineRow], notes: Notes = NO_NOTES) -> list[orjson.Fragment]:
        """Several events, to stand in what orjson writes."""
        return [orjson.Fragment(self.form(row, notes)) for row in rows]

    def _finish(self, head: bytes, row: TimelineRow, unsigned: bytes) -> bytes:
        if self._old:
            head = b'%b,"user_id":%b,"age":%d' % (head, orjson.dumps(row.sender), self._now - row.origin_server_ts)
        if self._room_ids:
            return b'%b,"room_id":%b,"unsigned":{%b}}' % (head, orjson.dumps(row.room_id), unsigned)
        return b'%b,"unsigned":{%b}}' % (head, unsigned)

    def _unsigned(self, row: TimelineRow, notes: Notes, membership: str | None, txn_id: str | None = None) -> bytes:
        unsigned = b'"age":%d' % (self._now - row.origin_server_ts)
        if membership is not None:
            unsigned += b',"membership":' + orjson.dumps(membership)
        if row.replaces is not None:
            unsigned += b',"replaces_state":' + orjson.dumps(row.replaces)
        if notes is NO_NOTES:
            return unsigned
        event_id = row.event_id
        if (txn_id := notes.txn.get(event_id, txn_id)) is not None:
            unsigned += b',"transaction_id":' + orjson.dumps(txn_id.removeprefix(REDACT))
        if row.replaces is not None and (prev := notes.prev.get(row.replaces)) is not None:
            unsigned += _prev_content(prev, row)
        if (because := notes.because.get(event_id)) is not None and because.json is not None:
            unsigned += b',"redacted_because":' + self._redaction(because, row, notes)
            unsigned += b',"redacted_by":' + orjson.dumps(because.text)  # not in the specification; clients look for it
        if (bundle := notes.bundles.get(event_id)) is not None:
            unsigned += b',"m.relations":' + self._relations(bundle, notes)
        return unsigned

    def _relations(self, bundle: Bundle, notes: Notes) -> bytes:
        """What relates to the event. Client-server API, "Aggregations of child events"."""
        parts: list[bytes] = []
        if bundle.edit is not None:
            parts.append(b'"m.replace":' + self._inner(bundle.edit, notes))
        if bundle.references:
            chunk = [{"event_id": event_id} for event_id in bundle.references]
            parts.append(b'"m.reference":' + orjson.dumps({"chunk": chunk}))
        if (thread := bundle.thread) is not None:
            parts.append(
                b'"m.thread":{"latest_event":%b,"count":%d,"current_user_participated":%b}'
                % (self._inner(thread.latest, notes), thread.size, b"true" if thread.participated else b"false")
            )
        return b"{" + b",".join(parts) + b"}"

    def _inner(self, child: Child, notes: Notes) -> bytes:
        row, membership, txn_id = child
        return self._finish(head(row, notes), row, self._unsigned(row, notes, membership, txn_id))

    def _redaction(self, because: Annotation, row: TimelineRow, notes: Notes) -> bytes:
        assert because.json is not None
        raw = orjson.loads(because.json)
        if because.redacted and row.room_id in notes.versions:
            raw = redact(raw, notes.versions[row.room_id])
        event = _client_dict(raw, because.text or "")
        if self._room_ids:
            event["room_id"] = row.room_id
        event["unsigned"] = {"age": self._now - event["origin_server_ts"]}
        return orjson.dumps(event)


def stripped(row: TimelineRow, notes: Notes = NO_NOTES) -> bytes:
    """A state event as people outside the room see it: client-server API, "Stripped state"."""
    stored = _decode(row, notes)
    return b'{"content":%b,"sender":%b,"state_key":%b,"type":%b}' % (
        bytes(stored.content),
        bytes(stored.sender),
        orjson.dumps(row.state_key or ""),
        bytes(stored.type),
    )


def content_of(row: TimelineRow, notes: Notes = NO_NOTES) -> bytes:
    """The content alone, as JSON."""
    return bytes(_decode(row, notes).content)


def _decode(row: TimelineRow, notes: Notes) -> _Stored:
    if row.redacted_by is None:
        return _stored.decode(row.json)
    return _stored.decode(orjson.dumps(_redacted(row, notes)))


def _redacted(row: TimelineRow, notes: Notes) -> dict[str, Any]:
    version = notes.versions.get(row.room_id)
    if version is None:
        raise LookupError(f"the notes lack the version of {row.room_id}, which has redacted events")
    return redact(orjson.loads(row.json), version)


def head(row: TimelineRow, notes: Notes) -> bytes:
    """The event in the clients' form without its end: room_id and unsigned may follow."""
    if row.type == EventTypes.REDACTION:
        raw = orjson.loads(row.json) if row.redacted_by is None else _redacted(row, notes)
        return orjson.dumps(_client_dict(raw, row.event_id))[:-1]
    stored = _decode(row, notes)
    start = b'{"content":%b,"event_id":%b,"origin_server_ts":%b,"sender":%b,"type":%b' % (
        bytes(stored.content),
        orjson.dumps(row.event_id),
        bytes(stored.origin_server_ts),
        bytes(stored.sender),
        bytes(stored.type),
    )
    return start if stored.state_key is UNSET else b'%b,"state_key":%b' % (start, bytes(stored.state_key))


def _client_dict(raw: dict[str, Any], event_id: str) -> dict[str, Any]:
    """The long way; redactions name their target at both places where clients of any age look for it."""
    kept = ("content", "origin_server_ts", "sender", "state_key", "type", "redacts")
    event = {key: raw[key] for key in kept if key in raw}
    event["event_id"] = event_id
    if event["type"] == EventTypes.REDACTION:
        redacts = event["content"].get("redacts", event.get("redacts"))
        if isinstance(redacts, str):
            event["redacts"] = redacts
            event["content"] = {**event["content"], "redacts": redacts}
    return event


def _prev_content(prev: Annotation, row: TimelineRow) -> bytes:
    if row.redacted_by is not None or prev.redacted or prev.json is None:
        return b""
    was = _content.decode(prev.json)
    # The sender is not in the specification; clients look there for who has invited those who join.
    return b',"prev_content":%b,"prev_sender":%b' % (bytes(was.content), bytes(was.sender))


def _federation_form(row: TimelineRow, notes: Notes) -> bytes:
    """What servers exchange, and the id, which clients cannot work out by themselves."""
    raw = orjson.loads(row.json) if row.redacted_by is None else _redacted(row, notes)
    return orjson.dumps({**raw, "event_id": row.event_id}, option=orjson.OPT_SORT_KEYS)


def _select(form: bytes, fields: Fields) -> bytes:
    return orjson.dumps(only_fields(orjson.loads(form), fields))
