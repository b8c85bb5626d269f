"""Deactivating accounts: the end of every session at once, and of every membership in the background.

The password, sessions, devices with their keys, settings and the entry in the user directory go in one transaction. The
rooms are left one after another by the main process; who has yet to leave is in the database, so a restart goes on with
it. Whoever asks for erasure also loses profile and addresses, and what they wrote is shown pruned to those who were not
there (`synapse.sync.erased`).

Client-server API, "Account management", `POST /account/deactivate`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from synapse.api.constants import Membership
from synapse.api.errors import MatrixError, not_found
from synapse.handlers.notices_room import CACHE as NOTICES_ROOMS
from synapse.http.request import Requester
from synapse.sync.erased import CACHE as ERASED_USERS
from synapse.util.concurrency import Linearizer
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from synapse.handlers.auth import Authenticator
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.identity_bindings import IdentityBindings
    from synapse.storage.deactivation import DeactivationStore
    from synapse.storage.memberships import MembershipsStore

logger = logging.getLogger(__name__)

_HERE = (Membership.JOIN, Membership.INVITE, Membership.KNOCK)


class Deactivation:
    """Takes accounts out of use, in the main process.

    :param invalidate: has every process forget keys of a cache.
    :param gone: has the rest of the server draw the consequences: rooms are left, presence ends.
    """

    def __init__(
        self,
        store: DeactivationStore,
        authenticator: Authenticator,
        changes: DeviceChanges,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        gone: Callable[[str], Awaitable[None]],
        bindings: IdentityBindings,
    ) -> None:
        self._bindings = bindings
        self._store = store
        self._authenticator = authenticator
        self._changes = changes
        self._invalidate = invalidate
        self._gone = gone

    async def deactivate(self, user_id: str, erase: bool, id_server: str | None = None) -> bool:
        """Ends an account for good; whether identity servers tell of none of its addresses any more.

        :param id_server: the one to ask; None for all that are known to tell of one.

        Raises 404 M_NOT_FOUND where there is no such account, 400 for an identity server that cannot be asked.
        """
        bound = await self._bindings.of_user(user_id, id_server)
        deleted = await self._changes.write(
            user_id,
            lambda position: self._authenticator.revoking(self._store.deactivate(user_id, erase, position)),
            lambda gone: gone is not None and bool(gone.device_ids or gone.had_cross_signing),
        )
        if deleted is None:
            raise not_found("There is no such user on this server.")
        await self._invalidate(NOTICES_ROOMS, [user_id])
        if erase:
            await self._invalidate(ERASED_USERS, [user_id])
        await self._changes.counts_changed([(user_id, device_id) for device_id in deleted.device_ids])
        await self._gone(user_id)
        return await self._bindings.unbind_each(user_id, bound)


class Departures:
    """Takes deactivated users out of their rooms, in the main process.

    :param leave: makes a user leave a room, or refuse an invitation to it.
    """

    def __init__(
        self,
        store: DeactivationStore,
        memberships: MembershipsStore,
        leave: Callable[[Requester, str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._memberships = memberships
        self._leave = leave
        self._turns: Linearizer[None] = Linearizer()

    def begin(self) -> None:
        """Somebody has to leave; returns at once."""
        Deferred.fromCoroutine(self.run()).addErrback(
            lambda failure: logger.error("Deactivated users could not leave their rooms", exc_info=failure.value)
        )

    async def run(self) -> None:
        """Has everybody leave who has to. What fails by a fault of the server is left for the next time.

        One run at a time: two would refuse the same invitation at once. Whoever has to leave when this is called has
        left when it returns, also where a run was under way.
        """
        async with self._turns.queue(None):
            for user_id in await self._store.departing():
                if await self._leave_rooms(user_id):
                    await self._store.departed(user_id)

    async def _leave_rooms(self, user_id: str) -> bool:
        done = True
        for room in await self._memberships.rooms_of(user_id, _HERE):
            try:
                await self._leave(Requester(user_id), room.room_id)
            except MatrixError as error:
                logger.warning("%s is deactivated and cannot leave %s: %s", user_id, room.room_id, error)
            except Exception as error:
                log_failure(logger, error, "%s is deactivated and could not leave %s", user_id, room.room_id)
                done = False
        return done
