"""Invitations by e-mail address or phone number as far as other servers have to do with them: the invited user's, or
the inviter's. `handlers.third_party_invites` says what is done; here stands how.

Server-server API, "Third-party invites".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from synapse.federation.errors import FederationError, matrix_error
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.events.event import Event
    from synapse.federation.api import FederationApi
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.handlers.doors.residence import Residence
    from synapse.handlers.event_creation import Draft
    from synapse.storage.persist_events import Persisted


class OtherServers:
    """Works in any process.

    :param invite_other: invites another server's user; see `handlers.remote.inviting`.
    """

    def __init__(
        self,
        residence: Residence,
        api: FederationApi,
        pipeline: Pipeline,
        recommend: Callable[[Event], Awaitable[Event]],
        invite_other: Callable[[Draft], Awaitable[Persisted]],
        server_name: str,
    ) -> None:
        self._residence = residence
        self._api = api
        self._pipeline = pipeline
        self._recommend = recommend
        self._invite_other = invite_other
        self._server_name = server_name
        self._asking: Linearizer[str] = Linearizer()

    async def is_in(self, room_id: str) -> bool:
        """Whether this server is in the room."""
        return await self._residence.is_in(room_id)

    async def ask(self, server: str, room_id: str, event: dict[str, Any]) -> None:
        """Has a server exchange an invitation for a user of ours: it will invite that user. Raises MatrixError."""
        async with self._asking.queue(server):  # whoever tells of invitations is no reason to ask more at once
            try:
                await self._api.exchange_third_party_invite(server, room_id, event)
            except FederationError as error:
                raise matrix_error(error) from error

    async def invite(self, draft: Draft) -> Persisted:
        """Invites another server's user, whose server signs the invite too."""
        return await self._invite_other(draft)

    async def bring_in(self, event: Event) -> Persisted:
        """Brings an invitation that this server has signed for another's inviter into the room, and to all others."""
        return await self._pipeline.accept(self._server_name, await self._recommend(event), relay=True)
