"""/sync: from a question to the bytes of its answer.

A sync is planned (which rooms is it about?), told section by section, and written out. One without news waits: until
something concerns the user or a room of theirs, until the client's timeout, or until this process leaves. What the
sections need is mostly in memory, so waking up in vain costs next to nothing.

Client-server API, "Syncing".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from synapse.api.filters import Filter
from synapse.sync.answer import encode
from synapse.sync.breath import Breath
from synapse.sync.context import Section, SyncContext
from synapse.sync.forms import Forms
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.lazy_members import LazyMembers
from synapse.sync.memberships import Memberships, UserRooms
from synapse.sync.plan import Planner
from synapse.sync.sections.device_keys import DeviceKeySection
from synapse.sync.sections.to_device import ToDeviceSection
from synapse.sync.shared import SharedWork
from synapse.sync.tokens import StreamToken
from synapse.util.clock import Clock

MAX_TIMEOUT: Final = 10 * 60 * 1000
"""Milliseconds that a client may wait at most."""

_CATCH_UP: Final = 5.0  # seconds to wait for this process to have seen what the client has seen
_ATTEMPTS: Final = 3  # to read memberships that do not change meanwhile
_MAX_KEPT: Final = 256 * 1024  # bytes of an answer that is worth keeping for a retry


@dataclass(frozen=True, slots=True, eq=False)
class SyncRequest:
    """What a client asks for; `timeout` in milliseconds."""

    user_id: str
    device_id: str | None
    filter: Filter
    since: StreamToken | None = None
    timeout: int = 0
    full_state: bool = False
    state_after: bool = False
    state_after_name: str = "state_after"  # what the answer calls it
    old: bool = False  # events in the form of the endpoints before /sync


class SyncAnswer(NamedTuple):
    """`body` is JSON; `empty` says that it tells nothing new."""

    body: bytes
    empty: bool


class Present(Protocol):
    """How far this process has seen the streams, and waiting for more."""

    def token(self) -> StreamToken:
        """Everything up to here has been seen, and is in the database."""

    async def catch_up(self, token: StreamToken, seconds: float) -> None:
        """Returns when `token()` covers this one, or after that time."""

    async def recognise(self, since: StreamToken, seconds: float) -> None:
        """The same for a token that a client brings."""

    async def wait(self, user_id: str, room_ids: frozenset[str], seconds: float) -> bool:
        """Waits for something that concerns the user or one of the rooms; False if the time is over (or the process
        leaves).
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """What syncs are made from."""

    present: Present
    memberships: Memberships
    ignored: IgnoredUsers
    planner: Planner
    lazy_members: LazyMembers
    sections: Sequence[Section]  # in their order: later ones look at what earlier ones found


