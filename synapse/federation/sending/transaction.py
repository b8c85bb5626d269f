"""The bytes of a transaction, put together from those of events and EDUs: nothing is encoded again. Pure.

Server-server API, "Transactions".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from synapse.events import canonical

MAX_BYTES: Final = 2 << 20
"""Of a transaction, if it holds more than one event or EDU."""


def body(origin: str, now: int, pdus: Iterable[bytes], edus: Iterable[bytes]) -> bytes:
    """A transaction as canonical JSON, of events and EDUs that are such; `now` in milliseconds."""
    return b'{"edus":[%s],"origin":%s,"origin_server_ts":%d,"pdus":[%s]}' % (
        b",".join(edus),
        canonical.encode(origin),
        now,
        b",".join(pdus),
    )


def that_fit(pieces: Sequence[bytes], room: int) -> int:
    """How many of the first pieces fit into so many bytes together."""
    for index, piece in enumerate(pieces):
        room -= len(piece) + 1
        if room < 0:
            return index
    return len(pieces)
