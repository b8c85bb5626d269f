"""Messages from device to device: taking them from the sender and putting them where the receivers' syncs find them.

Each request is one position of the stream `to_device`. One that is made again under its transaction id does nothing.
Who ignores the sender is sent nothing, then or later. A device that does not come for its messages keeps the latest
10,000; so that each message is not paid for by counting those that wait, the main process looks at a device's queue
after every hundred messages that it has added to it.

What is for devices of other servers is stored at the same position, in an outbox (`storage.to_device_outbox`).

Client-server API, "Send-to-Device messaging", "Ignoring Users".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.errors import MatrixError, bad_json, invalid_param, missing_param, too_large
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.edus.outgoing import edus_of
from synapse.metrics import table
from synapse.replication.calls import Call
from synapse.storage.to_device import Device, Message, Txn
from synapse.storage.to_device_outbox import Outgoing
from synapse.util.caches import LruCache
from synapse.util.storable import MAX_DEPTH, is_too_deep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from synapse.handlers.positions import StreamWriter
    from synapse.http.ratelimit import RateLimits
    from synapse.replication.calls import MainProcess
    from synapse.storage.to_device import ToDeviceStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_MESSAGES: Final = 10_000
MAX_NAME_BYTES: Final = 255
MAX_CONTENT_BYTES: Final = 65_536
KEEP_TXNS_MS: Final = 24 * 3600 * 1000
KEEP_RECEIVED_MS: Final = 7 * 24 * 3600 * 1000
"""Other servers may go on trying for as long as they were cut off."""

MAX_WAITING: Final = 10_000
"""Messages that a device may have waiting, and up to `LOOK_AFTER` more."""

LOOK_AFTER: Final = 100
_KEY_REQUEST: Final = "m.room_key_request"
_DEVICES: Final = 50_000  # whose additions are counted; who falls out begins anew


class Sending(msgspec.Struct, frozen=True):
    """One request, checked."""

    sender: Txn
    messages: list[Message]
    outgoing: list[Outgoing] = []


class Received(msgspec.Struct, frozen=True):
    """What another server has sent for devices of this one, checked."""

    origin: str
    message_id: str
    sender: str
    event_type: str
    messages: list[Message]


SEND: Final = Call("to_device.send", Sending, type(None))
RECEIVE: Final = Call("to_device.receive", Received, type(None))


class ToDevice:
    """Sends messages to devices, from any process; the main process stores them.

    :param ignorers: those of some users who ignore a sender.
    """

    def __init__(
        self,
        store: ToDeviceStore,
        stream: StreamWriter,
        main: MainProcess,
        ignorers: Callable[[Collection[str], str], Awaitable[Collection[str]]],
        limits: RateLimits,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._store = store
        self._stream = stream
        self._main = main
        self._ignorers = ignorers
        self._limits = limits
        self._clock = clock
        self._server_name = server_name
        self._added: LruCache[Device, int] = LruCache("to_device_added", _DEVICES)
        main.expose(SEND, self._store_and_tell)
        main.expose(RECEIVE, self._receive)

    async def send(self, sender: Txn, event_type: str, body: dict[str, Any]) -> None:
        """Client-server API, `PUT /sendToDevice/{eventType}/{txnId}`. Raises 400, 413, 429."""
        for name, value in (("event type", event_type), ("transaction ID", sender.txn_id)):
            if len(value.encode("utf-8", "replace")) > MAX_NAME_BYTES or "\x00" in value:
                raise invalid_param(f"The {name} has at most {MAX_NAME_BYTES} bytes and no NUL character.")
        messages = checked_messages(sender.user_id, event_type, body)
        if event_type == _KEY_REQUEST:
            self._limits.check("rc_key_requests", sender.user_id)
        ours = [message for message, _ in messages if self._is_ours(message)]
        others = [(*message[:2], content) for message, content in messages if not self._is_ours(message)]
        await self._main(SEND, Sending(sender, ours, edus_of(sender.user_id, event_type, others)))

    def _is_ours(self, message: Message) -> bool:
        return domain_of(message.user_id) == self._server_name

    async def _store_and_tell(self, sending: Sending) -> None:
        now = int(self._clock.seconds() * 1000)
        messages = await self._wanted(sending.sender.user_id, sending.messages)
        added = await self._stream.append(
            lambda position: self._store.add(sending.sender, messages, sending.outgoing, position, now),
            lambda added: [*sorted({device.user_id for device in added.devices}), *added.servers],
        )
        await self._bound(added.devices)

    async def _receive(self, received: Received) -> None:
        now = int(self._clock.seconds() * 1000)
        if received.event_type == _KEY_REQUEST:
            try:
                self._limits.check("rc_key_requests", received.sender)
            except MatrixError:
                # To refuse it would have its server wait, with all that it has to tell besides, because of one user.
                logger.info("%s sends too many requests for room keys; one is dropped", received.sender)
                return
        messages = await self._wanted(received.sender, received.messages)
        origin, message_id = received.origin, received.message_id
        reached = await self._stream.append(
            lambda position: self._store.receive(origin, message_id, messages, position, now),
            lambda devices: sorted({device.user_id for device in devices}),
        )
        await self._bound(reached)

    async def _wanted(self, sender: str, messages: list[Message]) -> list[Message]:
        """Without those for users who ignore the sender."""
        ignorers = await self._ignorers({message.user_id for message in messages} - {sender}, sender)
        return [message for message in messages if message.user_id not in ignorers]

    async def _bound(self, reached: list[Device]) -> None:
        due = []
        for device in reached:
            added = self._added.get(device, 0) + 1
            if added == LOOK_AFTER:
                due.append(device)
                added = 0
            self._added.set(device, added)
        if due and (dropped := await self._store.trim(due, MAX_WAITING)):
            table.TO_DEVICE_DROPPED.inc(dropped)
            logger.warning("%d messages were dropped that devices have not come for, of %d devices", dropped, len(due))

    async def forget_old_txns(self) -> None:
        """Drops the transaction ids of long ago; the main process does it once in a while."""
        now = int(self._clock.seconds() * 1000)
        await self._store.forget_txns(now - KEEP_TXNS_MS)
        await self._store.forget_received(now - KEEP_RECEIVED_MS)


def checked_messages(sender: str, event_type: str, body: dict[str, Any]) -> list[tuple[Message, dict[str, Any]]]:
    """The messages of a request, each with its content.

    Raises 400 M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM; 413 M_TOO_LARGE.
    """
    users = body.get("messages")
    if not isinstance(users, dict):
        raise missing_param("messages") if users is None else bad_json("The key 'messages' must be an object.")
    messages = []
    for user_id, devices in users.items():
        parse_user_id(user_id)
        if not isinstance(devices, dict):
            raise bad_json("The values in 'messages' must be objects of device IDs with a content each.")
        messages += [message_of(sender, event_type, user_id, device, content) for device, content in devices.items()]
    if len(messages) > MAX_MESSAGES:
        raise too_large(f"One request may send {MAX_MESSAGES} messages at most.")
    return messages


def message_of(
    sender: str, event_type: str, user_id: str, device_id: str, content: object
) -> tuple[Message, dict[str, Any]]:
    """A message, and its content. Raises 400 M_BAD_JSON, M_INVALID_PARAM; 413 M_TOO_LARGE."""
    if not isinstance(content, dict):
        raise bad_json("The content of a message to a device must be an object.")
    if "\x00" in device_id:
        raise invalid_param("A device ID cannot contain a NUL character.")
    if is_too_deep(content):
        raise bad_json(f"The content of a message to a device may have {MAX_DEPTH} levels at most.")
    text = orjson.dumps({"type": event_type, "sender": sender, "content": content})
    if len(text) > MAX_CONTENT_BYTES:
        raise too_large(f"A message to a device may have {MAX_CONTENT_BYTES} bytes at most.")
    return Message(user_id, device_id, text.decode()), content
