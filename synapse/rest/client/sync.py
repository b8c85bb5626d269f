"""`GET /sync`. Client-server API, "Syncing"."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synapse.api.constants import Presence
from synapse.api.errors import MatrixError, invalid_param
from synapse.api.filters import Filter
from synapse.http.server import RawJson, Request, Requester, serves
from synapse.rest.client.room_reading import filter_json
from synapse.sync.handler import MAX_TIMEOUT, SyncHandler, SyncRequest
from synapse.sync.tokens import StreamToken

if TYPE_CHECKING:
    from synapse.handlers.filters import Filters
    from synapse.handlers.syncing_users import SyncingUsers
    from synapse.util.caches import LruCache

_SHORT: Final = 4096  # characters of a filter that is remembered by its text
_PROPOSAL: Final = "org.matrix.msc4222"  # under which clients of today still ask for `state_after`
_NO_FILTER: Final = Filter()
_PRESENCES: Final = (Presence.ONLINE, Presence.UNAVAILABLE, Presence.OFFLINE)


class SyncEndpoint:
    """Parses the question; filters that were uploaded are remembered, as they never change.

    :param syncing: is told who syncs, which makes them seem online.
    :param most: events of one timeline, where filters ask for more; negative for as many as filters may ask for.
    """

    def __init__(
        self, syncs: SyncHandler, filters: Filters, cache: LruCache[str, Filter], syncing: SyncingUsers, most: int
    ) -> None:
        self._syncs = syncs
        self._filters = filters
        self._cache = cache
        self._syncing = syncing
        self._most = most

    @serves("sync")
    async def sync(self, request: Request) -> RawJson:
        user = request.user
        since = request.arg("since")
        after = request.bool_arg("use_state_after")
        question = SyncRequest(
            user_id=user.user_id,
            device_id=user.device_id,
            filter=await self._filter(user, request.arg("filter")),
            since=StreamToken.parse(since) if since else None,
            timeout=request.int_arg("timeout", 0, 0, MAX_TIMEOUT),
            full_state=request.bool_arg("full_state"),
            state_after=after or request.bool_arg(f"{_PROPOSAL}.use_state_after"),
            state_after_name="state_after" if after else f"{_PROPOSAL}.state_after",
        )
        presence = request.choice_arg("set_presence", _PRESENCES, Presence.ONLINE)
        with self._syncing.syncing(user.user_id, user.device_id, presence):
            return RawJson(await self._syncs.sync(question))

    async def _filter(self, user: Requester, text: str | None) -> Filter:
        """Inline JSON or the id of an uploaded filter. Raises 400 M_NOT_JSON, M_INVALID_PARAM, 404."""
        if not text:
            return _NO_FILTER
        key = text if text.startswith("{") else f"{user.user_id} {text}"
        known = self._cache.get(key)
        if known is None:
            known = self._bounded(Filter.parse(await self._definition(user.user_id, text)))
            if len(key) <= _SHORT:
                self._cache.set(key, known)
        return known

    def _bounded(self, given: Filter) -> Filter:
        timeline = given.room.timeline
        if not 0 <= self._most < timeline.limit:
            return given
        return replace(given, room=replace(given.room, timeline=replace(timeline, limit=self._most)))

    async def _definition(self, user_id: str, text: str) -> object:
        if text.startswith("{"):
            return filter_json(text)
        try:
            return await self._filters.get(user_id, text)
        except MatrixError:
            raise invalid_param("The parameter 'filter' names no filter that you have uploaded.") from None
