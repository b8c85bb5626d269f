"""The rooms that everybody is in who registers: joined before the answer, and made where they are missing.

A room that cannot be joined keeps nobody from registering. Whoever has yet to join is in the database, where a restart
finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError
from synapse.api.identifiers import parse_room_alias
from synapse.handlers.room_plan import CreateRoom
from synapse.http.request import Requester
from synapse.logging.context import RequestContext, current_request, new_request_id
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.config.auto_join import AutoJoinConfig
    from synapse.handlers.aliases import Aliases
    from synapse.handlers.membership import Memberships
    from synapse.handlers.room_creation import RoomCreation
    from synapse.storage.arrivals import ArrivalStore
    from synapse.storage.users import User, UserStore

logger = logging.getLogger(__name__)

SUPPORT: Final = "support"


@contextmanager
def _unlimited(user_id: str) -> Iterator[None]:
    """What is done within is the server's doing, and not limited as what users do is."""
    context = RequestContext(new_request_id("JOIN"), "auto_join", user_id)
    context.rate_limited = False
    outer = current_request.set(context)
    try:
        yield
    finally:
        current_request.reset(outer)


class AutoJoin:
    """Brings new users into rooms, in the main process."""

    def __init__(
        self,
        options: AutoJoinConfig,
        store: ArrivalStore,
        users: UserStore,
        memberships: Memberships,
        aliases: Aliases,
        creation: RoomCreation,
        server_name: str,
    ) -> None:
        self._options = options
        self._store = store
        self._users = users
        self._memberships = memberships
        self._aliases = aliases
        self._creation = creation
        self._server_name = server_name
        localpart = options.auto_join_mxid_localpart
        self._host = None if localpart is None else f"@{localpart}:{server_name}"

    async def run(self) -> None:
        """Goes on with those whom a restart kept from it, or a fault of the server."""
        for user_id in await self._store.arriving():
            await self.welcome(user_id)

    async def welcome(self, user_id: str) -> None:
        """Has a new user join the rooms, however many come at once. Raises nothing."""
        with _unlimited(user_id):
            await self._join_all(user_id)

    async def _join_all(self, user_id: str) -> None:
        try:
            user = await self._users.get(user_id)
            if user is not None and not user.deactivated:
                for alias in self._options.auto_join_rooms:
                    await self._join(user, alias)
            await self._store.arrived(user_id)
        except Exception as error:
            log_failure(logger, error, "%s could not join the rooms that everybody is in", user_id)

    async def _join(self, user: User, alias: str) -> None:
        requester = Requester(user.user_id, is_guest=user.is_guest, is_admin=user.admin)
        try:
            if not await self._is_there(alias):
                await self._create(user, alias)
            await self._enter(requester, alias)
        except MatrixError as error:
            logger.warning("%s does not join %s: %s", user.user_id, alias, error)

    async def _is_there(self, alias: str) -> bool:
        try:
            await self._aliases.resolve(alias)
        except MatrixError as error:
            if error.errcode != Codes.NOT_FOUND or parse_room_alias(alias).domain != self._server_name:
                raise
            return False
        return True

    async def _create(self, user: User, alias: str) -> None:
        """Makes a room that is missing; raises 404 M_NOT_FOUND where it is not to be made."""
        host = user if self._host in (None, user.user_id) else await self._users.get(self._host or "")
        if not self._options.autocreate_auto_join_rooms or user.is_guest or user.user_type == SUPPORT:
            raise MatrixError(404, Codes.NOT_FOUND, "there is no such room")
        if host is None or host.deactivated:
            raise MatrixError(
                404, Codes.NOT_FOUND, f"there is no such room, and no user {self._host} who would make it"
            )
        wish = CreateRoom(
            preset=self._options.autocreate_auto_join_room_preset,
            room_alias_name=parse_room_alias(alias).localpart,
            creation_content={} if self._options.autocreate_auto_join_rooms_federated else {"m.federate": False},
        )
        try:
            await self._creation.create(Requester(host.user_id, is_admin=True), wish)
        except MatrixError as error:
            if error.errcode != Codes.ROOM_IN_USE:  # somebody else who registers has made it just now
                raise

    async def _enter(self, requester: Requester, alias: str) -> None:
        try:
            await self._memberships.join(requester, alias)
        except MatrixError as error:
            if error.code != 403 or self._host in (None, requester.user_id):
                raise
            room_id = await self._aliases.resolve(alias)
            await self._memberships.invite(Requester(self._host or ""), room_id, {"user_id": requester.user_id})
            await self._memberships.join(requester, room_id)
