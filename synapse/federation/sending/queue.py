"""What one other server is still to be told, and what goes into its next transaction. Pure: a state machine over plain
values; whoever runs it does what `step` says, and tells what came of it.

Events are known by their positions in the events stream, and are on record (`storage.federation_queue`): in the log of
what went out lately, with the servers that it was for, and for servers that were away when their part of the log was
given up, as the last event of each room. A queue keeps the positions of a few that come next, and reads the others when
it is their turn. So whatever dies, what had not been acknowledged is still there.

A transaction that got no answer is sent again as it was, under the same id, for an hour: it may have arrived, and is
then answered without being done twice. After that, the server is told anew: all that it missed, where that is little
(`FULL`), else the last event of each room, the room that waits longest first; it asks for what is in between.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100
KEPT: Final = 500
"""Positions that a queue keeps."""
FULL: Final = 1_000
"""Events that a server which was away is sent, where it missed no more; else the last of each room."""
HELD_SECONDS: Final = 3600.0
"""For so long after the first failure, a transaction is sent again as it was."""
HELD_BYTES: Final = 16 * 1024
"""Of EDUs; with more, it is made anew at once."""
PATIENCE: Final = 10
"""Times that a server may refuse what it is told, before a single event is passed over."""
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 3600.0


class Reserved(NamedTuple):
    """It is noted down already that the events up to `until` are being sent under this id; since `at` (seconds)."""

    until: int
    id: str
    at: float


class Contents(NamedTuple):
    """What a transaction holds. `pdus` are positions; `edus`, canonical JSON.

    What is done with its acknowledgement: `until` is the position that the server has come to, `rooms` the entries of
    what it missed (with the position of each), `marks` what to tell which outbox of EDUs.
    """

    id: str
    pdus: tuple[int, ...] = ()
    edus: tuple[bytes, ...] = ()
    until: int | None = None
    rooms: tuple[tuple[str, int], ...] = ()
    marks: tuple[tuple[str, Any], ...] = ()

    @property
    def is_lasting(self) -> bool:
        """Whether it holds more than what is over in a moment."""
        return self.until is not None or bool(self.rooms) or bool(self.marks)


@dataclass(frozen=True, slots=True)
class Again:
    """Send this as it was."""

    contents: Contents


@dataclass(frozen=True, slots=True)
class Resume:
    """Send what was under way when another process sent: the events after `after` and up to `until`, and nothing
    besides, under this id."""

    after: int
    until: int
    id: str


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Send the last events of rooms, of `limit` rooms."""

    limit: int


