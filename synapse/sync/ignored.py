"""Whom each user ignores: the account data m.ignored_user_list, from memory. Client-server API, "Ignoring Users"."""

from __future__ import annotations

from typing import Final, NamedTuple

from synapse.api.constants import AccountDataTypes
from synapse.storage.account_data import AccountDataStore, ignored_users
from synapse.util.caches import Cache

CACHE: Final = "ignored_users"
NOBODY: Final[frozenset[str]] = frozenset()


class Ignored(NamedTuple):
    """A user's list, and the position of the account data stream at which it became so; 0 if there never was one."""

    users: frozenset[str]
    since: int


class IgnoredUsers:
    """Remembers the lists of those who sync; `cache` is invalidated when a user's global account data changes."""

    def __init__(self, store: AccountDataStore, cache: Cache[str, Ignored]) -> None:
        self._store = store
        self.cache = cache

    async def of(self, user_id: str) -> frozenset[str]:
        return (await self.dated(user_id)).users

    async def dated(self, user_id: str) -> Ignored:
        """The list with its position."""
        known = self.cache.get(user_id)
        return known if known is not None else await self.cache.fetch(user_id, self._load)

    async def _load(self, user_id: str) -> Ignored:
        content, since = await self._store.dated(user_id, "", AccountDataTypes.IGNORED_USER_LIST)
        return Ignored(NOBODY if content is None else ignored_users(content, user_id), since)
