"""Has anything of this kind changed for this user (or room) since that position? From memory, and "yes" where it
cannot know.

Each stream's rows pass through here as they arrive. Thanks to this, a sync without news asks the database nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

from synapse.util.caches import StreamChangeCache

_BY_ROOM: Final = "receipts"
_FEW: Final = 50
_BY_USER: Final = ("account_data", "push_rules", "to_device", "device_lists", "presence")


class Changes:
    """What the streams said lately, other than that of events (`synapse.sync.recent`) and typing."""

    def __init__(self, size: int = 10_000) -> None:
        self.by_stream = {name: StreamChangeCache(name, size) for name in (_BY_ROOM, *_BY_USER)}

    def start(self, stream: str, position: int) -> None:
        """Everything after `position` will be told."""
        self.by_stream[stream].start(position)

    def record(self, stream: str, entity: Hashable, position: int) -> None:
        """The entity (a room for receipts, else a user) changed."""
        self.by_stream[stream].record(entity, position)

    def receipts(self, rooms: Collection[str], after: int) -> Collection[str]:
        """Those of the rooms with new receipts."""
        cache = self.by_stream[_BY_ROOM]
        return cache.changed_of(rooms, after) if cache.any_changed(after) else ()

    def account_data(self, user_id: str, after: int) -> bool:
        return self.by_stream["account_data"].changed(user_id, after)

    def push_rules(self, user_id: str, after: int) -> bool:
        return self.by_stream["push_rules"].changed(user_id, after)

    def to_device(self, user_id: str, after: int) -> bool:
        """Whether there may be messages for a device of the user."""
        return self.by_stream["to_device"].changed(user_id, after)

    def device_lists(self, after: int, until: int) -> Collection[Hashable] | None:
        """Who is new in the stream of that name at positions `after` < p ≤ `until`: users, and rows for one user alone.
        None where that is not known, or they are many.
        """
        return self.by_stream["device_lists"].all_changed(after, until, _FEW)

    def any_presence(self, after: int) -> bool:
        """Whether anybody's presence changed."""
        return self.by_stream["presence"].any_changed(after)
