"""Endpoints by which administrators look at the devices of a user, name them and log them out."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.devices import Devices
from synapse.handlers.user_admin import UserAdmin
from synapse.http.server import Answer, Request, serves


class NewDevice(msgspec.Struct, frozen=True):
    """The body of `POST …/devices`."""

    device_id: str


class DeviceName(msgspec.Struct, frozen=True):
    """The body of `PUT …/devices/{device_id}`."""

    display_name: str | None = None


class DevicesToDelete(msgspec.Struct, frozen=True):
    """The body of `POST …/delete_devices`."""

    devices: list[str]


class AdminUserDevices:
    """`/_synapse/admin/v2/users/{user_id}/devices[/{device_id}]` and `…/delete_devices`."""

    def __init__(self, users: UserAdmin, devices: Devices) -> None:
        self._users = users
        self._devices = devices

    @serves("admin_user_devices")
    async def list(self, request: Request, user_id: str) -> dict[str, Any]:
        await self._users.existing(user_id)
        devices = await self._devices.described(user_id)
        return {"devices": devices, "total": len(devices)}

    @serves("admin_user_device_new")
    async def create(self, request: Request, user_id: str) -> Answer:
        await self._users.existing(user_id)
        await self._devices.create(user_id, request.body_as(NewDevice).device_id, None)
        return Answer(201, b"{}")

    @serves("admin_user_device_get")
    async def get(self, request: Request, user_id: str, device_id: str) -> dict[str, Any]:
        await self._users.existing(user_id)
        return await self._devices.described_one(user_id, device_id)

    @serves("admin_user_device_set")
    async def rename(self, request: Request, user_id: str, device_id: str) -> dict[str, Any]:
        await self._users.existing(user_id)
        name = request.body_as(DeviceName, allow_empty=True).display_name
        await self._devices.rename(user_id, device_id, name)
        return {}

    @serves("admin_user_device_delete")
    async def delete(self, request: Request, user_id: str, device_id: str) -> dict[str, Any]:
        await self._users.existing(user_id)
        await self._devices.delete(user_id, [device_id])
        return {}

    @serves("admin_user_delete_devices")
    async def delete_many(self, request: Request, user_id: str) -> dict[str, Any]:
        await self._users.existing(user_id)
        await self._devices.delete(user_id, request.body_as(DevicesToDelete).devices)
        return {}
