"""matrix-nio, wrapped so that a test can wait for what its sync brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nio import AsyncClient, AsyncClientConfig, RegisterResponse, RoomMessage, SyncResponse

_PATIENCE = 30  # seconds to wait for what a sync should bring


class NioClient:
    """A client whose sync loop runs in the background and keeps every answer."""

    def __init__(self, base_url: str, name: str) -> None:
        config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=3, encryption_enabled=False)
        self.nio = AsyncClient(base_url, name, config=config)
        self._answers: list[SyncResponse] = []
        self._arrived = asyncio.Condition()
        self._loop: asyncio.Task[None] | None = None

    async def register(self, password: str) -> None:
        """Create the account and log in."""
        answer = await self.nio.register(self.nio.user, password)
        assert isinstance(answer, RegisterResponse), answer

    def start(self) -> None:
        """Begin to sync by long polls."""
        self._loop = asyncio.create_task(self._sync())

    async def _sync(self) -> None:
        while True:
            answer = await self.nio.sync(timeout=20_000)
            async with self._arrived:
                if isinstance(answer, SyncResponse):
                    self._answers.append(answer)
                self._arrived.notify_all()

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

    async def stop(self) -> None:
        """End the sync loop and the connections."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self.nio.close()
