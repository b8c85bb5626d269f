"""`EventCreation`: what a user of this server wants to say in a room becomes an event: checked, built, signed, written.

Works in any process. What is known of the room (`RoomHeads`, `StateReader`) may lag behind the writer by a moment;
then the writer says so and the event is built again. Before somebody is refused on the word of memory that may lag,
the database is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from synapse.api.constants import MAX_ID_BYTES, EventTypes, Membership, RelationTypes
from synapse.api.errors import AuthError, Codes, MatrixError, bad_state, forbidden, invalid_param
from synapse.api.identifiers import domain_of, fits, is_event_id
from synapse.api.room_versions import EventFormat
from synapse.events import auth
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.events.hashes import canonical_bytes, reference_hash
from synapse.events.power_levels import PowerLevels
from synapse.handlers.account_rules import suspended
from synapse.handlers.event_content import check_content
from synapse.storage.event_txns import TxnKey
from synapse.storage.persist_events import NewEvent, Outcome, Persisted, PushAction, Replaced, Request
from synapse.storage.relations import relation_of
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.handlers.room_locks import RoomLocks
    from synapse.http.request import Requester
    from synapse.state.heads import Head, RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.event_txns import EventTxnsStore
    from synapse.storage.events import EventsStore, StoredEvent
    from synapse.util.caches import LruCache

POLICY: Final = (EventTypes.POLICY, "")
"""The room's policy server, which is looked up with the state that decides about an event."""

ATTEMPTS: Final = 6
"""How often an event is built anew because the room has moved on, before it becomes a branch of the room."""

State = Mapping[StateKey, "StoredEvent"]


class Draft(NamedTuple):
    """An event to be: what its sender decides about."""

    room_id: str
    sender: str
    type: str
    content: dict[str, Any]
    state_key: str | None = None
    redacts: str | None = None
    txn: TxnKey | None = None
    ts: int | None = None  # when it was sent, in milliseconds; None: now
    is_admin: bool = False  # the sender administrates this server
    is_suspended: bool = False  # the sender may take back what they said, and nothing else

    @property
    def key(self) -> StateKey | None:
        """Where a state event will stand."""
        return None if self.state_key is None else (self.type, self.state_key)


class Signer(NamedTuple):
    """In whose name events are made."""

    server_name: str
    key: SigningKey


class Audience(Protocol):
    """Says whom an event concerns; see `synapse.push.bulk`."""

    async def __call__(self, event: Event, state: State) -> tuple[str, Collection[PushAction]]:
        """The event's thread ("main" for none), and the local users to tell. `state` is the room's, as far as the
        event's authorisation needed it."""


class Endorser(Protocol):
    """Lets others have a say before an event is sent; see `handlers.policy_server`."""

    async def __call__(self, event: Event, state: State) -> Event:
        """The event as it may be sent, with further signatures perhaps. Raises a MatrixError where it may not.
        `state` is the room's, `POLICY` included."""


class Rules(Protocol):
    """Further checks of an event by its type; raises MatrixError. `state` as for `Audience`."""

    async def __call__(self, draft: Draft, state: State) -> None: ...


