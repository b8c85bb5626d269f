"""Endpoints for what clients keep on the server: account data, tags of rooms, filters.

Client-server API, "Client Config", "Room Tagging", "Filtering".
"""

from __future__ import annotations

from typing import Any

from synapse.api.identifiers import parse_room_id
from synapse.handlers.account_data import AccountData
from synapse.handlers.filters import Filters
from synapse.handlers.profile import check_owner
from synapse.http.server import RawJson, Request, serves


class AccountDataEndpoints:
    """`/user/{userId}/account_data`, the same of a room, and a room's tags."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    @serves("account_data_get")
    async def get(self, request: Request, user_id: str, data_type: str) -> RawJson:
        check_owner(request.user.user_id, user_id)
        return RawJson(await self._account_data.get(user_id, "", data_type))

    @serves("account_data_set")
    async def set(self, request: Request, user_id: str, data_type: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.set(user_id, "", data_type, request.json_object())
        return {}

    @serves("room_account_data_get")
    async def get_of_room(self, request: Request, user_id: str, room_id: str, data_type: str) -> RawJson:
        check_owner(request.user.user_id, user_id)
        return RawJson(await self._account_data.get(user_id, parse_room_id(room_id), data_type))

    @serves("room_account_data_set")
    async def set_of_room(self, request: Request, user_id: str, room_id: str, data_type: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.set(user_id, parse_room_id(room_id), data_type, request.json_object())
        return {}

    @serves("account_data_delete")
    async def delete(self, request: Request, user_id: str, data_type: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.delete(user_id, "", data_type)
        return {}

    @serves("room_account_data_delete")
    async def delete_of_room(self, request: Request, user_id: str, room_id: str, data_type: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.delete(user_id, parse_room_id(room_id), data_type)
        return {}

    @serves("room_tags")
    async def tags(self, request: Request, user_id: str, room_id: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        return {"tags": await self._account_data.tags(user_id, parse_room_id(room_id))}

    @serves("room_tag_set")
    async def set_tag(self, request: Request, user_id: str, room_id: str, tag: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.set_tag(user_id, parse_room_id(room_id), tag, request.json_object(allow_empty=True))
        return {}

    @serves("room_tag_delete")
    async def delete_tag(self, request: Request, user_id: str, room_id: str, tag: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._account_data.delete_tag(user_id, parse_room_id(room_id), tag)
        return {}


class FilterEndpoints:
    """`/user/{userId}/filter`."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    @serves("filter_create")
    async def create(self, request: Request, user_id: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        return {"filter_id": await self._filters.add(user_id, request.json_object())}

    @serves("filter_get")
    async def get(self, request: Request, user_id: str, filter_id: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        return await self._filters.get(user_id, filter_id)
