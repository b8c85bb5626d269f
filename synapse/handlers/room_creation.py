"""Creating rooms: what a request asks for becomes the room's first events, built in order and written together.

Client-server API, "Creation"; room version 12 for rooms that are named by their create event and creators' power.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.constants import EventTypes, GuestAccess, HistoryVisibility, JoinRules, Membership
from synapse.api.errors import AuthError, Codes, MatrixError, bad_json, forbidden, invalid_param, unknown
from synapse.api.identifiers import is_user_id, new_room_id, parse_room_alias, parse_user_id
from synapse.api.room_versions import EventFormat, RoomVersion, room_version
from synapse.events import auth
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.events.hashes import reference_hash
from synapse.events.power_levels import PowerLevels
from synapse.handlers.event_content import check_content
from synapse.handlers.membership import invite_blocked
from synapse.push.bulk import Members
from synapse.storage.invitees import NOBODY
from synapse.storage.persist_events import NewEvent, NewRoom, Outcome, Replaced, Request

if TYPE_CHECKING:
    from synapse.handlers.event_creation import Signer
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Requester
    from synapse.push.bulk import BulkPush
    from synapse.storage.invitees import Invitee, InviteesStore

MAX_EVENTS: Final = 500
"""Events that one request may make: each costs a signature and a row in ten tables."""

INVITES: Final = "rc_invites.per_issuer"
"""The setting that invitations count against. A room may begin with more of them than it would allow one by one."""

PRIVATE, TRUSTED, PUBLIC = "private_chat", "trusted_private_chat", "public_chat"
_PRESETS: Final = {
    PRIVATE: (JoinRules.INVITE, HistoryVisibility.SHARED, GuestAccess.CAN_JOIN),
    TRUSTED: (JoinRules.INVITE, HistoryVisibility.SHARED, GuestAccess.CAN_JOIN),
    PUBLIC: (JoinRules.PUBLIC, HistoryVisibility.SHARED, GuestAccess.FORBIDDEN),
}


class InitialState(msgspec.Struct, frozen=True):
    """A state event that the room is to begin with."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class CreateRoom(msgspec.Struct, frozen=True, kw_only=True):
    """The body of createRoom."""

    visibility: str | None = None
    preset: str | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] = msgspec.field(default_factory=list)
    invite_3pid: list[Any] = msgspec.field(default_factory=list)
    room_version: str | None = None
    creation_content: dict[str, Any] = msgspec.field(default_factory=dict)
    initial_state: list[InitialState] = msgspec.field(default_factory=list)
    is_direct: bool = False
    power_level_content_override: dict[str, Any] = msgspec.field(default_factory=dict)


class Created(msgspec.Struct, frozen=True):
    """A new room."""

    room_id: str
    room_alias: str | None = None


