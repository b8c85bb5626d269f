"""Endpoints by which administrators list, make and change accounts, and log in as their users."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.errors import missing_param
from synapse.handlers.user_admin import UserAdmin
from synapse.handlers.user_admin_changes import AccountChange, AccountChanges
from synapse.http.answers import as_answer
from synapse.http.server import Answer, Request, serves
from synapse.storage.user_admin import ORDERS, Selection

MAX_LIMIT: Final = 1000
MAX_TIME: Final = 1 << 53


class Rank(msgspec.Struct, frozen=True):
    """The body of `PUT …/admin`."""

    admin: bool


class Validity(msgspec.Struct, frozen=True):
    """The body of `POST …/login`: until when the token is good, in milliseconds; for good where it does not say."""

    valid_until_ms: int | None = None


class NewPassword(msgspec.Struct, frozen=True):
    """The body of `POST …/reset_password/…`."""

    new_password: str
    logout_devices: bool = True


class AdminUsers:
    """`/_synapse/admin/v2/users`, and of v1 what is about accounts."""

    def __init__(self, users: UserAdmin, changes: AccountChanges) -> None:
        self._users = users
        self._changes = changes

    @serves("admin_users", "admin_users_v3")
    async def page(self, request: Request) -> dict[str, Any]:
        # Guests, deactivated and locked accounts are shown beside the others, administrators alone or not at all.
        shown = {"is_guest": request.bool_arg("guests", True), "locked": request.bool_arg("locked")}
        alone = {"admins": "admin"}
        if request.name == "admin_users_v3":
            alone["deactivated"] = "deactivated"
        else:
            shown["deactivated"] = request.bool_arg("deactivated")
        wanted = {name: False for name, is_shown in shown.items() if not is_shown}
        wanted |= {flag: request.bool_arg(name) for name, flag in alone.items() if request.arg(name) is not None}
        return await self._users.page(
            Selection(
                contains=request.arg("user_id"),
                name_contains=None if request.arg("user_id") is not None else request.arg("name"),
                flags=wanted,
                not_types=tuple(request.args("not_user_type")),
                order=request.choice_arg("order_by", tuple(ORDERS), "name"),
                backwards=request.choice_arg("dir", ("b", "f"), "f") == "b",
                offset=request.int_arg("from", 0),
                limit=request.int_arg("limit", 100, maximum=MAX_LIMIT),
            )
        )

    @serves("admin_user_get")
    async def get(self, request: Request, user_id: str) -> dict[str, Any]:
        return await self._users.get(user_id)

    @serves("admin_user_put")
    async def put(self, request: Request, user_id: str) -> Answer:
        is_new = await self._changes.put(request.user, user_id, request.body_as(AccountChange))
        answer = as_answer(await self._users.get(user_id))
        answer.code = 201 if is_new else 200
        return answer

    @serves("admin_user_rank_get")
    async def rank(self, request: Request, user_id: str) -> dict[str, Any]:
        return {"admin": (await self._users.existing(user_id)).admin}

    @serves("admin_user_rank_set")
    async def set_rank(self, request: Request, user_id: str) -> dict[str, Any]:
        await self._users.set_admin(request.user, user_id, request.body_as(Rank).admin)
        return {}

    @serves("admin_user_login")
    async def log_in(self, request: Request, user_id: str) -> dict[str, Any]:
        until = request.body_as(Validity, allow_empty=True).valid_until_ms
        session = await self._users.log_in_as(request.user, user_id, None if until is None else min(until, MAX_TIME))
        return {"access_token": session.access_token}

    @serves("admin_reset_password")
    async def reset_password(self, request: Request, user_id: str) -> dict[str, Any]:
        body = request.body_as(NewPassword)
        if not body.new_password:
            raise missing_param("new_password")
        await self._users.reset_password(user_id, body.new_password, body.logout_devices)
        return {}