@dataclass(frozen=True, slots=True)
class Look:
    """Read the positions that follow in the log, and say by `found` which they are. `newest` is to be handed back."""

    after: int
    limit: int
    newest: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Give up the server's part of the log up to `until` for the last event of each room, and say `skipped`."""

    after: int
    until: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Send these events, and EDUs."""

    pdus: tuple[int, ...]
    max_edus: int = MAX_EDUS


Step = Again | Resume | CatchUp | Look | Skip | Tell


@dataclass(slots=True)
class Queue:
    """A server.

    :ivar acked: what is for it in the log up to here, it has.
    :ivar missed: whether there are rooms whose last event it is still to be told.
    :ivar behind: whether the log has events for it that are not in `positions`.
    :ivar resume: a transaction that another process had under way: where it ends, and its id.
    :ivar extras: whether there are EDUs for it.
    :ivar failures: how often in a row it has not answered, or not well; `refusals` of these for what it was told.
    """

    name: str
    acked: int = 0
    missed: bool = False
    behind: bool = False
    resume: tuple[int, str] | None = None
    extras: bool = False
    newest: int = 0
    positions: deque[int] = field(default_factory=deque)
    held: Contents | None = None
    sending: bool = False
    failing_since: float | None = None
    failures: int = 0
    refusals: int = 0
    retry_at: float | None = None
    limit: int = MAX_PDUS
    away: bool = False
    skip: int | None = None
    reserved: Reserved | None = None

    # -- what there is to tell ---------------------------------------------------------------------------------------

    def offer(self, position: int) -> None:
        """There is another event for the server, the newest of all, which is on record."""
        self.newest = position
        if position <= (self.positions[-1] if self.positions else self.acked):
            return  # a Look has found it already
        if self.behind or self.failing_since is not None or len(self.positions) >= KEPT:
            self.behind = True
        else:
            self.positions.append(position)

    @property
    def has_events(self) -> bool:
        return bool(self.positions) or self.behind or self.missed or self.held is not None or self.resume is not None

    @property
    def is_empty(self) -> bool:
        return not (self.has_events or self.extras or self.sending)

    @property
    def is_at_rest(self) -> bool:
        """Whether the events that it keeps are all that there is, and nothing has gone wrong."""
        return not (
            self.sending
            or self.behind
            or self.missed
            or self.held is not None
            or self.resume is not None
            or self.failing_since is not None
            or self.reserved is not None
        )

    def reserve(self, reserved: Reserved) -> None:
        """It was noted down that this is sent next; unless something has come in between."""
        if self.is_at_rest and self.positions and self.acked < self.positions[0] <= reserved.until:
            self.reserved = reserved

    def may_try(self, now: float) -> bool:
        """Whether there is something to send, and it may be sent now."""
        waits = self.retry_at is not None and self.retry_at > now
        return not self.sending and not waits and (self.has_events or self.extras)

    def step(self) -> Step:
        """What to do next; `is_empty` is false, and nothing is under way."""
        if self.held is not None:
            return Again(self.held)
        if self.resume is not None:
            return Resume(self.acked, *self.resume)
        if self.missed:
            return CatchUp(self.limit)
        if self.skip is not None:
            return Skip(self.acked, self.skip)
        if self.behind and not self.positions:
            return Look(self.acked, (FULL if self.away else KEPT) + 1, self.newest)
        pdus = tuple(itertools.islice(self.positions, self.limit))
        if self.reserved is not None:
            pdus = tuple(position for position in pdus if position <= self.reserved.until) or pdus
        if self.limit == MAX_PDUS:
            return Tell(pdus)
        return Tell(pdus, 0 if pdus else self.limit)

    def found(self, look: Look, positions: Sequence[int]) -> None:
        """What a Look has found."""
        complete = len(positions) < look.limit
        self.positions = deque(positions[: look.limit - 1])
        self.behind = not complete or self.newest > look.newest
        if self.away and not complete:
            self.positions.clear()
            self.skip = max(self.newest, look.newest, positions[-1])

    def skipped(self, skip: Skip) -> None:
        """What a Skip was for has been done."""
        self.acked = max(self.acked, skip.until)
        self.skip = None
        self.missed = True
        self.behind = self.newest > skip.until

    def trimmed(self, until: int) -> None:
        """The log up to there was given up; the last event of each room that the server had not got is kept."""
        self.missed = True
        self.reserved = None
        while self.positions and self.positions[0] <= until:
            self.positions.popleft()
        if self.resume is not None:
            self.resume = None
            self.behind = True

    def nothing_missed(self) -> None:
        """A CatchUp has found no room."""
        self.missed = False

    def nothing_to_resume(self) -> None:
        """The events of a Resume are gone from the log; those that matter come by way of the rooms that it missed."""
        self.resume = None

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def succeeded(self, contents: Contents) -> None:
        """The server has answered; also with errors for events, which it has seen then."""
        self.sending = False
        self.failing_since = self.retry_at = None
        self.failures = self.refusals = 0
        self.limit = MAX_PDUS
        self.passed(contents)
        if not (self.behind or self.missed or self.resume is not None):
            self.away = False

    def passed(self, contents: Contents) -> None:
        """What the transaction was to hold is not there any more."""
        if contents.until is not None:
            self.acked = max(self.acked, contents.until)
            while self.positions and self.positions[0] <= self.acked:
                self.positions.popleft()
        self.held = None
        if self.resume is not None and self.resume[0] <= self.acked:
            self.resume = None

    def failed(self, contents: Contents, now: float, retry_at: float | None) -> bool:
        """The server has not answered, or not well. `retry_at`: when it may be tried again, where that is known
        already. False where what there is besides events is not kept, and to be put back.
        """
        self.sending = False
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = now
        self.retry_at = now + self._pause() if retry_at is None else retry_at
        keeps = (
            self.retry_at - self.failing_since <= HELD_SECONDS
            and sum(map(len, contents.edus)) <= HELD_BYTES
            and contents.is_lasting
        )
        self.held = contents if keeps else None
        if not keeps:
            self._leave_alone()
        return keeps

    def refused(self, contents: Contents, now: float) -> bool:
        """The server says that this transaction is wrong, or too large: it is told less at a time, so that what it does
        not take is found. True where it has refused a single thing for long, which is then to be passed over: say
        `succeeded`. What there is besides events is to be put back otherwise.
        """
        self.refusals += 1
        single = len(contents.pdus) + len(contents.edus) <= 1
        self.failed(contents, now, None)
        self.held = None
        if contents.pdus or contents.until is not None:
            self._leave_alone()
        if self.resume is not None:
            self.resume = None
            self.behind = True
        self.limit = max(1, (len(contents.pdus) or len(contents.edus)) // 2)
        return single and self.refusals >= PATIENCE

    def leave_alone(self, now: float, retry_at: float) -> None:
        """It is known not to answer, and is not to be tried before."""
        self.failing_since = now if self.failing_since is None else self.failing_since
        self.retry_at = retry_at
        self._leave_alone()

    def heard(self) -> None:
        """The server is there again, as it seems."""
        self.retry_at = None

    def _pause(self) -> float:
        return min(FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20), LONGEST_PAUSE)

    def _leave_alone(self) -> None:
        """Keeps nothing of what can be read again."""
        self.away = True
        self.reserved = None
        if self.positions:
            self.positions.clear()
            self.behind = True


def id_of(destination: str, event_ids: Sequence[str], edus: Sequence[bytes], salt: str) -> str:
    """The id of a transaction: the same for the same content. What holds nothing that lasts may be equal to what was
    sent before, and be meant all the same: `salt` tells them apart there.
    """
    digest = hashlib.sha256(destination.encode())
    for event_id in event_ids:
        digest.update(b"\0p" + event_id.encode())
    for edu in edus:
        digest.update(b"\0e" + edu)
    digest.update(b"\0s" + salt.encode())
    return digest.hexdigest()[:32]