class RoomCreation:
    """Creates rooms, in any process.

    :param writer, caught_up, now: as for `EventCreation`.
    """

    def __init__(
        self,
        signer: Signer,
        invitees: InviteesStore,
        push: BulkPush,
        writer: Callable[[Request], Awaitable[Outcome]],
        caught_up: Callable[[int], Awaitable[None]],
        now: Callable[[], int],
        limits: RateLimits,
        default_version: str,
    ) -> None:
        self._signer = signer
        self._invitees = invitees
        self._push = push
        self._writer = writer
        self._caught_up = caught_up
        self._now = now
        self._limits = limits
        self._default_version = default_version

    async def create(self, requester: Requester, wish: CreateRoom) -> Created:
        """Create a room with the requester as its creator.

        Raises 400 M_UNSUPPORTED_ROOM_VERSION, M_ROOM_IN_USE (the alias is taken), M_INVALID_ROOM_STATE (the events
        that were asked for contradict each other), M_INVALID_PARAM, M_BAD_JSON; 403 for invitations that cannot be.
        """
        version = room_version(self._default_version if wish.room_version is None else wish.room_version)
        preset = self._check(wish)
        alias = self._alias(wish)
        plan = _Plan(requester.user_id, version, wish, preset, alias)
        if plan.invited:
            self._limits.require(INVITES, requester.user_id)
        users = await self._invitees.get_many([requester.user_id, *plan.invited])
        for user_id in plan.invited:
            if users.get(user_id, NOBODY).blocks_invites:
                raise invite_blocked(user_id)
        events = self._build(plan, users)
        request = Request(
            events[0].room_id,
            await self._with_push(events, len(plan.invited) > 0),
            room=NewRoom(requester.user_id, wish.visibility == "public", [alias] if alias is not None else []),
        )
        outcome = await self._writer(request)
        for _ in plan.invited:
            self._limits.count(INVITES, requester.user_id)
        await self._caught_up(outcome.position)
        return Created(request.room_id, alias)

    def _check(self, wish: CreateRoom) -> str:
        """Raises for what cannot be asked for; the preset that applies."""
        if wish.visibility not in (None, "public", "private"):
            raise invalid_param("The visibility of a room is 'public' or 'private'.")
        if wish.invite_3pid:
            raise unknown("This server cannot invite by e-mail or phone number yet; leave 'invite_3pid' out.")
        for user_id in wish.invite:
            if parse_user_id(user_id).domain != self._signer.server_name:
                raise forbidden(f"{user_id} belongs to another server, and this one cannot invite over federation yet.")
        if len(wish.invite) + len(wish.initial_state) > MAX_EVENTS:
            raise invalid_param(f"A room may begin with {MAX_EVENTS} invitations and state events at most.")
        preset = wish.preset or (PUBLIC if wish.visibility == "public" else PRIVATE)
        if preset not in _PRESETS:
            raise invalid_param(f"A preset is one of {', '.join(_PRESETS)}.")
        return preset

    def _alias(self, wish: CreateRoom) -> str | None:
        if wish.room_alias_name is None:
            return None
        alias = f"#{wish.room_alias_name}:{self._signer.server_name}"
        if not wish.room_alias_name or ":" in wish.room_alias_name:
            raise invalid_param("'room_alias_name' is the part of an alias between '#' and ':', without either.")
        parse_room_alias(alias)
        return alias

    def _build(self, plan: _Plan, users: dict[str, Invitee]) -> list[Event]:
        """The room's first events, each allowed by the state that those before it make."""
        state: dict[StateKey, Event] = {}
        events: list[Event] = []
        room_id = None if plan.version.room_id_from_create else new_room_id(self._signer.server_name)
        for event_type, state_key, content in plan.events():
            if event_type == EventTypes.MEMBER:
                content.update(users.get(state_key, NOBODY).as_json())
            try:
                check_content(event_type, state_key, content, plan.version)
                event = self._build_one(plan, room_id, events, state, (event_type, state_key), content)
                auth.check(event, state)
            except AuthError as error:
                sentence = f"The room cannot begin with this {event_type}: {error.message}"
                raise MatrixError(400, Codes.INVALID_ROOM_STATE, sentence) from error
            room_id = event.room_id
            state[event.key] = event
            events.append(event)
        return events

    def _build_one(
        self,
        plan: _Plan,
        room_id: str | None,
        events: list[Event],
        state: dict[StateKey, Event],
        key: StateKey,
        content: dict[str, Any],
    ) -> Event:
        version = plan.version
        cited = auth.cited_types_for(version, key[0], plan.creator, key[1], content)
        auth_events = [state[wanted] for wanted in cited if wanted in state]
        hashes = None
        if version.event_format is EventFormat.V1:
            hashes = {e.event_id: reference_hash(e.raw, version) for e in (*auth_events, *events[-1:])}
        return build(
            version,
            room_id=room_id,
            sender=plan.creator,
            type=key[0],
            content=content,
            prev_events=[event.event_id for event in events[-1:]],
            auth_events=[event.event_id for event in auth_events],
            depth=len(events) + 1,
            origin_server_ts=self._now(),
            server_name=self._signer.server_name,
            signing_key=self._signer.key,
            state_key=key[1],
            reference_hashes=hashes,
        )

    async def _with_push(self, events: list[Event], invites: bool) -> list[NewEvent]:
        """The events with whom they concern: nobody but the creator is in the room, so only invitations do."""
        state = {event.key: event for event in events}
        version = events[0].room_version
        result: list[NewEvent] = []
        seen: dict[StateKey, Event] = {}
        for event in events:
            old = seen.get(event.key)
            replaces = Replaced(None) if old is None else Replaced(old.event_id, old.membership)
            seen[event.key] = event
            if invites and event.membership == Membership.INVITE:
                levels = PowerLevels.of_state(state, version)
                _thread, push = await self._push.evaluate(event, Members({event.sender: None}, 1), levels)
                result.append(NewEvent(event, push=tuple(push), replaces=replaces))
            else:
                result.append(NewEvent(event, replaces=replaces))
        return result


