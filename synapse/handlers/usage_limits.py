"""How many people may use this server: a limit of monthly active users, and a switch for all.

Who syncs or writes counts for a month, from the moment on when their account is older than the trial. Each process
remembers who counts, so that a request of theirs costs a look into a table in memory; only who comes new costs
statements. The main process hears of everybody who is seen anywhere, and keeps the table from being forgotten or
growing too large (`handlers.usage_upkeep`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import Codes, MatrixError
from synapse.api.threepids import canonical
from synapse.handlers.account_rules import MAKING_EVENTS
from synapse.storage.active_users import Limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse.config.conduct import UsageConfig
    from synapse.handlers.account_rules import Applicant
    from synapse.http.request import Requester
    from synapse.storage.active_users import ActiveUsersStore
    from synapse.storage.users import User
    from synapse.util.caches import Cache
    from synapse.util.clock import Clock

CACHE: Final = "monthly_active_users"
CACHE_SIZE: Final = 20_000

LIMITED: Final = frozenset({*MAKING_EVENTS, "sync", "events", "initial_sync", "room_initial_sync"})
"""What makes users active, and is refused to those who are too many."""

MONTHLY: Final = "monthly_active_user"
DISABLED: Final = "hs_disabled"
_REFUSED_MS: Final = 30_000
"""For how long somebody is refused from memory."""

_MAX_REFUSED: Final = 10_000
_DAY_MS: Final = 24 * 3600 * 1000


def limit_of(options: UsageConfig) -> Limit:
    """The limit that the options set."""
    reserved = tuple((t.medium, canonical(t.medium, t.address)) for t in options.mau_limit_reserved_threepids)
    return Limit(options.max_mau_value if options.limit_usage_by_mau else None, reserved)


class UsageRule:
    """See `account_rules`.

    :param active: by user id: those who count; invalidated by whoever has them count no more.
    :param app_services: whether users count for whom an application service acts.
    """

    def __init__(
        self,
        options: UsageConfig,
        store: ActiveUsersStore,
        active: Cache[str, bool],
        clock: Clock,
        *,
        app_services: bool,
    ) -> None:
        self._options = options
        self._limit = limit_of(options)
        self._counts = options.limit_usage_by_mau or options.mau_stats_only
        self._store = store
        self._active = active
        self._clock = clock
        self._app_services = app_services
        self._refused: dict[str, int] = {}

    async def check(self, requester: Requester, operation: str, params: Mapping[str, str]) -> None:
        """Raises 403 M_RESOURCE_LIMIT_EXCEEDED."""
        if operation not in LIMITED or requester.standing.user_type is not None:
            return
        if self._options.hs_disabled:
            raise self._disabled()
        if not self._counts or requester.is_guest:
            return
        if requester.app_service is not None and not self._app_services:
            return
        if self._is_on_trial(requester.standing.created_ts, requester.app_service):
            return
        await self._active.fetch(requester.user_id, self._admit)

    async def check_login(self, user: User) -> None:
        """Raises 403 M_RESOURCE_LIMIT_EXCEEDED."""
        if user.user_type is not None:
            return
        if self._options.hs_disabled:
            raise self._disabled()
        if user.is_guest or self._limit.users is None or self._is_on_trial(user.created_ts, user.app_service_id):
            return
        if user.app_service_id is not None and not self._app_services:
            return
        if not await self._store.has_room(user.user_id, self._now(), self._limit):
            raise self._exceeded()

    async def check_registration(self, applicant: Applicant) -> None:
        """Raises 403 M_RESOURCE_LIMIT_EXCEEDED."""
        if applicant.user_type is not None:
            return
        if self._options.hs_disabled:
            raise self._disabled()
        if (
            self._limit.users is None
            or applicant.is_guest
            or (applicant.app_service_id is not None and not self._app_services)
        ):
            return
        if not self._may_be_reserved(applicant) and await self._store.count(self._now()) >= self._limit.users:
            raise self._exceeded()

    def _may_be_reserved(self, applicant: Applicant) -> bool:
        reserved = set(self._limit.reserved)
        return bool(reserved) if applicant.threepids is None else not reserved.isdisjoint(applicant.threepids)

    async def _admit(self, user_id: str) -> bool:
        now = self._now()
        if now < self._refused.get(user_id, 0):
            raise self._exceeded()
        if await self._store.admit(user_id, now, self._limit):
            return True
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.clear()
        self._refused[user_id] = now + _REFUSED_MS
        raise self._exceeded()

    def _is_on_trial(self, created_ts: int, app_service: str | None) -> bool:
        days = self._options.mau_trial_days
        if app_service is not None:
            days = self._options.mau_appservice_trial_days.get(app_service, days)
        return days > 0 and created_ts + days * _DAY_MS > self._now()

    def _exceeded(self) -> MatrixError:
        return self._refusal("This server has reached its limit of monthly active users.", MONTHLY)

    def _disabled(self) -> MatrixError:
        return self._refusal(self._options.hs_disabled_message, DISABLED)

    def _refusal(self, message: str, limit_type: str) -> MatrixError:
        contact = self._options.admin_contact
        fields: dict[str, Any] = {"limit_type": limit_type, "admin_contact": contact or ""}
        return MatrixError(403, Codes.RESOURCE_LIMIT_EXCEEDED, message, **fields)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
