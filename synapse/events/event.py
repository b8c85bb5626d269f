"""The event: an immutable value around the JSON that servers exchange and that we store.

An `Event` knows what is in that JSON and its id, and nothing of what happened to it here (stream ordering, state,
rejection): that is storage's. It trusts its JSON: what comes from outside passes `synapse.events.validation` first.

Events are made by the thousand and often only handed on, so nothing is parsed before somebody asks for a field; then
all fields are filled at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes
from synapse.api.identifiers import room_id_of_create
from synapse.api.room_versions import EventFormat, RoomVersion
from synapse.events import canonical
from synapse.events.hashes import canonical_bytes, event_id_of
from synapse.events.redaction import redact

StateKey = tuple[str, str]
"""An entry of room state: (event type, state key)."""

_FIELDS: Final = frozenset(
    {
        "auth_event_ids",
        "content",
        "depth",
        "origin_server_ts",
        "prev_event_ids",
        "redacts",
        "room_id",
        "sender",
        "state_key",
        "type",
    }
)


class Event:
    """One event. Made by `Event.from_json`; not to be changed, nor the dicts that it gives out.

    `state_key` is None for events that are no state; `redacts` is the id that an m.room.redaction names, wherever the
    room version keeps it; `room_id` is there in every room version, also on create events that do not carry it.
    `origin_server_ts` is in milliseconds.
    """

    __slots__ = (
        "_json",
        "_raw",
        "auth_event_ids",
        "content",
        "depth",
        "event_id",
        "origin_server_ts",
        "prev_event_ids",
        "redacts",
        "room_id",
        "room_version",
        "sender",
        "state_key",
        "type",
    )

    auth_event_ids: tuple[str, ...]
    content: dict[str, Any]
    depth: int
    event_id: str
    origin_server_ts: int
    prev_event_ids: tuple[str, ...]
    redacts: str | None
    room_id: str
    room_version: RoomVersion
    sender: str
    state_key: str | None
    type: str
    _json: bytes | str | None
    _raw: dict[str, Any] | None

    @classmethod
    def from_json(
        cls, json: bytes | str | dict[str, Any], room_version: RoomVersion, *, event_id: str | None = None
    ) -> Event:
        """An event of its federation form.

        Text must be canonical JSON, as it is stored; a dict passes into the event's possession. With `event_id` given
        (because it is stored beside the JSON) nothing is computed; otherwise it is read from the event or its hash.
        """
        event = cls()
        event.room_version = room_version
        if isinstance(json, dict):
            event._json, event._raw = None, json
        else:
            event._json, event._raw = json, None
        event.event_id = event_id_of(event.raw, room_version) if event_id is None else event_id
        return event

    @classmethod
    def from_parts(cls, json: bytes, raw: dict[str, Any], room_version: RoomVersion, event_id: str) -> Event:
        """An event of which both forms and the id are at hand; they must agree."""
        event = cls()
        event._json, event._raw, event.room_version, event.event_id = json, raw, room_version, event_id
        return event

    @property
    def json(self) -> bytes:
        """The federation form in canonical JSON, signatures included."""
        text = self._json
        if text is None:
            assert self._raw is not None
            text = self._json = canonical_bytes(self._raw, self.room_version)
        elif isinstance(text, str):
            text = self._json = text.encode()
        return text

    @property
    def raw(self) -> dict[str, Any]:
        """The federation form as a dict: to read, not to change."""
        raw = self._raw
        if raw is None:
            assert self._json is not None
            strict = self.room_version.strict_canonical_json
            raw = canonical.parse(self._json) if strict else canonical.parse_lenient(self._json)
            self._raw = raw
        assert raw is not None
        return raw

    @property
    def membership(self) -> str | None:
        """`membership` of an m.room.member event, None of any other."""
        value = self.content.get("membership") if self.type == EventTypes.MEMBER else None
        return value if isinstance(value, str) else None

    @property
    def contains_url(self) -> bool:
        """Whether the content has a key `url`, which filters ask for."""
        return "url" in self.content

    @property
    def key(self) -> StateKey:
        """Where a state event stands in the room's state."""
        assert self.state_key is not None, "only state events have a state key"
        return (self.type, self.state_key)

    def is_state(self) -> bool:
        return self.state_key is not None

    def redacted(self) -> Event:
        """The same event, same id, with only what a redaction leaves."""
        return Event.from_json(redact(self.raw, self.room_version), self.room_version, event_id=self.event_id)

    if not TYPE_CHECKING:  # or misspelt attributes would pass the type checker

        def __getattr__(self, name: str) -> Any:
            # Called only for slots that are not filled: the first look at any field fills them all.
            if name not in _FIELDS:
                raise AttributeError(f"'Event' object has no attribute '{name}'")
            self._fill(self.raw)
            return object.__getattribute__(self, name)

    def _fill(self, raw: Mapping[str, Any]) -> None:
        version = self.room_version
        self.type = raw["type"]
        self.sender = raw["sender"]
        self.state_key = raw.get("state_key")
        self.content = content = raw["content"]
        self.depth = raw["depth"]
        self.origin_server_ts = raw["origin_server_ts"]
        if version.event_format is EventFormat.V1:
            self.prev_event_ids = tuple(event_id for event_id, _hashes in raw["prev_events"])
            self.auth_event_ids = tuple(event_id for event_id, _hashes in raw["auth_events"])
        else:
            self.prev_event_ids = tuple(raw["prev_events"])
            self.auth_event_ids = tuple(raw["auth_events"])
        redacts = None
        if self.type == EventTypes.REDACTION:
            redacts = content.get("redacts") if version.redacts_in_content else raw.get("redacts")
        self.redacts = redacts if isinstance(redacts, str) else None
        room_id = raw.get("room_id")
        self.room_id = room_id_of_create(self.event_id) if room_id is None else room_id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.event_id == other.event_id and self.json == other.json

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.json, self.room_version.identifier, self.event_id)

    def __repr__(self) -> str:
        key = "" if self.state_key is None else f", state_key={self.state_key!r}"
        return f"<Event {self.event_id} {self.type!r}{key} by {self.sender}>"


def _rebuild(json: bytes, version: str, event_id: str) -> Event:
    from synapse.api.room_versions import room_version

    return Event.from_json(json, room_version(version), event_id=event_id)
