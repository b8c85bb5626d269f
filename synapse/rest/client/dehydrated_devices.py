"""Endpoints for dehydrated devices: MSC3814, under the unstable name that clients use."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.dehydrated_devices import PAGE, DehydratedDevices
from synapse.http.server import Request, serves


class NextPage(msgspec.Struct, frozen=True):
    """The body of `POST /dehydrated_device/{deviceId}/events`."""

    next_batch: str | None = None


class DehydratedDeviceEndpoints:
    """`/dehydrated_device`."""

    def __init__(self, devices: DehydratedDevices) -> None:
        self._devices = devices

    @serves("dehydrated_device_put")
    async def put(self, request: Request) -> dict[str, Any]:
        return await self._devices.put(request.user.user_id, request.json_object())

    @serves("dehydrated_device_get")
    async def get(self, request: Request) -> dict[str, Any]:
        return await self._devices.get(request.user.user_id)

    @serves("dehydrated_device_delete")
    async def delete(self, request: Request) -> dict[str, Any]:
        return await self._devices.delete(request.user.user_id)

    @serves("dehydrated_device_events")
    async def events(self, request: Request, device_id: str) -> dict[str, Any]:
        """By POST clients give the token in the body, by GET in the query; both are in use."""
        if request.method == "POST":
            token = request.body_as(NextPage, allow_empty=True).next_batch
        else:
            token = request.arg("from", request.arg("next_batch", "")) or None
        limit = request.int_arg("limit", PAGE, minimum=1)
        return await self._devices.events(request.user.user_id, device_id, token, limit)
