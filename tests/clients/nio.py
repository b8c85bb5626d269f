"""matrix-nio, wrapped so that a test can wait for what its sync brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nio import (
    AsyncClient,
    AsyncClientConfig,
    RegisterResponse,
    RoomMessage,
    SyncResponse,
    ToDeviceError,
)
from nio.crypto import Sas
from nio.store import SqliteMemoryStore

_PATIENCE = 30  # seconds to wait for what a sync should bring


class NioClient:
    """A client whose sync loop runs in the background and keeps every answer."""

    def __init__(self, base_url: str, name: str, *, encrypts: bool = False) -> None:
        config = AsyncClientConfig(
            max_limit_exceeded=0, max_timeouts=3, encryption_enabled=encrypts, store=SqliteMemoryStore
        )
        self.nio = AsyncClient(base_url, name, config=config)
        self._answers: list[SyncResponse] = []
        self._arrived = asyncio.Condition()
        self._loop: asyncio.Task[None] | None = None

    async def register(self, password: str) -> None:
        """Create the account and log in."""
        answer = await self.nio.register(self.nio.user, password)
        assert isinstance(answer, RegisterResponse), answer
        await self._look_after_keys()

    def start(self) -> None:
        """Begin to sync by long polls."""
        self._loop = asyncio.create_task(self._sync())

    async def _sync(self) -> None:
        while True:
            await self._look_after_keys()
            answer = await self.nio.sync(timeout=20_000)
            async with self._arrived:
                if isinstance(answer, SyncResponse):
                    self._answers.append(answer)
                self._arrived.notify_all()

    async def _look_after_keys(self) -> None:
        """What nio's own loop does for encryption between two syncs."""
        if self.nio.olm is None:
            return
        if self.nio.should_upload_keys:
            await self.nio.keys_upload()
        if self.nio.should_query_keys:
            await self.nio.keys_query()
        if self.nio.should_claim_keys:
            await self.nio.keys_claim(self.nio.get_users_for_key_claiming())
        for answer in await self.nio.send_to_device_messages():
            assert not isinstance(answer, ToDeviceError), answer

    async def until(self, wanted: Callable[[], Any], what: str) -> None:
        """Wait until a condition over what has been synced holds."""
        try:
            async with asyncio.timeout(_PATIENCE), self._arrived:
                await self._arrived.wait_for(wanted)
        except TimeoutError:
            raise AssertionError(f"matrix-nio never saw {what}") from None

    def messages(self, room: str) -> list[RoomMessage]:
        """The messages of a room in the order in which they arrived."""
        return [
            event
            for answer in self._answers
            if room in answer.rooms.join
            for event in answer.rooms.join[room].timeline.events
            if isinstance(event, RoomMessage)
        ]

    def ephemeral(self, room: str) -> list[Any]:
        """The ephemeral events of a room in the order in which they arrived."""
        return [e for a in self._answers if room in a.rooms.join for e in a.rooms.join[room].ephemeral]

    def invites(self) -> set[str]:
        """The rooms that the user has been invited to."""
        return {room for answer in self._answers for room in answer.rooms.invite}

    # -- verifying by SAS, device to device (nio's own variant of it, which only nio speaks) ---------------------------

    async def begin_to_verify(self, user_id: str, device_id: str) -> Sas:
        """Ask another nio to compare emoji."""
        await self.nio.start_key_verification(self.nio.device_store[user_id][device_id])
        asked = self.nio.get_active_sas(user_id, device_id)
        assert asked is not None
        return asked

    async def accept_verification(self, user_id: str, device_id: str) -> Sas:
        """Wait for another nio's request, and accept it."""
        await self.until(lambda: self.nio.get_active_sas(user_id, device_id), "a verification")
        asked = self.nio.get_active_sas(user_id, device_id)
        assert asked is not None
        await self.nio.accept_key_verification(asked.transaction_id)
        return asked

    async def confirm(self, sas: Sas) -> None:
        """Say that the emoji are the same, and wait until the other side has said so too."""
        await self.nio.confirm_short_auth_string(sas.transaction_id)
        await self.until(lambda: sas.verified or sas.canceled, "the end of the verification")
        assert sas.verified, sas.cancel_reason

    async def stop(self) -> None:
        """End the sync loop and the connections."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self.nio.close()
