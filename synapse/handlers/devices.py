"""Users' devices as their owner sees them: listing, naming, and logging them out.

Deleting a device revokes its tokens in every process at once, and everybody who may have its keys is told. That the
owner is asked for the password first is the endpoint's doing.

Client-server API, "Device management".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import not_found
from synapse.handlers.new_sessions import (
    MAX_DEVICE_ID,
    DeviceRequest,
    checked_device,
    checked_device_name,
    device_id_taken,
)
from synapse.storage.new_devices import DeviceIdTaken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.handlers.auth import Authenticator
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.storage.devices import Deleted, Device, DeviceStore
    from synapse.util.clock import Clock


class Devices:
    """The devices of a user; what changes them works in the main process."""

    def __init__(self, store: DeviceStore, authenticator: Authenticator, changes: DeviceChanges, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._authenticator = authenticator
        self._changes = changes

    async def of_user(self, user_id: str) -> list[dict[str, Any]]:
        return [_shown(device) for device in await self._store.of_user(user_id)]

    async def get(self, user_id: str, device_id: str) -> dict[str, Any]:
        """Raises 404 M_NOT_FOUND."""
        device = await self._store.get(user_id, device_id) if _can_exist(device_id) else None
        if device is None:
            raise no_such_device()
        return _shown(device)

    async def described(self, user_id: str) -> list[dict[str, Any]]:
        """The user's devices, as administrators see them."""
        return [_described(device) for device in await self._store.of_user(user_id)]

    async def described_one(self, user_id: str, device_id: str) -> dict[str, Any]:
        """Raises 404 M_NOT_FOUND."""
        device = await self._store.get(user_id, device_id) if _can_exist(device_id) else None
        if device is None:
            raise not_found("The user has no device of that ID.")
        return _described(device)

    async def rename(self, user_id: str, device_id: str, name: str | None) -> None:
        """None leaves the name as it is. Raises 404 M_NOT_FOUND, 400 M_INVALID_PARAM."""
        device = await self.get(user_id, device_id)
        name = checked_device_name(name)
        if name is None or name == device.get("display_name"):
            return
        new_name = name
        if not await self._changes.write(
            user_id, lambda position: self._store.rename(user_id, device_id, new_name, position), bool
        ):
            raise no_such_device()

    async def create(self, user_id: str, device_id: str, name: str | None) -> bool:
        """Makes a device that nobody is logged in as; False, and nothing done, if it exists.

        Raises 400 M_INVALID_PARAM, 403 M_FORBIDDEN.
        """
        device_id, name = checked_device(DeviceRequest(device_id=device_id, initial_device_display_name=name))
        now = int(self._clock.seconds() * 1000)
        try:
            return await self._changes.write(
                user_id, lambda position: self._store.create(user_id, device_id, name, now, position), bool
            )
        except DeviceIdTaken:
            raise device_id_taken() from None

    async def delete(self, user_id: str, device_ids: list[str] | None) -> None:
        """Deletes devices and all their sessions; None: all of the user's. Those that do not exist are passed over."""
        wanted = None if device_ids is None else [device_id for device_id in device_ids if _can_exist(device_id)]
        await self.delete_by(user_id, lambda position: self._store.delete(user_id, wanted, position))

    async def delete_by(self, user_id: str, delete: Callable[[int], Awaitable[Deleted]]) -> None:
        """Tells of what the transaction `delete(position)` takes away of the user's devices, and revokes the tokens."""
        gone = await self._changes.write(
            user_id,
            lambda position: self._authenticator.revoking(delete(position)),
            lambda gone: bool(gone.device_ids),
        )
        await self._changes.counts_changed([(user_id, device_id) for device_id in gone.device_ids])


def no_such_device() -> Exception:
    return not_found("You have no device of that ID.")


def _can_exist(device_id: str) -> bool:
    return "\x00" not in device_id and len(device_id.encode("utf-8", "replace")) <= MAX_DEVICE_ID


def _shown(device: Device) -> dict[str, Any]:
    shown = {
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ts": device.last_seen_ts,
        "last_seen_ip": device.last_seen_ip,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _described(device: Device) -> dict[str, Any]:
    return {
        "device_id": device.device_id,
        "user_id": device.user_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_user_agent": device.last_seen_user_agent,
        "last_seen_ts": device.last_seen_ts,
    }
