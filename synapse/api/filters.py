"""The filters of /sync and /messages: parsed, validated, and asked whether something passes.

A `Filter` is what clients upload, `RoomEventFilter` what they hand to /messages and /context. Not here: storing
filters, and lazy-loading of members, of which the filter only says that it is wanted.

Client-server API, "Filtering"; definitions `sync_filter`, `event_filter`, `room_event_filter`; appendices,
"Dot-separated property paths".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from synapse.api.errors import invalid_param
from synapse.api.identifiers import is_room_id, is_user_id

MAX_ENTRIES: Final = 1_000
"""Of one list in a filter: each is looked through for each event."""

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 1_000
"""Of `limit`: what holds where none is given, and what larger ones are cut down to."""

Path = tuple[str, ...]
T = TypeVar("T")


class EventLike(Protocol):
    """What a filter looks at: an `Event`, or a row that has as much."""

    @property
    def type(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def room_id(self) -> str: ...
    @property
    def contains_url(self) -> bool: ...


class TypePatterns:
    """A list of event types, in which `*` stands for any sequence of characters."""

    __slots__ = ("_exact", "_globs", "patterns")

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._globs = tuple(pattern.split("*") for pattern in patterns if "*" in pattern)

    def match(self, event_type: str) -> bool:
        return event_type in self._exact or any(_matches_parts(event_type, parts) for parts in self._globs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypePatterns) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"TypePatterns({list(self.patterns)!r})"


def _matches_parts(text: str, parts: list[str]) -> bool:
    """Whether `text` consists of the parts with anything between them. Linear: each part is looked for once."""
    first, *middle, last = parts
    if not text.startswith(first):
        return False
    start = len(first)
    for part in middle:
        found = text.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return len(text) - start >= len(last) and text.endswith(last)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to include, by type and sender. Lists that are None include everything, empty ones nothing."""

    limit: int = DEFAULT_LIMIT
    types: TypePatterns | None = None
    not_types: TypePatterns | None = None
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()

    def allows_type(self, event_type: str) -> bool:
        if self.not_types is not None and self.not_types.match(event_type):
            return False
        return self.types is None or self.types.match(event_type)

    def allows_sender(self, sender: str) -> bool:
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    def wants(self, event_type: str, sender: str | None = None) -> bool:
        """Whether something of that type passes; `sender` is None for what has none, such as account data."""
        return self.allows_type(event_type) and (sender is None or self.allows_sender(sender))

    @property
    def is_closed(self) -> bool:
        """Whether nothing at all can pass, so that nothing needs to be looked for."""
        return (self.types is not None and not self.types.patterns) or self.senders == frozenset()


@dataclass(frozen=True, slots=True)
class RoomEventFilter(EventFilter):
    """The same for events in rooms."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_rel_types: frozenset[str] | None = None
    related_by_senders: frozenset[str] | None = None

    def room_matches(self, room_id: str) -> bool:
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def matches(self, event: EventLike) -> bool:
        """Whether the event passes, its room included. What relates to it, the event does not tell: that is for the
        database (`asks_for_relations`).
        """
        if self.contains_url is not None and self.contains_url is not event.contains_url:
            return False
        return self.room_matches(event.room_id) and self.wants(event.type, event.sender)

    @property
    def asks_for_relations(self) -> bool:
        """Whether only events pass that certain others relate to: by certain types of relations, by certain users."""
        return self.related_by_rel_types is not None or self.related_by_senders is not None

    @property
    def allows_all_events(self) -> bool:
        """Whether no event of an allowed room is held back: nothing needs to be looked at."""
        return (
            not self.asks_for_relations
            and self.types is None
            and not (self.not_types and self.not_types.patterns)
            and self.senders is None
            and not self.not_senders
            and self.contains_url is None
        )


@dataclass(frozen=True, slots=True)
class RoomFilter:
    """The part of a filter about rooms; `rooms` and `not_rooms` come before those of its parts."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    ephemeral: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    timeline: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    def room_matches(self, room_id: str) -> bool:
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True)
class Filter:
    """A whole filter for /sync. `event_fields`: None for all fields, else paths, each a tuple of keys."""

    event_fields: tuple[Path, ...] | None = None
    federation_format: bool = False
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()

    @classmethod
    def parse(cls, value: Any) -> Filter:
        """A filter of its JSON value; raises 400 M_INVALID_PARAM. Unknown keys are ignored."""
        reader = _Reader(value, "filter")
        event_format = reader.get("event_format", str, "client")
        if event_format not in ("client", "federation"):
            raise invalid_param("'event_format' in the filter must be 'client' or 'federation'.")
        fields = reader.strings("event_fields")
        return cls(
            event_fields=None if fields is None else tuple(parse_path(field) for field in fields),
            federation_format=event_format == "federation",
            presence=_event_filter(reader.part("presence")),
            account_data=_event_filter(reader.part("account_data")),
            room=_room_filter(reader.part("room")),
        )


def parse_room_event_filter(value: Any) -> RoomEventFilter:
    """The `filter` of /messages, /context and /search; raises 400 M_INVALID_PARAM."""
    return _room_event_filter(_Reader(value, "filter"))