class SyncHandler:
    """Answers syncs.

    :param clock: its seconds are those of the epoch.
    :param kept: seconds for which an answer is kept for clients that ask again.
    """

    def __init__(self, sources: Sources, clock: Clock, kept: float = 5.0) -> None:
        self._sources = sources
        self._clock = clock
        # What they tell does not depend on news alone; all others have nothing to say where there is none.
        self._always = [s for s in sources.sections if isinstance(s, ToDeviceSection | DeviceKeySection)]
        self._shared: SharedWork[SyncAnswer] = SharedWork(clock, _is_worth_keeping, kept)

    async def sync(self, request: SyncRequest) -> bytes:
        """The answer, after waiting for news if the request says so. Raises nothing that a client could cause."""
        return (await self._shared.do(_key(request), lambda: self._answer(request))).body

    async def context(self, request: SyncRequest, since: StreamToken | None) -> SyncContext:
        """What is to be told now, told."""
        sources = self._sources
        ignored = await sources.ignored.dated(request.user_id)
        rooms, joined = await self._rooms(request.user_id)
        now = sources.present.token()  # without a turn of the reactor in between: it goes with these rooms
        if since is not None:
            since = since.at_most(now)
        ctx = self._new_context(request, since, now, joined, ignored.users)
        ctx.ignores_invites = ignored.invites
        if since is None:
            await sources.planner.initial(ctx, rooms)
            for section in sources.sections:
                await section.initial(ctx)
        elif since == now and not request.full_state:
            for section in self._always:
                await section.incremental(ctx, since, now)
        else:
            ctx.ignores_anew = ignored.since > since.account_data
            await sources.planner.incremental(ctx, rooms, since, now)
            for section in sources.sections:
                await section.incremental(ctx, since, now)
        return ctx

    async def _rooms(self, user_id: str) -> UserRooms:
        """Where the user stands as of the present token. What is in one of the two alone would never be told."""
        memberships, present = self._sources.memberships, self._sources.present
        for _ in range(_ATTEMPTS):
            rooms = await memberships.of(user_id)
            newest = next(reversed(rooms.rooms.values())).stream if rooms.rooms else 0
            if newest > present.token().events:  # the database is ahead of what we have been told
                await present.catch_up(StreamToken(newest), _CATCH_UP)
            elif memberships.holds(user_id, rooms):
                break
        return rooms

    async def _answer(self, request: SyncRequest) -> SyncAnswer:
        since = request.since
        if request.filter.room.state.lazy_load_members:
            self._sources.lazy_members.check(request.user_id, request.device_id, since)
        if since is None:
            return self._finish(request, await self.context(request, None))
        present = self._sources.present
        if not present.token().covers(since):
            await present.recognise(since, _CATCH_UP)
        deadline = self._clock.seconds() + request.timeout / 1000
        woken = True
        if not request.full_state and request.timeout and present.token() == since:
            # The client knows all that there is, so there is nothing to look for before something happens.
            _, joined = await self._sources.memberships.of(request.user_id)
            if present.token() == since:
                woken = await present.wait(request.user_id, joined, request.timeout / 1000)
        while True:
            ctx = await self.context(request, since)
            left = deadline - self._clock.seconds()
            if not ctx.is_empty or request.full_state or left <= 0 or not woken:
                return self._finish(request, ctx)
            since = ctx.next
            # What came while we looked is not waited for.
            if present.token() == ctx.now:
                woken = await present.wait(request.user_id, ctx.all_joined, left)

    def _finish(self, request: SyncRequest, ctx: SyncContext) -> SyncAnswer:
        if request.filter.room.state.lazy_load_members:
            told = {} if request.full_state else ctx.introduced
            self._sources.lazy_members.told(request.user_id, request.device_id, ctx.next, told)
        return SyncAnswer(encode(ctx), ctx.is_empty or request.since is None)

    def _new_context(
        self,
        request: SyncRequest,
        since: StreamToken | None,
        now: StreamToken,
        joined: frozenset[str],
        ignored: frozenset[str],
    ) -> SyncContext:
        milliseconds = int(self._clock.seconds() * 1000)
        federation, fields = request.filter.federation_format, request.filter.event_fields
        return SyncContext(
            user_id=request.user_id,
            device_id=request.device_id,
            filter=request.filter,
            since=since,
            now=now,
            next=now,
            forms=Forms(milliseconds, room_ids=request.old, old=request.old, federation=federation, fields=fields),
            joined=self._filtered(request.filter, joined),
            all_joined=joined,
            ignored=ignored,
            breath=Breath(self._clock),
            full_state=request.full_state,
            state_after=request.state_after,
            state_name=request.state_after_name if request.state_after else "state",
        )

    def _filtered(self, sync_filter: Filter, joined: frozenset[str]) -> frozenset[str]:
        room = sync_filter.room
        if room.rooms is None and not room.not_rooms:
            return joined
        return frozenset(filter(room.room_matches, joined))


class _Same:
    """An object that equals itself alone, and is kept alive as long as it is compared with."""

    __slots__ = ("_of",)

    def __init__(self, of: object) -> None:
        self._of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._of is self._of

    def __hash__(self) -> int:
        return id(self._of)


def _key(request: SyncRequest) -> Hashable:
    """Equal for requests with equal answers. Filters are compared by identity: comparing their contents takes long."""
    options = (request.full_state, request.state_after, request.state_after_name, request.old, request.timeout)
    return (request.user_id, request.device_id, request.since, _Same(request.filter), options)


def _is_worth_keeping(answer: SyncAnswer) -> bool:
    """An answer without news is soon wrong; a first sync is large, and not often asked for twice."""
    return not answer.empty and len(answer.body) <= _MAX_KEPT
