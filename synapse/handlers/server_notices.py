"""Server notices: what this server tells a user, in a room that it shares with that user alone.

    await notices.send(Notice(user_id=user_id, content=content))     # in the main process

The room is made when there is something to tell, and the user is invited (or made to join, by `auto_join`) whenever
they are not there. Nobody can log in as the user who sends. A process that dies halfway leaves at most an empty room
behind that nobody was invited to; what is sent with a transaction id is sent once.

Client-server API, "Server Notices".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import MatrixError, not_found, unknown
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import room_version
from synapse.api.standing import SYSTEM
from synapse.handlers.notices_room import CACHE
from synapse.handlers.profile import MAX_PROFILE_BYTES
from synapse.handlers.room_plan import PRIVATE, CreateRoom, InitialState
from synapse.http.request import Requester
from synapse.storage.users import NewUser
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from synapse.config.conduct import ServerNotices as Options
    from synapse.handlers.account_data import AccountData
    from synapse.handlers.event_creation import EventCreation
    from synapse.handlers.membership import Memberships
    from synapse.handlers.room_creation import RoomCreation
    from synapse.storage.profiles import ProfileStore
    from synapse.storage.server_notices import ServerNoticesStore
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

TAG: Final = "m.server_notice"
_LISTENER: Final = -10
"""The power level of the user who is told: nobody reads what is written there."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to tell a user."""

    user_id: str
    content: dict[str, Any]
    type: str = EventTypes.MESSAGE
    state_key: str | None = None
    txn_id: str | None = None


class ServerNotices:
    """Tells users something, in the main process.

    :param options: None where nothing is configured; then everything is refused.
    :param show_profile: writes a user's name and picture into their memberships.
    :param invalidate: has every process forget keys of a cache.
    """

    def __init__(
        self,
        options: Options | None,
        store: ServerNoticesStore,
        users: UserStore,
        profiles: ProfileStore,
        show_profile: Callable[[str], Awaitable[None]],
        rooms: RoomCreation,
        creation: EventCreation,
        memberships: Memberships,
        account_data: AccountData,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        clock: Clock,
        server_name: str,
        default_version: str,
    ) -> None:
        self._options = options
        self._store = store
        self._users = users
        self._profiles = profiles
        self._show_profile = show_profile
        self._rooms = rooms
        self._creation = creation
        self._memberships = memberships
        self._account_data = account_data
        self._invalidate = invalidate
        self._clock = clock
        self._server_name = server_name
        self._has_privileged_creators = room_version(default_version).privileged_creators
        self._one_by_one: Linearizer[str] = Linearizer()
        self._is_ready = False

    async def send(self, notice: Notice) -> str:
        """The id of the event.

        Raises 400 M_UNKNOWN where server notices are not configured, 404 M_NOT_FOUND where there is no such user, and
        what sending an event raises; 403 M_INVITE_BLOCKED if the user wants no invitations.
        """
        if self._options is None:
            raise unknown("Server notices are not configured on this server; see `server_notices`.")
        user = await self._users.get(notice.user_id) if domain_of(notice.user_id) == self._server_name else None
        if user is None or user.deactivated:
            raise not_found("This server has no such user, or the account has been deactivated.")
        async with self._one_by_one.queue(""):
            system = await self._system(self._options)
        async with self._one_by_one.queue(notice.user_id):
            room_id = await self._room(self._options, system, notice.user_id)
        sent = await self._creation.create(
            system, room_id, notice.type, notice.content, state_key=notice.state_key, txn_id=notice.txn_id
        )
        return sent.event_id

    async def tell(self, notice: Notice) -> str | None:
        """Like `send`, for what the server says by itself.

        "" where it is refused, as it would be the next time; None where it can be tried again later. Both are logged.
        """
        try:
            return await self.send(notice)
        except MatrixError as error:
            again = error.code == 429 or error.code >= 500
            advice = "it is tried again later" if again else "it is not tried again"
            logger.warning("%s cannot be told something by the server, %s: %s", notice.user_id, advice, error)
            return None if again else ""

    async def _system(self, options: Options) -> Requester:
        """The user who sends; made, and given the configured name and picture, when it is first needed."""
        user_id = f"@{options.system_mxid_localpart}:{self._server_name}"
        if self._is_ready:
            return Requester(user_id)
        name, picture = options.system_mxid_display_name, options.system_mxid_avatar_url
        now = int(self._clock.seconds() * 1000)
        made = NewUser(user_id, None, now, name or options.system_mxid_localpart, user_type=SYSTEM)
        if not await self._users.create(made):
            user = await self._users.get(user_id)
            if user is None or user.user_type != SYSTEM:
                raise unknown(
                    f"Server notices cannot come from {user_id}, which is somebody's account; the administrator has to "
                    "choose another `system_mxid_localpart`."
                )
        wanted = {"displayname": name, "avatar_url": picture}
        changed = [
            await self._profiles.set_field(user_id, field, value, MAX_PROFILE_BYTES)
            for field, value in wanted.items()
            if value is not None
        ]
        if any(changed):
            await self._show_profile(user_id)
        self._is_ready = True
        return Requester(user_id)

    async def _room(self, options: Options, system: Requester, user_id: str) -> str:
        """The room with the user, who is there or invited."""
        room_id = await self._store.room_of(user_id)
        if room_id is None or await self._memberships.membership(room_id, system.user_id) != Membership.JOIN:
            room_id = (await self._rooms.create(system, self._plan(options, system, user_id))).room_id
            await self._store.set_room(user_id, room_id)
            await self._invalidate(CACHE, [user_id])
        membership = await self._memberships.membership(room_id, user_id)
        if membership not in (Membership.INVITE, Membership.JOIN):
            await self._account_data.set_tag(user_id, room_id, TAG, {})
            await self._memberships.invite(system, room_id, {"user_id": user_id})
        if options.auto_join and membership != Membership.JOIN:
            await self._memberships.join(Requester(user_id), room_id)
        return room_id

    def _plan(self, options: Options, system: Requester, user_id: str) -> CreateRoom:
        users = {user_id: _LISTENER}
        if not self._has_privileged_creators:
            users[system.user_id] = 100
        state = []
        if options.room_avatar_url is not None:
            state.append(InitialState(EventTypes.AVATAR, {"url": options.room_avatar_url}))
        return CreateRoom(
            preset=PRIVATE,
            name=options.room_name,
            topic=options.room_topic,
            initial_state=state,
            power_level_content_override={"users": users},
            creation_content={"m.federate": False},
        )