def parse_path(path: str) -> Path:
    """The keys of a dot-separated property path; dots and backslashes in keys are escaped by a backslash."""
    keys = [""]
    position = 0
    while position < len(path):
        char = path[position]
        if char == "\\" and path[position + 1 : position + 2] in (".", "\\"):
            position += 1
            keys[-1] += path[position]
        elif char == ".":
            keys.append("")
        else:
            keys[-1] += char
        position += 1
    return tuple(keys)


def only_fields(event: dict[str, Any], paths: tuple[Path, ...]) -> dict[str, Any]:
    """The parts of an event (client format) that `event_fields` names, in a new dict."""
    result: dict[str, Any] = {}
    for path in paths:
        source: Any = event
        for key in path:
            if not isinstance(source, dict) or key not in source:
                break
            source = source[key]
        else:
            _place(result, path, source)
    return result


def _place(target: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        # Copied on the way down, so that a part named by a shorter path is not the event's own dict.
        inner = target.get(key)
        target[key] = dict(inner) if isinstance(inner, dict) else {}
        target = target[key]
    target[path[-1]] = value


class _Reader:
    """Reads the keys of one JSON object of a filter; `name` is what error messages call it."""

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise invalid_param(f"The {name} must be a JSON object.")
        self._value = value
        self._name = name

    def has(self, key: str) -> bool:
        """Whether there is a value other than null."""
        return self._value.get(key) is not None

    def get(self, key: str, kind: type[T], default: T) -> T:
        """The value of that JSON type, or the default if there is none."""
        value = self._value.get(key)
        if value is None:
            return default
        if type(value) is not kind:
            raise invalid_param(f"'{key}' in the {self._name} must be {_NAMES[kind]}.")
        return value

    def part(self, key: str) -> _Reader:
        return _Reader(self.get(key, dict, {}), f"'{key}' of the {self._name}")

    def limit(self) -> int:
        limit = self.get("limit", int, DEFAULT_LIMIT)
        if limit < 0:  # the specification wants more than 0, but clients ask for no events at all by a limit of 0
            raise invalid_param(f"'limit' in the {self._name} must not be negative.")
        return min(limit, MAX_LIMIT)

    def strings(self, key: str, is_valid: Callable[[str], bool] | None = None, what: str = "") -> list[str] | None:
        """A list of strings, None if there is none."""
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid_param(f"'{key}' in the {self._name} must be an array of strings.")
        if len(value) > MAX_ENTRIES:
            raise invalid_param(f"'{key}' in the {self._name} may have {MAX_ENTRIES} entries at most.")
        if is_valid is not None and not all(map(is_valid, value)):
            raise invalid_param(f"'{key}' in the {self._name} must hold {what} only.")
        return value

    def patterns(self, key: str) -> TypePatterns | None:
        types = self.strings(key)
        return None if types is None else TypePatterns(types)

    def texts(self, key: str) -> frozenset[str] | None:
        texts = self.strings(key)
        return None if texts is None else frozenset(texts)

    def users(self, key: str) -> frozenset[str] | None:
        users = self.strings(key, is_user_id, "user IDs")
        return None if users is None else frozenset(users)

    def rooms(self, key: str) -> frozenset[str] | None:
        rooms = self.strings(key, is_room_id, "room IDs")
        return None if rooms is None else frozenset(rooms)

    def event_part(self) -> dict[str, Any]:
        return {
            "limit": self.limit(),
            "types": self.patterns("types"),
            "not_types": self.patterns("not_types"),
            "senders": self.users("senders"),
            "not_senders": self.users("not_senders") or frozenset(),
        }


_NAMES: Final[dict[type, str]] = {str: "a string", bool: "true or false", int: "an integer", dict: "a JSON object"}


def _event_filter(reader: _Reader) -> EventFilter:
    return EventFilter(**reader.event_part())


def _room_event_filter(reader: _Reader) -> RoomEventFilter:
    contains_url = reader.get("contains_url", bool, False)
    return RoomEventFilter(
        **reader.event_part(),
        rooms=reader.rooms("rooms"),
        not_rooms=reader.rooms("not_rooms") or frozenset(),
        contains_url=contains_url if reader.has("contains_url") else None,
        lazy_load_members=reader.get("lazy_load_members", bool, False),
        include_redundant_members=reader.get("include_redundant_members", bool, False),
        unread_thread_notifications=reader.get("unread_thread_notifications", bool, False),
        related_by_rel_types=reader.texts("related_by_rel_types"),
        related_by_senders=reader.users("related_by_senders"),
    )


def _room_filter(reader: _Reader) -> RoomFilter:
    return RoomFilter(
        rooms=reader.rooms("rooms"),
        not_rooms=reader.rooms("not_rooms") or frozenset(),
        include_leave=reader.get("include_leave", bool, False),
        ephemeral=_room_event_filter(reader.part("ephemeral")),
        state=_room_event_filter(reader.part("state")),
        timeline=_room_event_filter(reader.part("timeline")),
        account_data=_room_event_filter(reader.part("account_data")),
    )
