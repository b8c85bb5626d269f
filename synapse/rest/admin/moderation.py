"""Endpoints by which administrators lock and suspend accounts, and see from where they are used; the last is open to
users about themselves.

Client-server API, "Server Administration".
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.moderation import Moderation
from synapse.handlers.whois import Whois
from synapse.http.server import Request, serves


class Suspended(msgspec.Struct, frozen=True):
    """The body of `PUT /admin/suspend/{userId}`, and the answer."""

    suspended: bool


class Locked(msgspec.Struct, frozen=True):
    """The body of `PUT /admin/lock/{userId}`, and the answer."""

    locked: bool


class Suspend(msgspec.Struct, frozen=True):
    """The body of `PUT /_synapse/admin/v1/suspend/{user_id}`."""

    suspend: bool


class ModerationEndpoints:
    """`/admin/suspend` and `/admin/lock`."""

    def __init__(self, moderation: Moderation) -> None:
        self._moderation = moderation

    @serves("suspend_get")
    async def suspended(self, request: Request, user_id: str) -> Suspended:
        return Suspended(await self._moderation.marked(request.user, user_id, "suspended"))

    @serves("suspend_set")
    async def suspend(self, request: Request, user_id: str) -> Suspended:
        body = request.body_as(Suspended)
        await self._moderation.mark(request.user, user_id, "suspended", body.suspended)
        return body

    @serves("admin_suspend")
    async def admin_suspend(self, request: Request, user_id: str) -> Suspended:
        body = request.body_as(Suspend)
        await self._moderation.mark(request.user, user_id, "suspended", body.suspend)
        return Suspended(body.suspend)

    @serves("lock_get")
    async def locked(self, request: Request, user_id: str) -> Locked:
        return Locked(await self._moderation.marked(request.user, user_id, "locked"))

    @serves("lock_set")
    async def lock(self, request: Request, user_id: str) -> Locked:
        body = request.body_as(Locked)
        await self._moderation.mark(request.user, user_id, "locked", body.locked)
        return body


class WhoisEndpoints:
    """`/admin/whois/{userId}`, in both APIs."""

    def __init__(self, whois: Whois) -> None:
        self._whois = whois

    @serves("whois", "admin_whois")
    async def whois(self, request: Request, user_id: str) -> dict[str, Any]:
        return await self._whois.ask(request.user, user_id)
