"""What the writer of events is handed, and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from synapse.api.room_versions import RoomVersion
from synapse.events.event import Event, StateKey
from synapse.storage.event_txns import TxnKey


class PushAction(NamedTuple):
    """A local user whom an event concerns. `actions` is JSON, "" for the usual ones."""

    user_id: str
    notify: bool
    highlight: bool
    actions: str = ""


class Replaced(NamedTuple):
    """The entry of the room's present state that a state event takes the place of, None where there is none."""

    event_id: str | None
    membership: str | None = None


class NewEvent(NamedTuple):
    """An event to be written, hashed and signed.

    `replaces` is for state events; `redacts` is the event that this one redacts, if it may. `relay`: whether other
    servers are sent it by this one; None: if its sender is one of ours.
    """

    event: Event
    txn: TxnKey | None = None
    push: Sequence[PushAction] = ()
    thread_id: str = "main"
    replaces: Replaced | None = None
    redacts: str | None = None
    relay: bool | None = None


class NewRoom(NamedTuple):
    """What a room is besides its events; for the request that holds its m.room.create."""

    creator: str
    is_public: bool = False
    aliases: Sequence[str] = ()


class Request(NamedTuple):
    """Events of one room that are written together or not at all, each the successor of the one before.

    `state_ordering` is how far the state was known that they were checked against (`Head.state_ordering`). If the
    room's state has moved on since, they are refused as stale; with `may_fork`, they are checked against the room's
    present state and become a branch of it.
    """

    room_id: str
    events: Sequence[NewEvent]
    state_ordering: int = 0
    room: NewRoom | None = None
    may_fork: bool = False


class Persisted(NamedTuple):
    """An event that is written. It is another than the one handed in, where its transaction id had been used before."""

    event_id: str
    stream_ordering: int


class Outcome(NamedTuple):
    """`events` is empty where nothing was written because the request was `stale`: build it anew on a head that knows
    the events stream up to `position`."""

    events: tuple[Persisted, ...]
    position: int
    stale: bool = False


class Kind(Enum):
    """How events of other servers' making, or made with their help, come into a room."""

    TIMELINE = "timeline"
    """New events."""

    HISTORY = "history"
    """Events from before: they move nothing, and nobody is told."""

    JOIN = "join"
    """One event, by which this server enters the room. Whatever it knew of the room's end is replaced."""

    ASIDE = "aside"
    """Memberships of this server's users in rooms that it takes no part in: invites, knocks, and the end of these."""


class Outlier(NamedTuple):
    """An event that is kept because others refer to it: a part of a state, or of an auth chain. `rejected` says why its
    own auth events do not allow it, where they don't."""

    event: Event
    rejected: str | None = None


class ReceivedEvent(NamedTuple):
    """An event as its receipt has left it: checks 1 to 4 of the specification are made.

    `rejected` says why its auth events do not allow it; `soft_failed`, why it is not to be shown for another reason
    than the room's present state. `state_before` is the state that it found, as event ids, where not all of its
    predecessors are here. `stripped` is the state of the room as an invite or the answer to a knock tells it
    (`Kind.ASIDE`). `relay`: whether other servers are sent it by this one; None: if its sender is one of ours.
    """

    event: Event
    rejected: str | None = None
    soft_failed: str | None = None
    state_before: Mapping[StateKey, str] | None = None
    push: Sequence[PushAction] = ()
    thread_id: str = "main"
    redacts: str | None = None
    relay: bool | None = None
    stripped: Sequence[Mapping[str, Any]] = ()


class Received(NamedTuple):
    """Events of one room, ancestors before descendants, and the outliers that they refer to, which are written first.

    Each event stands for itself: that one is rejected, or known already, is no reason not to write the others.
    """

    room_id: str
    version: RoomVersion
    events: Sequence[ReceivedEvent] = ()
    outliers: Sequence[Outlier] = ()
    kind: Kind = Kind.TIMELINE


class Fate(Enum):
    """What became of a received event."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SOFT_FAILED = "soft_failed"
    KNOWN = "known"
    """It was here before, whatever became of it then."""

    REFUSED = "refused"
    """Not written: this server takes no part in the room."""


class Receipt(NamedTuple):
    """What became of received events, in their order, each with the reason where it was not accepted; and the position
    that the events stream has reached."""

    fates: tuple[tuple[Fate, str], ...]
    position: int
