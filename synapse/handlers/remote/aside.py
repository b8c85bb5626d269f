"""Knocking at rooms that this server takes no part in, and leaving them again: refusing an invite, taking back a knock.

The room hears of it through one of its servers. A user who leaves has left here whatever the others say: an invite from
a server that is gone would stay for ever.

Server-server API, "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import MatrixError, forbidden
from synapse.api.room_versions import ROOM_VERSIONS, RoomVersion
from synapse.events.event import Event
from synapse.handlers.remote.joining import version_of
from synapse.handlers.remote.search import Search
from synapse.handlers.remote.templates import leave_without_help, made_by
from synapse.handlers.stripped_state import taken
from synapse.storage.persist_events import Fate, Kind, Received, ReceivedEvent

if TYPE_CHECKING:
    from synapse.federation.answers import Template
    from synapse.federation.api import FederationApi
    from synapse.federation.receiving.checks import EventChecks
    from synapse.handlers.event_creation import Signer
    from synapse.storage.persist_events import Receipt
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

KNOCK_SECONDS: Final = 60.0
LEAVE_SECONDS: Final = 20.0
"""After so long, no further server is asked. Who leaves does not wait for long: it is done here in any case."""


class Aside:
    """Changes memberships beside rooms, in any process.

    :param receive: hands events to the writer.
    """

    def __init__(
        self,
        api: FederationApi,
        checks: EventChecks,
        receive: Callable[[Received], Awaitable[Receipt]],
        signer: Signer,
        clock: Clock,
    ) -> None:
        self._api = api
        self._checks = checks
        self._receive = receive
        self._signer = signer
        self._clock = clock

    async def knock(self, room_id: str, user_id: str, content: Mapping[str, Any], servers: Sequence[str]) -> int:
        """Knocks with the help of one of the servers; the position of the events stream that has it.

        Raises what the servers answer, 404 M_NOT_FOUND where there is none to ask.
        """
        versions = [version.identifier for version in ROOM_VERSIONS.values() if version.knocking]

        async def ask(server: str) -> ReceivedEvent:
            template = await self._api.make_knock(server, room_id, user_id, versions)
            event = self._made(server, template, room_id, user_id, content)
            told = await self._api.send_knock(server, room_id, event.event_id, event.raw)
            shown = await taken(told, event.room_version, room_id, self._checks)
            return ReceivedEvent(event, relay=False, stripped=tuple(shown))

        return await self._write(await Search(self._clock, KNOCK_SECONDS).first(servers, ask))

    async def leave(self, after: Event, user_id: str, content: Mapping[str, Any], servers: Sequence[str]) -> int:
        """Refuses the invite `after`, or takes back that knock; the position of the events stream that has it."""

        async def ask(server: str) -> Event:
            template = await self._api.make_leave(server, after.room_id, user_id)
            event = self._made(server, template, after.room_id, user_id, content, after.room_version)
            await self._api.send_leave(server, after.room_id, event.event_id, event.raw)
            return event

        try:
            event = await Search(self._clock, LEAVE_SECONDS).first(servers, ask)
        except MatrixError as error:
            logger.info("%s leaves %s, of which no other server hears: %s", user_id, after.room_id, error.message)
            event = leave_without_help(after, user_id, content, self._signer, self._now())
        return await self._write(ReceivedEvent(event, relay=False))

    def _made(
        self,
        server: str,
        template: Template,
        room_id: str,
        user_id: str,
        content: Mapping[str, Any],
        version: RoomVersion | None = None,
    ) -> Event:
        return made_by(
            server,
            template.event,
            version or version_of(server, template),
            room_id=room_id,
            user_id=user_id,
            content=content,
            signer=self._signer,
            now=self._now(),
        )

    async def _write(self, received: ReceivedEvent) -> int:
        event = received.event
        receipt = await self._receive(Received(event.room_id, event.room_version, (received,), kind=Kind.ASIDE))
        fate, why = receipt.fates[0]
        if fate not in (Fate.ACCEPTED, Fate.KNOWN):
            raise forbidden(why)
        return receipt.position

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
