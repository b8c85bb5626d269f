"""Endpoints for key backups. Client-server API, "Server-side key backups"."""

from __future__ import annotations

from typing import Any

from synapse.handlers.key_backup import ChangedBackup, KeyBackups, NewBackup
from synapse.http.server import RawJson, Request, serves
from synapse.storage.key_backups import Place


class KeyBackupEndpoints:
    """`/room_keys/version`: the backups."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    @serves("key_backup_create")
    async def create(self, request: Request) -> dict[str, Any]:
        return await self._backups.create(request.user.user_id, request.body_as(NewBackup))

    @serves("key_backup_latest")
    async def latest(self, request: Request) -> dict[str, Any]:
        return await self._backups.info(request.user.user_id, None)

    @serves("key_backup_get")
    async def get(self, request: Request, backup_version: str) -> dict[str, Any]:
        return await self._backups.info(request.user.user_id, backup_version)

    @serves("key_backup_update")
    async def update(self, request: Request, backup_version: str) -> dict[str, Any]:
        await self._backups.update(request.user.user_id, backup_version, request.body_as(ChangedBackup))
        return {}

    @serves("key_backup_delete")
    async def delete(self, request: Request, backup_version: str) -> dict[str, Any]:
        await self._backups.delete(request.user.user_id, backup_version)
        return {}


class RoomKeyEndpoints:
    """`/room_keys/keys`: what is in them. The version is in the query."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    @serves("room_keys_put")
    async def put(self, request: Request) -> dict[str, Any]:
        return await self._put(request, Place())

    @serves("room_keys_put_room")
    async def put_room(self, request: Request, room_id: str) -> dict[str, Any]:
        return await self._put(request, Place(room_id))

    @serves("room_keys_put_session")
    async def put_session(self, request: Request, room_id: str, session_id: str) -> dict[str, Any]:
        return await self._put(request, Place(room_id, session_id))

    @serves("room_keys_get")
    async def get(self, request: Request) -> RawJson:
        return await self._get(request, Place())

    @serves("room_keys_get_room")
    async def get_room(self, request: Request, room_id: str) -> RawJson:
        return await self._get(request, Place(room_id))

    @serves("room_keys_get_session")
    async def get_session(self, request: Request, room_id: str, session_id: str) -> RawJson:
        return await self._get(request, Place(room_id, session_id))

    @serves("room_keys_delete")
    async def delete(self, request: Request) -> dict[str, Any]:
        return await self._delete(request, Place())

    @serves("room_keys_delete_room")
    async def delete_room(self, request: Request, room_id: str) -> dict[str, Any]:
        return await self._delete(request, Place(room_id))

    @serves("room_keys_delete_session")
    async def delete_session(self, request: Request, room_id: str, session_id: str) -> dict[str, Any]:
        return await self._delete(request, Place(room_id, session_id))

    async def _put(self, request: Request, place: Place) -> dict[str, Any]:
        version = request.required_arg("version")
        return await self._backups.put(request.user.user_id, version, place, request.raw.body)

    async def _get(self, request: Request, place: Place) -> RawJson:
        version = request.required_arg("version")
        return RawJson(await self._backups.keys(request.user.user_id, version, place))

    async def _delete(self, request: Request, place: Place) -> dict[str, Any]:
        return await self._backups.remove(request.user.user_id, request.required_arg("version"), place)
