"""How far this process has seen the streams, as one token; and waiting for more. The notifier in the terms of sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.replication.streams import TOKEN_FIELDS
from synapse.sync.tokens import StreamToken

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier

if StreamToken._fields != TOKEN_FIELDS:
    raise AssertionError("a sync token must have one field for each stream of the stream table, in its order")


class StreamPresent:
    """The `synapse.sync.handler.Present` of a process.

    :param is_exact: True in the main process, which hands the positions out.
    """

    def __init__(self, notifier: Notifier, is_exact: bool) -> None:
        self._notifier = notifier
        self._is_exact = is_exact

    def token(self) -> StreamToken:
        """Everything up to here has been seen, and is in the database."""
        positions = self._notifier.positions
        return StreamToken(*[positions[name] for name in TOKEN_FIELDS])

    async def catch_up(self, token: StreamToken, seconds: float) -> None:
        """Returns when `token()` covers this one, or after that time."""
        await self._notifier.wait_for(lambda: self.token().covers(token), seconds)

    async def recognise(self, since: StreamToken, seconds: float) -> None:
        """The same for a token that a client brings, perhaps from a process that has heard more. The main process waits
        for none: one that is ahead of it was never given out."""
        if not self._is_exact:
            await self.catch_up(since, seconds)

    async def wait(self, user_id: str, room_ids: frozenset[str], seconds: float) -> bool:
        """Waits for something that concerns the user or one of the rooms."""
        return await self._notifier.wait(user_id, room_ids, seconds)
