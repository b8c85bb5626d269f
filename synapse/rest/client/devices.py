"""Endpoints for a user's devices. Taking one away asks for proof, except of application services.

Client-server API, "Device management".
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.devices import Devices
from synapse.handlers.ui_auth import Operation, UiAuth, continues
from synapse.http.body import convert
from synapse.http.server import Answer, Request, serves


class DeviceUpdate(msgspec.Struct, frozen=True):
    """The body of `PUT /devices/{deviceId}`."""

    display_name: str | None = None


class DevicesToDelete(msgspec.Struct, frozen=True):
    """The body of `POST /delete_devices`, without `auth`."""

    devices: list[str]


class DeviceEndpoints:
    """`/devices` and `/delete_devices`."""

    def __init__(self, devices: Devices, ui_auth: UiAuth) -> None:
        self._devices = devices
        self._ui_auth = ui_auth

    @serves("devices")
    async def list(self, request: Request) -> dict[str, Any]:
        return {"devices": await self._devices.of_user(request.user.user_id)}

    @serves("device_get")
    async def get(self, request: Request, device_id: str) -> dict[str, Any]:
        return await self._devices.get(request.user.user_id, device_id)

    @serves("device_update")
    async def update(self, request: Request, device_id: str) -> dict[str, Any] | Answer:
        body = request.body_as(DeviceUpdate, allow_empty=True)
        user, name = request.user, body.display_name
        if user.app_service is not None and await self._devices.create(user.user_id, device_id, name):
            return Answer(201, b"{}")
        await self._devices.rename(user.user_id, device_id, name)
        return {}

    @serves("device_delete")
    async def delete(self, request: Request, device_id: str) -> dict[str, Any]:
        # The device is part of the operation: who confirmed the deletion of one has not confirmed that of another.
        body = {**request.json_object(allow_empty=True), "devices": [device_id]}
        await self._delete(request, body, f"device_delete {device_id}", "delete a device")
        return {}

    @serves("delete_devices")
    async def delete_many(self, request: Request) -> dict[str, Any]:
        body = request.json_object()
        if not continues(body):  # what is wrong is said before the client is sent through the stages
            convert(body, DevicesToDelete)
        await self._delete(request, body, "delete_devices", "delete devices")
        return {}

    async def _delete(self, request: Request, body: dict[str, Any], endpoint: str, description: str) -> None:
        user_id = request.user.user_id
        if request.user.app_service is None:
            operation = Operation(request.method, endpoint, description, user_id, reusable=True)
            flows = await self._ui_auth.own_flows(user_id)
            body = (await self._ui_auth.check(operation, body, flows, request)).body
        await self._devices.delete(user_id, convert(body, DevicesToDelete).devices)
