"""Inviting other servers' users: their server signs the invite before it goes into the room, or says why not.

So an invite that is in a room is one that the user has got. Nothing of what the other server sends back is taken over
but its signature.

Server-server API, "Inviting to a room"; client-server API, "Invite permission".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes
from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.api.identifiers import domain_of
from synapse.events.event import Event
from synapse.federation.errors import FederationError, Refused, matrix_error
from synapse.handlers.stripped_state import given
from synapse.storage.persist_events import Persisted

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.handlers.event_creation import Draft, EventCreation
    from synapse.handlers.remote.signatures import Countersigning
    from synapse.state.store import StateReader

_CREATE: Final = (EventTypes.CREATE, "")
_VERSION_ERRORS: Final = frozenset({Codes.INCOMPATIBLE_ROOM_VERSION, Codes.UNSUPPORTED_ROOM_VERSION})
_NOT_THE_USERS: Final = frozenset({Codes.MISSING_PARAM, Codes.INVALID_PARAM})


class Inviting:
    """Invites, in any process."""

    def __init__(
        self,
        api: FederationApi,
        creation: EventCreation,
        state: StateReader,
        countersigning: Countersigning,
    ) -> None:
        self._api = api
        self._creation = creation
        self._state = state
        self._countersigning = countersigning

    async def invite(self, draft: Draft) -> Persisted:
        """Sends the invite that the draft is, of a user of another server. Who is invited already, and in the same
        words, is not invited again.

        Raises 403 M_FORBIDDEN, M_INVITE_BLOCKED where the room, or the user's server, does not allow it; 400
        M_UNSUPPORTED_ROOM_VERSION where that server does not know the room's version; 502 and 504 where it cannot be
        asked.
        """
        assert draft.state_key is not None, "an invite is of somebody"
        member = (EventTypes.MEMBER, draft.state_key)
        await self._creation.refresh(draft.room_id)
        state = await self._state.current(draft.room_id, [member, _CREATE])
        earlier = state.get(member)
        if earlier and earlier.event.sender == draft.sender and earlier.shown.content == draft.content:
            return Persisted(earlier.event.event_id, earlier.stream_ordering)
        if _CREATE in state and state[_CREATE].shown.content.get("m.federate") is False:
            raise forbidden("This room is for users of its own server alone.")
        request = await self._creation.prepare(draft)
        new = request.events[0]
        signed = await self._signed(new.event, draft.state_key)
        return await self._creation.finish(request._replace(events=(new._replace(event=signed),)))

    async def _signed(self, event: Event, user_id: str) -> Event:
        """The invite with the signature of the user's server."""
        server = domain_of(user_id)
        shown = await given(self._state, event.room_id, event.sender)
        try:
            answer = await self._api.invite(server, event.room_id, event.event_id, event.raw, event.room_version, shown)
            return await self._countersigning.take(event, answer, server)
        except FederationError as error:
            raise _told(error, user_id) from error


def _told(error: FederationError, user_id: str) -> MatrixError:
    """What whoever invites is told."""
    if isinstance(error, Refused):
        if error.errcode in _VERSION_ERRORS:
            sentence = f"The server of {user_id} does not support the version of this room."
            return MatrixError(400, Codes.UNSUPPORTED_ROOM_VERSION, sentence)
        if error.code == 400 and error.errcode in _NOT_THE_USERS:
            sentence = f"{error.server} does not accept the invite: {error.message}"
            return MatrixError(502, Codes.UNKNOWN, sentence)
    return matrix_error(error)
