"""What the content repository does besides answering: the duty `media_repository`.

Once an hour, what was announced and never uploaded is forgotten, and what a killed process left half-written deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.util.repeating import Repeating

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.media.filestore import FileStore
    from synapse.storage.media import MediaStore
    from synapse.util.clock import Clock

EVERY_SECONDS: Final = 3600.0
_UNFINISHED_SECONDS: Final = 24 * 3600.0  # no upload takes so long


class MediaUpkeep:
    """Keeps the store tidy while it is on duty."""

    def __init__(
        self, store: MediaStore, files: FileStore, in_thread: Callable[..., Awaitable[Any]], clock: Clock
    ) -> None:
        self._store = store
        self._files = files
        self._in_thread = in_thread
        self._clock = clock
        self._repeating = Repeating(clock, EVERY_SECONDS, "Tidying the media store", self.tidy)

    async def begin(self) -> None:
        await self.tidy()
        self._repeating.start()

    async def end(self) -> None:
        self._repeating.stop()

    async def tidy(self) -> None:
        now = self._clock.seconds()
        await self._store.forget_expired(int(now * 1000))
        await self._in_thread(self._files.sweep, now - _UNFINISHED_SECONDS)
