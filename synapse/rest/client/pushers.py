"""Endpoints for pushers. Client-server API, "Push notifications", "Pushers"."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.errors import missing_param
from synapse.handlers.pushers import Pushers, Wanted
from synapse.http.body import convert
from synapse.http.server import Request, serves


class _Set(msgspec.Struct):
    pushkey: str
    app_id: str
    kind: str | None
    app_display_name: str | None = None
    device_display_name: str | None = None
    profile_tag: str | None = None
    lang: str | None = None
    data: dict[str, Any] | None = None
    append: bool = False


class PusherEndpoints:
    """`/pushers`."""

    def __init__(self, pushers: Pushers) -> None:
        self._pushers = pushers

    @serves("pushers")
    async def all(self, request: Request) -> dict[str, Any]:
        return {"pushers": await self._pushers.of_user(request.user.user_id)}

    @serves("pusher_set")
    async def set(self, request: Request) -> dict[str, Any]:
        body = convert(request.json_object(), _Set)
        if body.kind is None:
            await self._pushers.delete(request.user.user_id, body.app_id, body.pushkey)
            return {}
        if body.app_display_name is None:
            raise missing_param("app_display_name")
        if body.device_display_name is None:
            raise missing_param("device_display_name")
        if body.lang is None:
            raise missing_param("lang")
        if body.data is None:
            raise missing_param("data")
        wanted = Wanted(
            body.kind,
            body.app_id,
            body.pushkey,
            body.app_display_name,
            body.device_display_name,
            body.profile_tag,
            body.lang,
            body.data,
        )
        await self._pushers.set(request.user, wanted, append=body.append)
        return {}
