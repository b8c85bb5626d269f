"""Searching for users, and following the rooms so that users of other servers are found too.

Our own users are in the directory from the moment of their registration. Those of other servers come and go with
their memberships, which one process at a time follows (it holds the lease `user_directory`), from where it or another
stopped.

Client-server API, "User Directory".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import forbidden, invalid_param
from synapse.api.identifiers import domain_of
from synapse.replication.event_rows import StateRow, is_entry
from synapse.storage.user_directory import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

    from synapse.config.sections import UserDirectoryConfig
    from synapse.storage.user_directory import DirectoryUser, UserDirectoryStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_RESULTS: Final = 50
MAX_TERM: Final = 512  # characters
PAGE: Final = 500  # changes that the follower takes in at a time
DELAY_SECONDS: Final = 0.2  # for more to come, so that they are taken in together
RETRY_SECONDS: Final = 1.0  # after a failure


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
        config, ours = self._config, self._server_name
        preferred, only = (
            ours if wanted else None for wanted in (config.prefer_local_users, config.exclude_remote_users)
        )
        query = Query(user_id, term, limit + 1, config.search_all_users, preferred, only, config.show_locked_users)
        found = await self._store.search(query)
        return {"results": [_shown(user) for user in found[:limit]], "limited": len(found) > limit}


class DirectoryFollower:
    """Keeps other servers' users in the directory: the duty `user_directory`.

    :param present: how far this process has seen the stream of events.
    """

    def __init__(self, store: UserDirectoryStore, server_name: str, present: Callable[[], int], clock: Clock) -> None:
        self._store = store
        self._server_name = server_name
        self._present = present
        self._clock = clock
        self._position: int | None = None  # None: not on duty
        self._timer: Any = None
        self._following = False

    async def begin(self) -> None:
        """Takes in what happened while nobody followed, and goes on from there."""
        self._position = await self._store.position()
        await self._follow()

    async def end(self) -> None:
        self._position = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def news(self, rows: Iterable[object]) -> None:
        """Rows of the events stream; work follows in a moment if one is the membership of another server's user, or
        where this server enters a room, or may have left one, whose members have no rows then."""
        if any(self._concerns_us(row) for row in rows):
            self._soon()

    def _concerns_us(self, row: object) -> bool:
        if not isinstance(row, StateRow):
            return False
        if row.type != EventTypes.MEMBER:
            return is_entry(row)
        is_ours = domain_of(row.state_key) == self._server_name
        return not is_ours or Membership.JOIN == row.prev_membership != row.membership

    def _soon(self, delay: float = DELAY_SECONDS) -> None:
        if self._position is not None and (self._timer is None or not self._timer.active()):
            self._timer = self._clock.callLater(delay, self._in_a_moment)

    def _in_a_moment(self) -> None:
        if self._following:
            self._timer = self._clock.callLater(DELAY_SECONDS, self._in_a_moment)
        else:
            Deferred.fromCoroutine(self._follow()).addErrback(self._failed)

    async def _follow(self) -> None:
        """In pages, until the present is reached."""
        self._following = True
        try:
            until = self._present()
            while self._position is not None and self._position < until:
                reached = await self._store.follow(self._position, until, self._server_name, PAGE)
                if self._position is not None:
                    self._position = reached
        finally:
            self._following = False

    def _failed(self, failure: Failure) -> None:
        logger.error("The user directory could not be kept; it is tried again", exc_info=failure.value)
        self._soon(RETRY_SECONDS)


def _shown(user: DirectoryUser) -> dict[str, str]:
    shown = {"user_id": user.user_id, "display_name": user.display_name, "avatar_url": user.avatar_url}
    return {name: value for name, value in shown.items() if value is not None}