class EventCreation:
    """Creates events.

    :param writer: writes events: the queue itself, or a call to the main process.
    :param caught_up: waits until what is known here includes that position of the events stream.
    :param is_exact: True in the main process, where memory never lags.
    """

    def __init__(
        self,
        signer: Signer,
        heads: RoomHeads,
        state: StateReader,
        events: EventsStore,
        txns: EventTxnsStore,
        writer: Callable[[Request], Awaitable[Outcome]],
        audience: Audience,
        rules: Rules,
        endorse: Endorser,
        locks: RoomLocks,
        recent: LruCache[TxnKey, Persisted],
        caught_up: Callable[[int], Awaitable[None]],
        now: Callable[[], int],
        is_exact: bool,
    ) -> None:
        self._signer = signer
        self._heads = heads
        self._state = state
        self._events = events
        self._txns = txns
        self._writer = writer
        self._audience = audience
        self._rules = rules
        self._endorse = endorse
        self._locks = locks
        self._recent = recent
        self._caught_up = caught_up
        self._now = now
        self._is_exact = is_exact
        self._annotating: Linearizer[tuple[str, ...]] = Linearizer()

    async def create(
        self,
        requester: Requester,
        room_id: str,
        event_type: str,
        content: dict[str, Any],
        *,
        state_key: str | None = None,
        txn_id: str | None = None,
        txn_scope: str = "",
        redacts: str | None = None,
        ts: int | None = None,
    ) -> Persisted:
        """Send an event as the requester; answers when it is written, and known in this process.

        The same transaction id of the same device in the same room and `txn_scope` answers with the event of the first
        time. State that is as wanted already stays as it is. `ts` (milliseconds) is heard from application services
        alone. Raises 403 M_FORBIDDEN where the room does not allow the event, 400 M_BAD_JSON and 413 M_TOO_LARGE for
        events that cannot be.
        """
        txn = None
        if txn_id is not None:
            if not fits(txn_id):
                raise invalid_param(f"A transaction ID may have {MAX_ID_BYTES} bytes at most.")
            txn = TxnKey(requester.user_id, requester.device_id or "", room_id, txn_scope + txn_id)
        sent = ts if requester.app_service is not None else None
        user_id, is_admin = requester.user_id, requester.is_admin
        marks = (is_admin, requester.standing.suspended)
        return await self.send(Draft(room_id, user_id, event_type, content, state_key, redacts, txn, sent, *marks))

    async def send(self, draft: Draft) -> Persisted:
        """The same for a draft."""
        if draft.txn is not None:
            earlier = self._recent.get(draft.txn)
            if earlier is not None:
                return earlier
        version = (await self._head(draft.room_id)).version
        check_content(draft.type, draft.state_key, draft.content, version)
        annotation = _annotation(draft)
        if draft.state_key is not None:
            async with self._locks.held(draft.room_id):
                persisted = await self._send(draft)
        elif annotation is not None:
            async with self._annotating.queue(annotation):  # so that the rules see an equal one that is under way
                persisted = await self._send(draft)
        else:
            persisted = await self._send(draft)
        if draft.txn is not None:
            self._recent.set(draft.txn, persisted)
        return persisted

    async def _send(self, draft: Draft) -> Persisted:
        """Tries until it is written. What memory says counts only if the database has been asked since the room moved
        on the last time; asking it is no attempt."""
        fresh = self._is_exact
        attempt = 1
        while True:
            try:
                outcome = await self._try(draft, may_fork=attempt >= ATTEMPTS)
            except MatrixError as error:
                if draft.txn is not None and (earlier := await self._sent_before(draft.txn)) is not None:
                    return earlier
                if fresh or error.code != 403:
                    raise
            else:
                if isinstance(outcome, Outcome):
                    await self._caught_up(outcome.position)
                    if not outcome.stale:
                        return outcome.events[0]
                    attempt += 1
                    fresh = self._is_exact
                    continue
                if fresh:
                    return outcome  # nothing would change
            fresh = True
            await self.refresh(draft.room_id)

    async def prepare(self, draft: Draft) -> Request:
        """An event that is allowed, signed, and not written yet; for those whose id must be known beforehand. Raises
        like `send`."""
        await self.refresh(draft.room_id)
        return await self._prepare(draft, *await self._present(draft))

    async def rehearse(self, draft: Draft) -> Event:
        """The event that the draft would become as the room stands, allowed, and sealed as if it were ours; it is not
        written. For templates, which somebody else's server signs. Raises like `send`."""
        await self.refresh(draft.room_id)
        head, state = await self._present(draft)
        event = await self._build(draft, head, state)
        auth.check(event, {key: stored.event for key, stored in state.items()})
        return event

    async def finish(self, request: Request) -> Persisted:
        """Write what was prepared, wherever the room stands by now. Raises 403 if the room allows it no more."""
        outcome = await self._writer(request._replace(may_fork=True))
        await self._caught_up(outcome.position)
        return outcome.events[0]

    async def _try(self, draft: Draft, may_fork: bool) -> Outcome | Persisted:
        head, state = await self._present(draft)
        if draft.key is not None:
            existing = state.get(draft.key)
            if existing is not None and _says_the_same(existing.shown, draft):
                return Persisted(existing.event.event_id, existing.stream_ordering)
        request = await self._prepare(draft, head, state)
        return await self._writer(request._replace(may_fork=may_fork))

    async def _prepare(self, draft: Draft, head: Head, state: State) -> Request:
        if draft.type == EventTypes.CREATE and _is_joined(draft, state):
            raise bad_state("The room has been created already; that cannot be done again, nor changed.")
        event = await self._build(draft, head, state)
        auth.check(event, {key: stored.event for key, stored in state.items()})
        await self._rules(draft, state)
        redacts = await self._redacted(event, state, draft)
        if POLICY in state:
            event = await self._endorse(event, state)
        thread_id, push = await self._audience(event, state)
        new = NewEvent(event, draft.txn, tuple(push), thread_id, _replaced(draft, state), redacts)
        return Request(draft.room_id, (new,), head.state_ordering)

    async def _present(self, draft: Draft) -> tuple[Head, State]:
        """The room's head, and the state that decides about the event, of one and the same moment."""
        head = await self._head(draft.room_id)
        keys = auth.auth_types_for(head.version, draft.type, draft.sender, draft.state_key, draft.content)
        keys += [POLICY, (EventTypes.MEMBER, draft.sender)]
        if draft.key is not None and draft.key not in keys:
            keys.append(draft.key)
        while True:
            state = await self._state.current(draft.room_id, keys, as_of=head.state_ordering)
            later = await self._head(draft.room_id)
            if self._state.position(draft.room_id, keys) > later.state_ordering:
                # The database, where some of it was read, is ahead of what has been heard of the room's end.
                later = await self._heads.reload(draft.room_id) or later
            if later.state_ordering == head.state_ordering:
                return later, state
            head = later

    async def _head(self, room_id: str) -> Head:
        head = await self._heads.get(room_id)
        if head is None:
            raise forbidden("You are not in that room, or there is no such room.")
        return head

    async def _build(self, draft: Draft, head: Head, state: State) -> Event:
        version = head.version
        cited = auth.cited_types_for(version, draft.type, draft.sender, draft.state_key, draft.content)
        auth_events = [state[key].event.event_id for key in cited if key in state]
        prev_events = head.prev_events
        hashes = None
        if version.event_format is EventFormat.V1:
            known = await self._events.get_many([*prev_events, *auth_events])
            hashes = {event_id: reference_hash(stored.event.raw, version) for event_id, stored in known.items()}
        return build(
            version,
            room_id=draft.room_id,
            sender=draft.sender,
            type=draft.type,
            content=draft.content,
            prev_events=prev_events,
            auth_events=auth_events,
            depth=head.next_depth,
            origin_server_ts=self._now() if draft.ts is None else draft.ts,
            server_name=self._signer.server_name,
            signing_key=self._signer.key,
            state_key=draft.state_key,
            redacts=draft.redacts,
            origin=self._signer.server_name if self._is_for_another_server(draft) else None,
            reference_hashes=hashes,
        )

    def _is_for_another_server(self, draft: Draft) -> bool:
        """Whether another server is asked to sign the event, too: an invite of a user of its."""
        is_invite = draft.type == EventTypes.MEMBER and draft.content.get("membership") == Membership.INVITE
        return is_invite and domain_of(draft.state_key or "") != self._signer.server_name

    async def _redacted(self, event: Event, state: State, draft: Draft) -> str | None:
        """The event that a redaction takes effect on. Raises 403, 404 where there is none, 400 for another room's.

        The auth rules let a server redact all events of its users; that it is the same user, or an administrator, is
        ours to check. Who may redact anything may also redact what is not here yet: other servers may have it.
        """
        if event.type != EventTypes.REDACTION or event.redacts is None:
            return None
        target = await self._events.get(event.redacts)
        levels = PowerLevels.of_state({key: stored.event for key, stored in state.items()}, event.room_version)
        if target is None:
            if draft.is_suspended or levels.user(event.sender) < levels.redact or not is_event_id(event.redacts):
                raise MatrixError(404, Codes.NOT_FOUND, "There is no such event in this room to be redacted.")
            return None
        if target.event.room_id != event.room_id:
            raise invalid_param("The event to be redacted is in another room.")
        if draft.is_suspended and target.event.sender != event.sender:
            raise suspended()
        is_ours = draft.is_admin and domain_of(target.event.sender) == self._signer.server_name
        if target.event.sender != event.sender and not is_ours and levels.user(event.sender) < levels.redact:
            raise AuthError(f"To redact events of others you need power level {levels.redact}.")
        return event.redacts

    # -- when memory lags --------------------------------------------------------------------------------------

    async def _sent_before(self, txn: TxnKey) -> Persisted | None:
        event_id = await self._txns.get(txn)
        stored = None if event_id is None else await self._events.get(event_id)
        return None if stored is None else Persisted(stored.event.event_id, stored.stream_ordering)

    async def refresh(self, room_id: str) -> None:
        """Ask the database about the room, before somebody is refused, or told that nothing is to do, on the word of
        memory that may lag. Nothing in the main process, where it never does."""
        if self._is_exact:
            return
        self._state.forget(room_id)
        await self._heads.reload(room_id)


def _is_joined(draft: Draft, state: State) -> bool:
    member = state.get((EventTypes.MEMBER, draft.sender))
    return member is not None and member.event.membership == Membership.JOIN


def _says_the_same(existing: Event, draft: Draft) -> bool:
    if existing.sender != draft.sender or existing.content != draft.content:
        return False
    # To Python, 1, 1.0 and true are equal.
    version = existing.room_version
    return canonical_bytes(existing.content, version) == canonical_bytes(draft.content, version)


def _replaced(draft: Draft, state: State) -> Replaced | None:
    if draft.key is None:
        return None
    existing = state.get(draft.key)
    return Replaced(None) if existing is None else Replaced(existing.event.event_id, existing.event.membership)


def _annotation(draft: Draft) -> tuple[str, ...] | None:
    """What may be there once: the same annotation of the same event by the same user."""
    relation = relation_of(draft.content) if "m.relates_to" in draft.content else None
    if relation is None or relation.rel_type != RelationTypes.ANNOTATION or relation.key is None:
        return None
    return (draft.sender, draft.type, relation.event_id, relation.key)