class _Plan:
    """The state that a new room begins with, in the order of the specification."""

    def __init__(self, creator: str, version: RoomVersion, wish: CreateRoom, preset: str, alias: str | None) -> None:
        self.creator = creator
        self.version = version
        self._wish = wish
        self._preset = preset
        self._alias = alias
        self.invited = [user_id for user_id in dict.fromkeys(wish.invite) if user_id != creator]

    def events(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Type, state key and content of each event. The contents are new."""
        wish = self._wish
        yield EventTypes.CREATE, "", self._create()
        yield EventTypes.MEMBER, self.creator, {"membership": Membership.JOIN}
        yield EventTypes.POWER_LEVELS, "", self._power_levels()
        if self._alias is not None:
            yield EventTypes.CANONICAL_ALIAS, "", {"alias": self._alias}
        yield from self._of_preset()
        later = {name for name, value in ((EventTypes.NAME, wish.name), (EventTypes.TOPIC, wish.topic)) if value}
        for state in wish.initial_state:
            if state.state_key or state.type not in later:
                yield state.type, state.state_key, dict(state.content)
        if wish.name:
            yield EventTypes.NAME, "", {"name": wish.name}
        if wish.topic:
            yield EventTypes.TOPIC, "", {"topic": wish.topic, "m.topic": {"m.text": [{"body": wish.topic}]}}
        for user_id in self.invited:
            direct = {"is_direct": True} if wish.is_direct else {}
            yield EventTypes.MEMBER, user_id, {"membership": Membership.INVITE, **direct}

    def _create(self) -> dict[str, Any]:
        content = {**self._wish.creation_content, "room_version": self.version.identifier}
        content.pop("creator", None)
        if not self.version.implicit_creator:
            content["creator"] = self.creator
        if self.version.privileged_creators and self._preset == TRUSTED and self.invited:
            named = content.get("additional_creators", [])
            if not isinstance(named, list) or not all(isinstance(u, str) and is_user_id(u) for u in named):
                raise bad_json("'additional_creators' must be an array of user IDs.")
            content["additional_creators"] = list(dict.fromkeys([*named, *self.invited]))
        return content

    def _power_levels(self) -> dict[str, Any]:
        """Moderators may name and decorate the room; what can break it is for administrators."""
        users: dict[str, int] = {}
        if not self.version.privileged_creators:
            users[self.creator] = 100
            if self._preset == TRUSTED:
                users.update(dict.fromkeys(self.invited, 100))
        content: dict[str, Any] = {
            "users": users,
            "users_default": 0,
            "events": {
                EventTypes.NAME: 50,
                EventTypes.AVATAR: 50,
                EventTypes.CANONICAL_ALIAS: 50,
                EventTypes.POWER_LEVELS: 100,
                EventTypes.HISTORY_VISIBILITY: 100,
                EventTypes.SERVER_ACL: 100,
                EventTypes.ENCRYPTION: 100,
                EventTypes.TOMBSTONE: 150 if self.version.privileged_creators else 100,
            },
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 50 if self._preset == PUBLIC else 0,
        }
        return {**content, **self._wish.power_level_content_override}

    def _of_preset(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """What the preset sets, except where the initial state has a word of its own."""
        given = {state.type for state in self._wish.initial_state if state.state_key == ""}
        join_rule, visibility, guest_access = _PRESETS[self._preset]
        for event_type, content in (
            (EventTypes.JOIN_RULES, {"join_rule": join_rule}),
            (EventTypes.HISTORY_VISIBILITY, {"history_visibility": visibility}),
            (EventTypes.GUEST_ACCESS, {"guest_access": guest_access}),
        ):
            if event_type not in given:
                yield event_type, "", content
