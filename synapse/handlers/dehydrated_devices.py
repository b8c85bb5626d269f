"""Dehydrated devices, as clients leave, find and use them: MSC3814, under its unstable name.

Whoever has no device logged in would miss the room keys that others send meanwhile. So a client leaves a device with
the server, encrypted by a key in secret storage; others send to it as to any device, and the next login takes the
device and what was sent to it. Messages stay until the device is replaced or deleted, as a login may be given up
halfway.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.constants import MAX_ID_BYTES
from synapse.api.errors import forbidden, invalid_param, missing_param, not_found, too_large
from synapse.api.identifiers import fits
from synapse.handlers.keys import too_many_keys
from synapse.handlers.new_sessions import checked_device_name, device_id_taken
from synapse.handlers.uploaded_keys import checked_upload
from synapse.http.body import convert
from synapse.storage.dehydrated_devices import InUse, NewDehydrated
from synapse.storage.new_devices import DeviceIdTaken
from synapse.storage.one_time_keys import TooManyKeys
from synapse.util.concurrency import Linearizer
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.devices import Devices
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.dehydrated_devices import Dehydrated, DehydratedDeviceStore
    from synapse.storage.to_device import ToDeviceStore
    from synapse.util.clock import Clock

MAX_DATA_BYTES: Final = 128 * 1024
PAGE: Final = 100
_FOREVER: Final = 2**62
_POSITION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


class DehydratedBody(msgspec.Struct, frozen=True):
    """The body of `PUT /dehydrated_device`, keys apart."""

    device_id: str
    device_data: dict[str, Any]
    initial_device_display_name: str | None = None


class DehydratedDevices:
    """The dehydrated devices of users; in the main process."""

    def __init__(
        self,
        store: DehydratedDeviceStore,
        messages: ToDeviceStore,
        devices: Devices,
        changes: DeviceChanges,
        authenticator: Authenticator,
        stream: StreamWriter,
        clock: Clock,
    ) -> None:
        self._store = store
        self._messages = messages
        self._devices = devices
        self._changes = changes
        self._authenticator = authenticator
        self._stream = stream
        self._clock = clock
        self._queue: Linearizer[str] = Linearizer()

    async def put(self, user_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Stores a device in place of the one that the user had. Raises 400; 403 for the id of another device."""
        new = _checked(user_id, body)
        now = int(self._clock.seconds() * 1000)
        async with self._queue.queue(user_id):
            try:
                await self._stream.append(
                    lambda position: self._authenticator.revoking(self._store.replace(new, now, position)),
                    lambda _: [user_id],
                )
            except InUse:
                raise forbidden("You have a device of that ID which is no dehydrated one.") from None
            except DeviceIdTaken:
                raise device_id_taken() from None
            except TooManyKeys:
                raise too_many_keys() from None
            await self._changes.counts_changed([(user_id, new.device_id)])
        return {"device_id": new.device_id}

    async def get(self, user_id: str) -> dict[str, Any]:
        """Raises 404 M_NOT_FOUND."""
        device = await self._existing(user_id)
        return {"device_id": device.device_id, "device_data": msgspec.Raw(device.data.encode())}

    async def delete(self, user_id: str) -> dict[str, Any]:
        """Deletes the device, its keys and what was sent to it. Raises 404 M_NOT_FOUND."""
        async with self._queue.queue(user_id):
            device = await self._existing(user_id)
            await self._devices.delete(user_id, [device.device_id])
        return {"device_id": device.device_id}

    async def events(self, user_id: str, device_id: str, token: str | None, limit: int) -> dict[str, Any]:
        """A page of what was sent to the device, oldest first, and the token of the next one, until there is nothing.

        Raises 400 M_INVALID_PARAM, 403 for another device than the dehydrated one, 404 M_NOT_FOUND.
        """
        if token is not None and not _POSITION.fullmatch(token):
            raise invalid_param("This is not a token of this list.")
        if (await self._existing(user_id)).device_id != device_id:
            raise forbidden("This device is not your dehydrated one.")
        after = 0 if token is None else int(token)
        found = await self._messages.waiting(user_id, device_id, after, _FOREVER, max(1, min(limit, PAGE)))
        answer: dict[str, Any] = {"events": [msgspec.Raw(message.encode()) for _, message in found]}
        if found:
            answer["next_batch"] = str(found[-1][0])
        return answer

    async def _existing(self, user_id: str) -> Dehydrated:
        device = await self._store.get(user_id)
        if device is None:
            raise not_found("You have no dehydrated device.")
        return device


def _checked(user_id: str, body: dict[str, Any]) -> NewDehydrated:
    wanted = convert(body, DehydratedBody)
    device_id = wanted.device_id
    if not device_id or not fits(device_id) or "\x00" in device_id:
        raise invalid_param(f"A device ID has 1 to {MAX_ID_BYTES} bytes, and no NUL character.")
    if not isinstance(wanted.device_data.get("algorithm"), str):
        raise missing_param("device_data.algorithm")
    if (problem := problem_of(wanted.device_data)) is not None:
        raise invalid_param(f"'device_data' cannot be stored: {problem}.")
    data = orjson.dumps(wanted.device_data)
    if len(data) > MAX_DATA_BYTES:
        raise too_large(f"'device_data' has at most {MAX_DATA_BYTES} bytes.")
    upload = checked_upload(user_id, device_id, body)
    if upload.device_keys is None:
        raise missing_param("device_keys")
    name = checked_device_name(wanted.initial_device_display_name)
    return NewDehydrated(user_id, device_id, data.decode(), name, upload.device_keys, upload.one_time, upload.fallback)
