"""Messages from device to device: taking them from the sender and putting them where the receivers' syncs find them.

Each request is one position of the stream `to_device`. One that is made again under its transaction id does nothing.
Devices of other servers are reached over federation, which is not done here: messages to them are refused.

Client-server API, "Send-to-Device messaging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.errors import bad_json, forbidden, invalid_param, missing_param, too_large
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.replication.calls import Call
from synapse.storage.to_device import Message, Txn

if TYPE_CHECKING:
    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.to_device import ToDeviceStore
    from synapse.util.clock import Clock

MAX_MESSAGES: Final = 10_000
MAX_NAME_BYTES: Final = 255
MAX_CONTENT_BYTES: Final = 65_536
KEEP_TXNS_MS: Final = 24 * 3600 * 1000


class Sending(msgspec.Struct, frozen=True):
    """One request, checked."""

    sender: Txn
    messages: list[Message]


SEND: Final = Call("to_device.send", Sending, type(None))


class ToDevice:
    """Sends messages to devices, from any process; the main process stores them."""

    def __init__(
        self, store: ToDeviceStore, stream: StreamWriter, main: MainProcess, clock: Clock, server_name: str
    ) -> None:
        self._store = store
        self._stream = stream
        self._main = main
        self._clock = clock
        self._server_name = server_name
        main.expose(SEND, self._store_and_tell)

    async def send(self, sender: Txn, event_type: str, body: dict[str, Any]) -> None:
        """Client-server API, `PUT /sendToDevice/{eventType}/{txnId}`. Raises 400, 403, 413."""
        for name, value in (("event type", event_type), ("transaction ID", sender.txn_id)):
            if len(value.encode("utf-8", "replace")) > MAX_NAME_BYTES:
                raise invalid_param(f"The {name} has at most {MAX_NAME_BYTES} bytes.")
        messages = checked_messages(sender.user_id, event_type, body)
        if any(domain_of(message.user_id) != self._server_name for message in messages):
            raise forbidden("Messages to devices of other servers cannot be sent.")
        await self._main(SEND, Sending(sender, messages))

    async def _store_and_tell(self, sending: Sending) -> None:
        now = int(self._clock.seconds() * 1000)
        await self._stream.append(
            lambda position: self._store.add(sending.sender, sending.messages, position, now), sorted
        )

    async def forget_old_txns(self) -> None:
        """Drops the transaction ids of long ago; the main process does it once in a while."""
        await self._store.forget_txns(int(self._clock.seconds() * 1000) - KEEP_TXNS_MS)


def checked_messages(sender: str, event_type: str, body: dict[str, Any]) -> list[Message]:
    """The messages of a request; raises 400 M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM; 413 M_TOO_LARGE."""
    users = body.get("messages")
    if not isinstance(users, dict):
        raise missing_param("messages") if users is None else bad_json("The key 'messages' must be an object.")
    messages = []
    for user_id, devices in users.items():
        parse_user_id(user_id)
        if not isinstance(devices, dict):
            raise bad_json("The values in 'messages' must be objects of device IDs with a content each.")
        messages += [_message(sender, event_type, user_id, device, content) for device, content in devices.items()]
    if len(messages) > MAX_MESSAGES:
        raise too_large(f"One request may send {MAX_MESSAGES} messages at most.")
    return messages


def _message(sender: str, event_type: str, user_id: str, device_id: str, content: object) -> Message:
    if not isinstance(content, dict):
        raise bad_json("The content of a message to a device must be an object.")
    if "\x00" in device_id:
        raise invalid_param("A device ID cannot contain a NUL character.")
    text = orjson.dumps({"type": event_type, "sender": sender, "content": content}).decode()
    if len(text) > MAX_CONTENT_BYTES:
        raise too_large(f"A message to a device may have {MAX_CONTENT_BYTES} bytes at most.")
    return Message(user_id, device_id, text)
