"""Whom each user ignores, and whether it wants no invitations at all: the account data m.ignored_user_list and
m.invite_permission_config, from memory. Client-server API, "Ignoring Users", "Invite permission".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from synapse.api.constants import AccountDataTypes
from synapse.storage.account_data import AccountDataStore, blocks_invites, ignored_users
from synapse.util.caches import Cache

CACHE: Final = "ignored_users"
_TYPES: Final = (AccountDataTypes.IGNORED_USER_LIST, AccountDataTypes.INVITE_PERMISSION_CONFIG)
NOBODY: Final[frozenset[str]] = frozenset()


class Ignored(NamedTuple):
    """A user's list, and the position of the account data stream at which all this became so; 0 if it always was.

    `invites`: invitations are ignored, whoever sends them.
    """

    users: frozenset[str]
    since: int
    invites: bool = False


class IgnoredUsers:
    """Remembers the lists of those who sync; `cache` is invalidated when a user's global account data changes."""

    def __init__(self, store: AccountDataStore, cache: Cache[str, Ignored]) -> None:
        self._store = store
        self.cache = cache

    async def of(self, user_id: str) -> frozenset[str]:
        return (await self.dated(user_id)).users

    async def ignorers(self, user_ids: Collection[str], sender: str) -> set[str]:
        """Those of the users who ignore the sender; one statement, if not all lists are known."""
        lists = await self.cache.fetch_many(user_ids, self._load_many)
        return {user_id for user_id, ignored in lists.items() if sender in ignored.users}

    async def dated(self, user_id: str) -> Ignored:
        """The list with its position."""
        known = self.cache.get(user_id)
        return known if known is not None else await self.cache.fetch(user_id, self._load)

    async def _load(self, user_id: str) -> Ignored:
        return (await self._load_many([user_id]))[user_id]

    async def _load_many(self, user_ids: list[str]) -> dict[str, Ignored]:
        found = await self._store.dated(user_ids, _TYPES)
        return {user_id: self._read(user_id, found.get(user_id, {})) for user_id in user_ids}

    def _read(self, user_id: str, found: dict[str, tuple[str, int]]) -> Ignored:
        content, since = found.get(AccountDataTypes.IGNORED_USER_LIST, (None, 0))
        config, set_at = found.get(AccountDataTypes.INVITE_PERMISSION_CONFIG, (None, 0))
        users = NOBODY if content is None else ignored_users(content, user_id)
        return Ignored(users, max(since, set_at), config is not None and blocks_invites(config))
