"""Endpoints for end-to-end encryption: keys, and messages between devices.

Client-server API, "End-to-end encryption", "Send-to-Device messaging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import invalid_param, unknown
from synapse.handlers.keys import Keys
from synapse.handlers.to_device import ToDevice
from synapse.handlers.uploaded_keys import checked_upload
from synapse.http.server import Answer, Request, serves
from synapse.storage.to_device import Txn
from synapse.sync.tokens import StreamToken

if TYPE_CHECKING:
    from synapse.handlers.frontend_proxy import FrontendProxy
    from synapse.handlers.key_changes import KeyChanges
    from synapse.handlers.key_query import KeyQuery


class KeyEndpoints:
    """`/keys`.

    :param proxy: where there is one, uploads of new identity keys are passed on to the main process.
    """

    def __init__(self, keys: Keys, query: KeyQuery, changes: KeyChanges, proxy: FrontendProxy | None = None) -> None:
        self._keys = keys
        self._query = query
        self._changes = changes
        self._proxy = proxy

    @serves("keys_upload")
    async def upload(self, request: Request, device_id: str) -> dict[str, Any] | Answer:
        own = _device_of(request)
        if device_id not in ("", own):
            raise invalid_param("Keys can be uploaded for the device that is logged in only.")
        user_id = request.user.user_id
        upload = checked_upload(user_id, own, request.json_object())
        if self._proxy is not None and await self._keys.changes_identity(user_id, own, upload):
            return await self._proxy.forward(request)
        return await self._keys.upload(user_id, own, upload)

    @serves("keys_query")
    async def query(self, request: Request) -> dict[str, Any]:
        return await self._query.query(request.user.user_id, request.json_object())

    @serves("keys_changes")
    async def changes(self, request: Request) -> dict[str, list[str]]:
        since = StreamToken.parse(request.required_arg("from"), "from")
        until = StreamToken.parse(request.required_arg("to"), "to")
        return await self._changes.between(request.user.user_id, since, until)

    @serves("keys_claim")
    async def claim(self, request: Request) -> dict[str, Any]:
        return await self._keys.claim(request.json_object())


class ToDeviceEndpoints:
    """`/sendToDevice`."""

    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    @serves("send_to_device")
    async def send(self, request: Request, event_type: str, txn_id: str) -> dict[str, Any]:
        user = request.user
        # A transaction id is the device's own; one of a session without a device, the user's.
        sender = Txn(user.user_id, user.device_id or "", txn_id)
        await self._to_device.send(sender, event_type, request.json_object())
        return {}


def _device_of(request: Request) -> str:
    if request.user.device_id is None:
        raise unknown("This session has no device, and so no keys.")
    return request.user.device_id
