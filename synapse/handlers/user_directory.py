"""Searching for users, and following the rooms so that users of other servers are found too.

Our own users are in the directory from the moment of their registration. Those of other servers come and go with
their memberships, which one process at a time follows (it holds the lease `user_directory`), from where it or another
stopped.

Client-server API, "User Directory".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import forbidden, invalid_param
from synapse.storage.user_directory import Query

if TYPE_CHECKING:
    from synapse.config.sections import UserDirectoryConfig
    from synapse.storage.user_directory import DirectoryUser, UserDirectoryStore

MAX_RESULTS: Final = 50
MAX_TERM: Final = 512  # characters
PAGE: Final = 500  # changes that the follower takes in at a time


class UserDirectory:
    """Searches."""

    def __init__(self, store: UserDirectoryStore, config: UserDirectoryConfig, server_name: str) -> None:
        self._store = store
        self._config = config
        self._server_name = server_name

    async def search(self, user_id: str, term: str, limit: int) -> dict[str, Any]:
        """Raises 400 M_INVALID_PARAM, 403 M_FORBIDDEN where the directory is switched off."""
        if not self._config.enabled:
            raise forbidden("The user directory of this server is switched off.")
        if limit < 0:
            raise invalid_param("'limit' cannot be negative.")
        if len(term) > MAX_TERM:
            raise invalid_param(f"'search_term' has at most {MAX_TERM} characters.")
        limit = min(limit, MAX_RESULTS)
        domain = self._server_name if self._config.prefer_local_users else None
        found = await self._store.search(Query(user_id, term, limit + 1, self._config.search_all_users, domain))
        return {"results": [_shown(user) for user in found[:limit]], "limited": len(found) > limit}


class DirectoryFollower:
    """Keeps other servers' users in the directory; `follow` is called whenever the stream of events moved on."""

    def __init__(self, store: UserDirectoryStore, server_name: str) -> None:
        self._store = store
        self._server_name = server_name

    async def follow(self, until: int) -> None:
        """Takes in what happened up to the position `until`, in pages."""
        position = await self._store.position()
        while position < until:
            position = await self._store.follow(until, self._server_name, PAGE)


def _shown(user: DirectoryUser) -> dict[str, str]:
    shown = {"user_id": user.user_id, "display_name": user.display_name, "avatar_url": user.avatar_url}
    return {name: value for name, value in shown.items() if value is not None}
