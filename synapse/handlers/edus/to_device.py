"""Messages from devices of other servers: checked by any process, stored by the main process, each once.

Server-server API, "Send-to-device messaging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import MatrixError, invalid_param, too_large
from synapse.api.identifiers import domain_of, is_user_id
from synapse.handlers.edus.parsing import is_id, own_user, text
from synapse.handlers.to_device import MAX_MESSAGES, RECEIVE, Received, message_of

if TYPE_CHECKING:
    from synapse.replication.calls import MainProcess
    from synapse.storage.to_device import Message


class FarToDevice:
    """Takes m.direct_to_device."""

    def __init__(self, main: MainProcess, server_name: str) -> None:
        self._main = main
        self._server_name = server_name

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """What is for others than this server's users is passed over. Raises 400, 403, 413."""
        sender = own_user(origin, content, "sender")
        # The specification has 32 characters. To lose a message because its server counts otherwise helps nobody.
        event_type, message_id = text(content, "type"), text(content, "message_id")
        messages = self._messages(sender, event_type, content.get("messages"))
        if messages:
            await self._main(RECEIVE, Received(origin, message_id, sender, event_type, messages))

    def _messages(self, sender: str, event_type: str, users: object) -> list[Message]:
        if not isinstance(users, dict):
            raise invalid_param("'messages' must be an object.")
        found: list[Message] = []
        for user_id, devices in users.items():
            if domain_of(user_id) != self._server_name or not is_user_id(user_id) or not isinstance(devices, dict):
                continue
            if len(found) + len(devices) > MAX_MESSAGES:
                raise too_large(f"An EDU may hold {MAX_MESSAGES} messages at most.")
            found += [
                message
                for device_id, each in devices.items()
                if is_id(device_id) and (message := _message(sender, event_type, user_id, device_id, each)) is not None
            ]
        return found


def _message(sender: str, event_type: str, user_id: str, device_id: str, content: object) -> Message | None:
    """None of one that this server's own users could not have sent."""
    try:
        return message_of(sender, event_type, user_id, device_id, content)[0]
    except MatrixError:
        return None
