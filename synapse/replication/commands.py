"""What the main process does with its workers' commands: hands each to the service that it is for.

Services say what they take when they are built (`commands.on_user_sync = presence.user_sync`); what nobody takes has
no effect, as when presence is switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.replication.invalidation import MainInvalidator


class MainCommands:
    """The `WorkerCommands` of a main process."""

    def __init__(self, invalidator: MainInvalidator) -> None:
        self._invalidator = invalidator
        self.on_user_sync: Callable[[str, str, str | None, str, bool], None] | None = None
        """(worker, user_id, device_id, presence, whether it syncs)"""
        self.on_clear_user_syncs: Callable[[str], None] | None = None
        """(worker)"""
        self.on_federation_ack: Callable[[str, int], None] | None = None
        """(worker, position of the events stream)"""
        self.on_remove_pusher: Callable[[str, str, str], None] | None = None
        """(app_id, pushkey, user_id)"""
        self.on_user_ip: Callable[[str, str, str, str, int], None] | None = None
        """(user_id, device_id, ip, user_agent, milliseconds)"""

    def user_sync(self, instance: str, user_id: str, device_id: str | None, presence: str, syncing: bool) -> None:
        if self.on_user_sync is not None:
            self.on_user_sync(instance, user_id, device_id, presence, syncing)

    def clear_user_syncs(self, instance: str) -> None:
        if self.on_clear_user_syncs is not None:
            self.on_clear_user_syncs(instance)

    def federation_ack(self, instance: str, token: int) -> None:
        if self.on_federation_ack is not None:
            self.on_federation_ack(instance, token)

    def remove_pusher(self, app_id: str, pushkey: str, user_id: str) -> None:
        if self.on_remove_pusher is not None:
            self.on_remove_pusher(app_id, pushkey, user_id)

    def invalidate_cache(self, cache: str, key: str | tuple[str, ...] | None) -> None:
        self._invalidator.tell(cache, key)

    def user_ip(self, user_id: str, device_id: str, ip: str, user_agent: str, at: int) -> None:
        if self.on_user_ip is not None:
            self.on_user_ip(user_id, device_id, ip, user_agent, at)
