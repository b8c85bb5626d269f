"""Has anything of this kind changed for this user (or room) since that position? From memory, and "yes" where it
cannot know.

Each stream's rows pass through here as they arrive. Thanks to this, a sync without news asks the database nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from synapse.util.caches import StreamChangeCache


class Changes:
    """What the streams said lately, other than that of events (`synapse.sync.recent`) and typing."""

    def __init__(self, size: int = 10_000) -> None:
        self.by_room = {name: StreamChangeCache(name, size) for name in ("receipts",)}
        names = ("account_data", "push_rules", "to_device", "device_lists", "presence")
        self.by_user = {name: StreamChangeCache(name, size) for name in names}

    def receipts(self, rooms: Collection[str], after: int) -> Collection[str]:
        """Those of the rooms with new receipts."""
        return self.by_room["receipts"].changed_of(rooms, after)

    def account_data(self, user_id: str, after: int) -> bool:
        return self.by_user["account_data"].has_changed(user_id, after)

    def push_rules(self, user_id: str, after: int) -> bool:
        return self.by_user["push_rules"].has_changed(user_id, after)

    def to_device(self, user_id: str, after: int) -> bool:
        """Whether there may be messages for a device of the user."""
        return self.by_user["to_device"].has_changed(user_id, after)

    def any_device_list(self, after: int) -> bool:
        """Whether anybody's devices changed."""
        return self.by_user["device_lists"].any_changed(after)

    def any_presence(self, after: int) -> bool:
        """Whether anybody's presence changed."""
        return self.by_user["presence"].any_changed(after)
