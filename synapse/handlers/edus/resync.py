"""Fetching the devices of other servers' users, where a list is missing or has a gap.

In the main process. Of each user one request is under way at a time, of each server a few; whoever asks meanwhile
shares it. A list that could not be had stays marked as stale in the database, and is tried again, later each time, or
once its server, which was left alone, may be asked again.

Server-server API, "Device Management".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError
from synapse.api.identifiers import domain_of
from synapse.federation.errors import FederationError
from synapse.handlers.edus import their_keys
from synapse.handlers.edus.gaps import NEVER
from synapse.util.concurrency import QueueFull, Slots, SlotsByKey, gather
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.handlers.edus.shares import DeviceShares
    from synapse.handlers.edus.speakers import Speakers
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.remote_devices import Fetched, RemoteDeviceStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

AT_ONCE: Final = 3
"""Requests to one server at a time."""
MOST_WAITING: Final = 1_000
"""Requests to one server that wait for their turn."""
MOST_UNDER_WAY: Final = 500
"""Users whose lists are being fetched, or soon to be; of further ones, those are that `retry` comes to."""
GATHERING_SECONDS: Final = 0.1
"""How long further updates are waited for: they come one after another, and one request serves for all."""
ROUNDS: Final = 3
"""Requests for one list, where updates go on coming that it does not include."""
FORGOTTEN_AT_ONCE: Final = 500
"""Lists that are dropped in one transaction, when this server leaves a large room."""
RETRY_SECONDS: Final = 30.0
RETRIED: Final = 100
"""Stale lists that are tried again in one round."""
MOST_BACK: Final = 1_000
"""Servers of which it is remembered in between that they are there again."""
_FIRST_PAUSE: Final = 60_000
_LONGEST_PAUSE: Final = 24 * 3600 * 1000


class Resync:
    """Fetches lists.

    :param api: raises at once for servers that have not answered of late.
    :param ready: which of some servers those are not.
    """

    def __init__(
        self,
        store: RemoteDeviceStore,
        shares: DeviceShares,
        stream: StreamWriter,
        api: FederationApi,
        speakers: Speakers,
        ready: Callable[[Collection[str]], Awaitable[Collection[str]]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._ready = ready
        self._shares = shares
        self._stream = stream
        self._api = api
        self._speakers = speakers
        self._clock = clock
        self._under_way: dict[str, list[Deferred[str | None]]] = {}
        self._wanted: dict[str, int] = {}  # stream ids that lists under way have to include
        self._slots: SlotsByKey[str] = SlotsByKey(lambda _: Slots(AT_ONCE, MOST_WAITING))
        self._back: set[str] = set()  # servers that are there again since the last round

    def want(self, user_id: str, stream_id: int) -> None:
        """An update of that id could not be applied: has the list fetched soon, in the background."""
        known = user_id in self._wanted or user_id in self._under_way
        if known or len(self._wanted) + len(self._under_way) < MOST_UNDER_WAY:
            self._wanted[user_id] = max(stream_id, self._wanted.get(user_id, NEVER))
            if not known:
                self._clock.callLater(GATHERING_SECONDS, self._begin, user_id)

    def _begin(self, user_id: str) -> None:
        if user_id in self._wanted:  # else somebody could not wait
            Deferred.fromCoroutine(self.fetch(user_id))

    async def fetch_all(self, user_ids: Collection[str]) -> dict[str, str]:
        """Fetches the lists of users who share a room with somebody here. What was wrong where it failed, by user."""
        ids = list(dict.fromkeys(user_ids))
        found = await gather(self.fetch(user_id) for user_id in ids)
        return {user_id: problem for user_id, problem in zip(ids, found, strict=True) if problem is not None}

    async def fetch(self, user_id: str) -> str | None:
        """Fetches a list, or waits for who does. A sentence where that failed; raises nothing."""
        waiting = self._under_way.get(user_id)
        if waiting is not None:
            done: Deferred[str | None] = Deferred()
            waiting.append(done)
            return await done
        self._under_way[user_id] = []
        problem: str | None = "The list of devices could not be kept."
        try:
            problem = await self._fetch(user_id)
        except Exception as error:
            log_failure(logger, error, "The devices of %s could not be kept", user_id)
        finally:
            if problem is not None:
                self._wanted.pop(user_id, None)  # it is tried again, whatever comes
            elif user_id in self._wanted:
                self._clock.callLater(GATHERING_SECONDS, self._begin, user_id)
            for each in self._under_way.pop(user_id):
                each.callback(problem)
        return problem

    def heard(self, server: str | None) -> None:
        """The standing of a server is another (None: perhaps of all of them, which those that are due will show)."""
        if server is not None and len(self._back) < MOST_BACK:
            Deferred.fromCoroutine(self._look(server)).addErrback(_log)

    async def _look(self, server: str) -> None:
        self._back.update(await self._ready([server]))  # just now; a pause that ends by itself is no sign of life

    async def retry(self) -> None:
        """Tries again what is due; to be called every `RETRY_SECONDS`."""
        if self._back:
            back, self._back = self._back, set()
            await self._store.hasten(back, self._now())
        due = await self._store.due(self._now(), RETRIED)
        sharing = await self._speakers.sharing(due)
        await self.forget([user_id for user_id in due if user_id not in sharing])
        await self.fetch_all(sharing)

    async def forget(self, user_ids: Collection[str]) -> None:
        """Drops lists that nobody tells this server of any more.

        Whoever meets these users again, and knows keys of theirs from before, is told that they may be others.
        """
        users = sorted(user_ids)
        for start in range(0, len(users), FORGOTTEN_AT_ONCE):
            some = users[start : start + FORGOTTEN_AT_ONCE]
            await self._stream.append_many(
                len(some),
                partial(self._store.forget, some),
                lambda told: {position: [user_id] for position, user_id in told.items()},
            )

    async def _fetch(self, user_id: str) -> str | None:
        for round_ in range(ROUNDS):
            try:
                found = await self._ask(user_id)
            except (FederationError, MatrixError) as error:
                await self._failed(user_id)
                return error.message
            except QueueFull:
                return "Too many lists of that server's are being fetched."
            wanted = self._wanted.pop(user_id, NEVER)
            if round_ == ROUNDS - 1:  # the server counts otherwise than it says
                found = found._replace(stream_id=max(found.stream_id, wanted))
            await self._keep(user_id, found)
            if self._wanted.get(user_id, NEVER) <= found.stream_id:
                self._wanted.pop(user_id, None)
                if wanted <= found.stream_id:
                    break
        return None

    async def _ask(self, user_id: str) -> Fetched:
        server = domain_of(user_id)
        async with self._slots.taken(server):
            return their_keys.fetched(user_id, await self._api.user_devices(server, user_id))

    async def _keep(self, user_id: str, found: Fetched) -> None:
        found = await self._shares.within(user_id, found)
        await self._stream.append(
            lambda position: self._store.replace(user_id, found, position),
            lambda changed: [user_id] if changed else [],
        )

    async def _failed(self, user_id: str) -> None:
        now = self._now()
        failures = await self._store.failed(
            user_id, lambda failures: now + min(_FIRST_PAUSE << min(failures - 1, 20), _LONGEST_PAUSE)
        )
        if failures == 1:  # clients may have more luck, and should not go on believing what they have
            await self._tell(user_id)

    async def _tell(self, user_id: str) -> None:
        await self._stream.append(lambda position: self._store.changed(user_id, position), lambda _: [user_id])

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _log(failure: Any) -> None:
    log_failure(
        logger, failure.value, "It is not known whether a server is there again, whose devices are to be fetched"
    )
