"""Answers of other servers, as values: decoded within limits, and of the shape that the specification gives them.

Events in them are `Pdus`: a sequence of dicts, each decoded when it is looked at, so that the state of a large room
never is a heap of dicts. An item that is no object is {} (which no check of events lets pass).

Server-server API, the operations' responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import msgspec

Json = dict[str, Any]
T = TypeVar("T")


class Pdus(Sequence[Json]):
    """Events as another server sent them, unchecked. Iterating decodes one after another."""

    __slots__ = ("_raws",)

    def __init__(self, raws: Sequence[msgspec.Raw] = ()) -> None:
        self._raws = raws

    @overload
    def __getitem__(self, index: int) -> Json: ...

    @overload
    def __getitem__(self, index: slice) -> Pdus: ...

    def __getitem__(self, index: int | slice) -> Json | Pdus:
        if isinstance(index, slice):
            return Pdus(self._raws[index])
        return _event(bytes(self._raws[index]))

    def __len__(self) -> int:
        return len(self._raws)

    def __iter__(self) -> Iterator[Json]:
        for raw in self._raws:
            yield _event(bytes(raw))

    def without(self, others: Pdus) -> Pdus:
        """Those that are not, to the letter, among the others: which need not be looked at twice."""
        texts = {bytes(raw) for raw in others._raws}
        return Pdus([raw for raw in self._raws if bytes(raw) not in texts])


def _event(raw: bytes) -> Json:
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class Template(msgspec.Struct, frozen=True):
    """An event to be completed and signed; `room_version` is None where the server does not say."""

    event: Json
    room_version: str | None = None


class JoinAnswer(NamedTuple):
    """The room as it was before the join, and the join itself where the server has signed it too."""

    state: Pdus
    auth_chain: Pdus
    event: Json | None
    members_omitted: bool
    servers_in_room: list[str]


class RoomState(NamedTuple):
    """The state before an event, and its auth chain."""

    pdus: Pdus
    auth_chain: Pdus


class RoomStateIds(msgspec.Struct, frozen=True):
    """The same as ids."""

    pdu_ids: list[str]
    auth_chain_ids: list[str]


class NearestEvent(msgspec.Struct, frozen=True):
    """The event that is nearest to a moment."""

    event_id: str
    origin_server_ts: int


class AliasAnswer(msgspec.Struct, frozen=True):
    """Which room an alias means, and who is in it."""

    room_id: str
    servers: list[str] = []


class Hierarchy(msgspec.Struct, frozen=True):
    """A room of a space, its children, and those children that one may not see."""

    room: Json
    children: list[Json] = []
    inaccessible_children: list[str] = []


class PublicRooms(msgspec.Struct, frozen=True):
    """A page of a room directory."""

    chunk: list[Json] = []
    next_batch: str | None = None
    prev_batch: str | None = None
    total_room_count_estimate: int | None = None


class RemoteDevice(msgspec.Struct, frozen=True):
    """A device of another server's user. `keys` are as its user has signed them; some have none."""

    device_id: str
    keys: Json | None = None
    device_display_name: str | None = None


class UserDevices(msgspec.Struct, frozen=True):
    """All devices of a user, as of `stream_id`, and their cross-signing keys."""

    user_id: str
    stream_id: int
    devices: list[RemoteDevice] = []
    master_key: Json | None = None
    self_signing_key: Json | None = None


class UserKeys(msgspec.Struct, frozen=True):
    """Keys by user: of devices (by device), and cross-signing keys."""

    device_keys: dict[str, dict[str, Json]] = {}
    master_keys: dict[str, Json] = {}
    self_signing_keys: dict[str, Json] = {}


class ClaimedKeys(msgspec.Struct, frozen=True):
    """One-time keys by user and device, each by its id."""

    one_time_keys: dict[str, dict[str, Json]] = {}


class ServerVersion(msgspec.Struct, frozen=True):
    """What runs there."""

    server: Json = {}


# -- as they are on the wire -------------------------------------------------------------------------------------------


class WireEvents(msgspec.Struct, frozen=True):
    """get_missing_events."""

    events: list[msgspec.Raw] = []


class WirePdus(msgspec.Struct, frozen=True):
    """A transaction in answer to backfill or event."""

    pdus: list[msgspec.Raw]


class WireState(msgspec.Struct, frozen=True):
    pdus: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]


class WireAuthChain(msgspec.Struct, frozen=True):
    auth_chain: list[msgspec.Raw]


class WireJoin(msgspec.Struct, frozen=True):
    state: list[msgspec.Raw] = []
    auth_chain: list[msgspec.Raw] = []
    event: msgspec.Raw = msgspec.Raw(b"null")
    members_omitted: bool = False
    servers_in_room: list[str] = []

    def answer(self) -> JoinAnswer:
        """The same with its events to be decoded."""
        event = None if bytes(self.event) == b"null" else _event(bytes(self.event))
        return JoinAnswer(Pdus(self.state), Pdus(self.auth_chain), event, self.members_omitted, self.servers_in_room)


class WireKnock(msgspec.Struct, frozen=True):
    knock_room_state: list[Json] = []


class WireInvite(msgspec.Struct, frozen=True):
    event: msgspec.Raw

    def answer(self) -> Json:
        """The event, signed by the invited user's server too."""
        return _event(bytes(self.event))


class WireTransaction(msgspec.Struct, frozen=True):
    """That there is such an answer says that the transaction has arrived, whatever stands in it."""

    pdus: Any = None

    def answer(self) -> dict[str, Json]:
        """What became of each event, as far as that is told."""
        told = self.pdus if isinstance(self.pdus, dict) else {}
        return {event_id: result for event_id, result in told.items() if isinstance(result, dict)}


class WireServerKeys(msgspec.Struct, frozen=True):
    server_keys: list[Json]


def decode(body: bytes, kind: type[T]) -> T:
    """An answer as a value of `kind`; integers keep all their digits. Raises ValueError.

    Fields that are null count as missing: servers written in Go say so of lists and maps with nothing in them.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        problem: Exception = error
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ValueError(str(error)) from error
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        given = {name: value for name, value in fields.items() if bytes(value) != b"null"}
        return msgspec.json.decode(msgspec.json.encode(given), type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise ValueError(str(problem)) from problem
