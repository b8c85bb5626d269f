"""Redactions: taking back what an event says. Who may is checked where events are made (`event_creation`), what
remains of the event is told by `synapse.events.redaction`.

Client-server API, "Redactions"; room version 11 for where `redacts` stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes
from synapse.api.errors import bad_json, missing_param
from synapse.api.identifiers import parse_event_id
from synapse.storage.event_txns import REDACT

if TYPE_CHECKING:
    from synapse.handlers.event_creation import EventCreation
    from synapse.http.request import Requester
    from synapse.storage.persist_events import Persisted


class Redactions:
    """Redacts events."""

    def __init__(self, creation: EventCreation) -> None:
        self._creation = creation

    async def redact(
        self,
        requester: Requester,
        room_id: str,
        event_id: str,
        content: dict[str, Any],
        txn_id: str | None,
        scope: str = REDACT,
    ) -> Persisted:
        """Redact an event of the room. Raises 403 M_FORBIDDEN, 404 M_NOT_FOUND.

        `content` is that of the redaction: `reason`, and what else the client wants to say. `scope` is that of the
        transaction id.
        """
        parse_event_id(event_id)
        if not isinstance(content.get("reason", ""), str):
            raise bad_json("The 'reason' of a redaction must be a string.")
        content = {key: value for key, value in content.items() if key != "redacts"}
        return await self._creation.create(
            requester, room_id, EventTypes.REDACTION, content, txn_id=txn_id, txn_scope=scope, redacts=event_id
        )

    async def send(self, requester: Requester, room_id: str, content: dict[str, Any], txn_id: str | None) -> Persisted:
        """The same as an ordinary event, whose content says what to redact, as room version 11 allows."""
        target = content.get("redacts")
        if not isinstance(target, str):
            raise missing_param("redacts")
        return await self.redact(requester, room_id, target, content, txn_id, scope="")
