"""Users who had what they wrote erased with their account: who was not in the room when they wrote it, sees it pruned
as by a redaction. What others have seen already stays as it is.

Asked only about events that somebody reads who was not in the room then, and remembered by user.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from synapse.api.constants import Membership

if TYPE_CHECKING:
    from synapse.storage.users import UserStore
    from synapse.sync.visibility import Seen
    from synapse.util.caches import Cache

CACHE: Final = "erased_users"

PRUNED: Final = ""
"""`redacted_by` of the row of a pruned event: there is no redaction to name."""


class ErasedUsers:
    """`cache` is invalidated by user id, in every process, when a user is erased (or comes back)."""

    def __init__(self, users: UserStore, cache: Cache[str, bool]) -> None:
        self._users = users
        self.cache = cache

    async def among(self, user_ids: Iterable[str]) -> set[str]:
        """Those of the users who are erased. One statement, none for users of whom it is known."""
        found = await self.cache.fetch_many(set(user_ids), self._load)
        return {user_id for user_id, erased in found.items() if erased}

    async def prune(self, seen: dict[str, list[Seen]]) -> dict[str, list[Seen]]:
        """The same events by room, with those pruned that erased users wrote while the reader was elsewhere."""
        foreign = {s.row.sender for room in seen.values() for s in room if s.membership != Membership.JOIN}
        erased = await self.among(foreign) if foreign else None
        if not erased:
            return seen
        return {room_id: [_pruned(s) if s.row.sender in erased else s for s in room] for room_id, room in seen.items()}

    async def _load(self, user_ids: list[str]) -> dict[str, bool]:
        erased = await self._users.erased(user_ids)
        return {user_id: user_id in erased for user_id in user_ids}


def _pruned(seen: Seen) -> Seen:
    if seen.membership == Membership.JOIN or seen.row.redacted_by is not None:
        return seen
    return seen._replace(row=seen.row._replace(redacted_by=PRUNED))
