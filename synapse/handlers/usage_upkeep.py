"""Keeps count of the monthly active users, and tells users when there is no room for more: in the main process.

While the limit is reached, each of those who count has a notice pinned in their room of server notices; when there is
room again, it is unpinned. Who has been told is in the database, and a few are told at a time.

Client-server API, "Server Notices".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes
from synapse.handlers.server_notices import Notice
from synapse.handlers.usage_limits import CACHE, MONTHLY, limit_of
from synapse.metrics import table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from synapse.config.conduct import UsageConfig
    from synapse.handlers.server_notices import ServerNotices
    from synapse.storage.active_users import ActiveUsersStore
    from synapse.storage.server_notices import ServerNoticesStore
    from synapse.util.clock import Clock

AT_A_TIME: Final = 100
_TEXT: Final = (
    "This server has reached its limit of monthly active users: nobody else can use it at the moment. Please contact "
    "its administrator"
)


class UsageUpkeep:
    """Does what has to be done once in a while.

    :param notices: None where nobody is told anything.

    :param invalidate: has every process forget keys of a cache.
    """

    def __init__(
        self,
        options: UsageConfig,
        store: ActiveUsersStore,
        notices: ServerNotices | None,
        told: ServerNoticesStore,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._options = options
        self._limit = limit_of(options)
        self._store = store
        self._notices = notices
        self._told = told
        self._invalidate = invalidate
        self._clock = clock

    async def seen(self, user_ids: Collection[str]) -> None:
        """These users were seen just now, in whichever process."""
        await self._store.seen(user_ids, self._now())

    async def run(self) -> None:
        """Forgets who counts no more, counts the others, and tells them what has changed."""
        await self._forget()
        await self._look()

    async def _forget(self) -> None:
        """Those who were away for a month count no more, nor do those who are too many for the present limit."""
        gone = await self._store.forget(self._now(), self._limit)
        if gone:
            await self._invalidate(CACHE, gone)

    async def _look(self) -> None:
        count, most = await self._store.count(self._now()), self._limit.users
        table.MAU_CURRENT.set(count)
        table.MAU_MAX.set(most or 0)
        if self._notices is not None:
            await self._tell_all(self._notices, is_full=most is not None and count >= most)

    async def _tell_all(self, notices: ServerNotices, *, is_full: bool) -> None:
        if is_full and self._options.mau_limit_alerting:
            for user_id in await self._told.to_tell_of_limit(AT_A_TIME):
                await self._tell(notices, user_id)
        else:
            for user_id in await self._told.told_of_limit(AT_A_TIME):
                await self._take_back(notices, user_id)

    async def _tell(self, notices: ServerNotices, user_id: str) -> None:
        contact = self._options.admin_contact
        content = {
            "msgtype": "m.server_notice",
            "server_notice_type": "m.server_notice.usage_limit_reached",
            "limit_type": MONTHLY,
            "body": f"{_TEXT}: {contact}." if contact else f"{_TEXT}.",
            **({"admin_contact": contact} if contact else {}),
        }
        # Who was told on the same day by a process that died before it could say so is not told twice.
        day = self._now() // (24 * 3600 * 1000)
        event_id = await notices.tell(Notice(user_id=user_id, content=content, txn_id=f"usage limit {day}"))
        if event_id and await self._pin(notices, user_id, [event_id]) is None:
            event_id = None
        if event_id is not None:
            await self._told.set_told_of_limit(user_id, event_id)

    async def _take_back(self, notices: ServerNotices, user_id: str) -> None:
        if await self._pin(notices, user_id, []) is not None:
            await self._told.set_told_of_limit(user_id, None)

    async def _pin(self, notices: ServerNotices, user_id: str, event_ids: list[str]) -> str | None:
        content: dict[str, Any] = {"pinned": event_ids}
        notice = Notice(user_id=user_id, content=content, type=EventTypes.PINNED_EVENTS, state_key="")
        return await notices.tell(notice)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
