"""Getting the keys of other servers: from the servers themselves, else from the notaries that are trusted.

Whoever sends events decides which keys are asked for. So each server is asked once at a time and so often, one that
does not answer is left alone for longer and longer, and there is a limit to how many are asked at the same time: in
all, and for each server that has brought what needs the keys, so that none keeps the others waiting.

Server-server API, "Retrieving server keys".
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred

from synapse.events.signing import SignatureError, signatures_by, verify
from synapse.federation.errors import FederationError, Unreachable
from synapse.federation.published import (
    MAX_ANSWER,
    BadKeys,
    Published,
    canonical_of,
    check,
    verify_key_in_base64,
    verify_key_of,
)
from synapse.http.ratelimit import Buckets
from synapse.metrics import table
from synapse.storage.server_keys import StoredKey
from synapse.util.concurrency import QueueFull, Slots, SlotsByKey, gather, spawn

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.federation.keyring import Lacking
    from synapse.storage.server_keys import ServerKeysStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

AT_ONCE: Final = 100
FOR_EACH: Final = 10  # of these, for what one server has brought
FOR_US: Final = 50  # for what no server has brought, but this one wants by itself
WAITING: Final = 20_000
WITHIN: Final = 10.0  # seconds for one server
ALTOGETHER: Final = 30.0  # seconds after which no further server is asked by itself
FIRST_PAUSE: Final = 30.0  # seconds that a server is left alone which did not answer; twice as long each time
LONGEST_PAUSE: Final = 3600.0
REMEMBERED: Final = 50_000
PER_QUESTION: Final = 100  # servers that a notary is asked for at once


class _Rate(NamedTuple):
    per_second: float
    burst_count: int


PER_SERVER: Final = _Rate(1 / 60, 10)


class Notary(NamedTuple):
    """A server whose word is taken for the keys of others, with its own keys (base64 by id).

    Without keys it is asked for them. `insecurely`: its answers need not be signed by it at all.
    """

    server: str
    keys: Mapping[str, str] = {}
    insecurely: bool = False


class _Pause(NamedTuple):
    seconds: float
    until: float


class _Wish:
    """The keys of a server that are wanted: who waits for them, and in which queues they stand."""

    def __init__(self) -> None:
        self.followers: list[Deferred[bool]] = []
        self.queues: set[str | None] = set()
        self.is_asked = False


class KeyFetcher:
    """Fetches keys and stores them.

    :param api: asks; without regard to who has answered of late, since that is kept here by itself.
    :param at_once: how many servers are asked at the same time, and how many of these for nobody's sake.
    """

    def __init__(
        self,
        server_name: str,
        api: FederationApi,
        store: ServerKeysStore,
        notaries: Sequence[Notary],
        clock: Clock,
        at_once: int = AT_ONCE,
        for_us: int = FOR_US,
    ) -> None:
        self._server_name = server_name
        self._api = api
        self._store = store
        self._notaries = notaries
        self._clock = clock
        self._slots = Slots(at_once, WAITING)
        self._shares: SlotsByKey[str | None] = SlotsByKey(
            lambda asked_by: Slots(for_us if asked_by is None else FOR_EACH, WAITING)
        )
        self._running: dict[str, _Wish] = {}
        self._rates = Buckets(PER_SERVER, clock, REMEMBERED)
        self._pauses: dict[str, _Pause] = {}
        self._notary_rates = Buckets(PER_SERVER, clock, REMEMBERED)

    async def fetch(self, lacking: Lacking, asked_by: str | None = None) -> set[str]:
        """Asks for keys, each of its own server first, and stores them; the servers of which there is news.

        `asked_by`: the server that has brought what they are needed for.
        """
        deadline = self._clock.seconds() + ALTOGETHER
        servers = [server for server in lacking if server != self._server_name]
        news = await gather(self._from_itself(server, deadline, asked_by) for server in servers)
        found = {server for server, is_news in zip(servers, news, strict=True) if is_news}
        if self._notaries:
            found |= await self._from_notaries({server: lacking[server] for server in servers}, found)
        return found

    # -- of the servers themselves -------------------------------------------------------------------------------------

    async def _from_itself(self, server: str, deadline: float, asked_by: str | None = None) -> bool:
        """Whether the server has told its keys; asked once for all who want to know at the same time.

        They stand in the queue of each, and the turn that comes first counts: who names a server among many that do not
        answer does not make others wait for it.
        """
        wish = self._running.get(server)
        if wish is None:
            if not self._may_ask(server):
                return False
            wish = self._running[server] = _Wish()
        result: Deferred[bool] = Deferred()
        wish.followers.append(result)
        if not wish.is_asked and asked_by not in wish.queues:
            wish.queues.add(asked_by)
            spawn(self._ask_in_turn(server, wish, deadline, asked_by))
        return await result

    async def _ask_in_turn(self, server: str, wish: _Wish, deadline: float, asked_by: str | None) -> None:
        is_mine = is_news = False
        try:
            async with self._shares.taken(asked_by), self._slots.taken():
                if not wish.is_asked and self._clock.seconds() <= deadline:
                    is_mine = wish.is_asked = True
                    is_news = await self._ask(server)
        except QueueFull:
            logger.warning("The keys of %s are not fetched: too many wait already", server)
        except Exception:
            logger.exception("Fetching the keys of %s failed", server)
        wish.queues.discard(asked_by)
        if is_mine or not (wish.is_asked or wish.queues):
            self._tell(server, wish, is_news)

    def _tell(self, server: str, wish: _Wish, is_news: bool) -> None:
        del self._running[server]
        for waiting in wish.followers:
            if not waiting.called:
                waiting.callback(is_news)

    def _may_ask(self, server: str) -> bool:
        pause = self._pauses.get(server)
        if pause is not None and pause.until > self._clock.seconds():
            return False
        return not self._rates.wait(server)

    async def _ask(self, server: str) -> bool:
        self._rates.add(server)
        try:
            answer = await self._api.server_keys(server, within=WITHIN)
            published = check(answer, server, self._now())
        except Unreachable as error:
            self._pause(server)
            table.FEDERATION_KEYS_FETCHED.child("away").inc()
            logger.info("The keys of %s cannot be fetched: %s", server, error.message)
            return False
        except (FederationError, BadKeys) as error:
            table.FEDERATION_KEYS_FETCHED.child("bad").inc()
            logger.info("The keys of %s cannot be fetched: %s", server, error)
            return False
        table.FEDERATION_KEYS_FETCHED.child("good").inc()
        self._pauses.pop(server, None)
        await self._keep(server, published)
        return True

    def _pause(self, server: str) -> None:
        before = self._pauses.pop(server, None)
        seconds = FIRST_PAUSE if before is None else min(before.seconds * 2, LONGEST_PAUSE)
        self._pauses[server] = _Pause(seconds, self._clock.seconds() + seconds)
        while len(self._pauses) > REMEMBERED:
            del self._pauses[next(iter(self._pauses))]

    async def _keep(self, server: str, published: Published) -> None:
        if len(published.answer) > MAX_ANSWER:
            logger.info("The keys of %s are too many to be kept", server)
            return
        answer = published.answer.decode()
        stored = {
            key_id: StoredKey(key.verify_key, key.good_until, True)
            if key.is_old
            else StoredKey(key.verify_key, key.good_until, False, answer, published.valid_until_ts, self._now())
            for key_id, key in published.keys.items()
        }
        await self._store.store(server, stored, self._now())

    # -- of notaries ---------------------------------------------------------------------------------------------------

    async def _from_notaries(self, lacking: Lacking, told: Collection[str]) -> set[str]:
        """Asks notaries, one after another, for what the servers have not told themselves."""
        found: set[str] = set()
        open_ = {server: keys for server, keys in lacking.items() if server not in told}
        known = await self._store.get_many([server for server in lacking if server in told])
        for server, keys in known.items():
            if not all(key_id in keys and keys[key_id].good_until >= at for key_id, at in lacking[server].items()):
                open_[server] = lacking[server]
        open_ = {server: keys for server, keys in open_.items() if not self._notary_rates.wait(server)}
        for server in open_:
            self._notary_rates.add(server)
        for notary in self._notaries:
            for start in range(0, len(open_), PER_QUESTION):
                some = dict(list(open_.items())[start : start + PER_QUESTION])
                found |= await self._from_notary(notary, some)
            open_ = {server: keys for server, keys in open_.items() if server not in found}
        return found

    async def _from_notary(self, notary: Notary, wanted: Lacking) -> set[str]:
        try:
            keys = await self._keys_of(notary)
            answers = await self._api.notarised_keys_of_many(notary.server, wanted, within=3 * WITHIN)
        except FederationError as error:
            logger.info("The notary %s is of no help: %s", notary.server, error.message)
            return set()
        found: set[str] = set()
        for answer in answers[: 10 * len(wanted)]:
            server = answer.get("server_name")
            if not isinstance(server, str) or server not in wanted:
                continue
            try:
                _check_notarised(answer, notary, keys)
                published = check(answer, server, self._now())
            except (BadKeys, SignatureError) as error:
                logger.info("The notary %s has no keys of %s: %s", notary.server, server, error)
                continue
            await self._keep(server, await self._not_older(server, published))
            found.add(server)
        return found

    async def _not_older(self, server: str, published: Published) -> Published:
        """Without what is known better: a notary may have an answer that is long outdated."""
        known = (await self._store.get_many([server]))[server]
        keys = {
            key_id: key
            for key_id, key in published.keys.items()
            if key_id not in known or (known[key_id].good_until < key.good_until and not known[key_id].is_old)
        }
        return published._replace(keys=keys)

    async def _keys_of(self, notary: Notary) -> dict[str, Any]:
        """The keys that a notary signs with."""
        if notary.insecurely:
            return {}
        if notary.keys:
            return {key_id: verify_key_in_base64(key_id, key) for key_id, key in notary.keys.items()}
        known = (await self._store.get_many([notary.server]))[notary.server]
        now = self._now()
        if not any(key.good_until > now for key in known.values()):
            await self._from_itself(notary.server, self._clock.seconds() + WITHIN)
            known = (await self._store.get_many([notary.server]))[notary.server]
        return {key_id: verify_key_of(key_id, key.verify_key) for key_id, key in known.items() if key.good_until > now}

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _check_notarised(answer: Mapping[str, Any], notary: Notary, keys: Mapping[str, Any]) -> None:
    """Raises SignatureError unless the notary has signed the answer."""
    if notary.insecurely:
        return
    message = canonical_of(answer)
    for key_id, signature in signatures_by(answer, notary.server).items():
        if key_id in keys:
            verify(message, signature, keys[key_id])
            return
    raise SignatureError("It has not signed them.")
