"""What the writer of events is handed, and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from synapse.events.event import Event
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

    `replaces` is for state events; `redacts` is the event that this one redacts, if it may.
    """

    event: Event
    txn: TxnKey | None = None
    push: Sequence[PushAction] = ()
    thread_id: str = "main"
    replaces: Replaced | None = None
    redacts: str | None = None


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
