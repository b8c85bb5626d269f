"""Answers with the state of a room, which may have tens of thousands of members.

The events are never parsed: their stored texts go into the answer piece by piece, which is kept in a file on its way
out where it is long, so that neither memory nor the time in which nobody else is answered grows with the room.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Final

from synapse.federation.serving.visibility import copy_of
from synapse.http.answers import JSON_TYPE, Answer, FileAnswer, RawJson

if TYPE_CHECKING:
    from synapse.storage.served_events import ServedEventsStore

PIECE: Final = 1_000
"""So many events are read at once: a few hundred kilobytes."""

IN_MEMORY: Final = 2_000
"""Answers of so many events are not worth a file."""


async def array_of(store: ServedEventsStore, event_ids: Collection[str]) -> AsyncIterator[bytes]:
    """The events as the inside of a JSON array. One statement for each thousand of them."""
    separator = b""
    wanted = list(event_ids)
    for start in range(0, len(wanted), PIECE):
        events = await store.many(wanted[start : start + PIECE])
        texts = [copy_of(event) for event in events.values() if not event.rejected]
        if texts:
            yield separator + b",".join(texts)
            separator = b","


async def answer_of(pieces: AsyncIterator[bytes], events: int) -> Answer:
    """The pieces as one answer; `events` is how many are in it, about."""
    if events <= IN_MEMORY:
        return RawJson(b"".join([piece async for piece in pieces]))
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the server closes it
    try:
        async for piece in pieces:
            file.write(piece)
        file.seek(0)
        return FileAnswer(file, JSON_TYPE)
    except BaseException:
        file.close()
        raise
