"""Keys of other servers' users, for this server's clients: from the lists that are kept, or by asking their servers.

All servers are asked at once, within the time that the client gives. What could not be had is told by server, and why.
A list that is stale and cannot be fetched is shown as it was, besides the failure.

Client-server API, `POST /keys/query`, `POST /keys/claim`; server-server API, "End-to-End Encryption".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, TimeoutError

from synapse.api.errors import MatrixError
from synapse.api.identifiers import domain_of
from synapse.federation.errors import FederationError, Refused
from synapse.handlers.edus import their_keys
from synapse.handlers.edus.device_lists import FETCH
from synapse.handlers.edus.parsing import is_id
from synapse.handlers.signed_keys import MAX_KEY_BYTES
from synapse.storage.published_keys import PublishedKeys
from synapse.storage.remote_devices import Keys
from synapse.util.concurrency import Slots, gather
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from synapse.federation.answers import ClaimedKeys
    from synapse.federation.api import FederationApi
    from synapse.handlers.edus.speakers import Speakers
    from synapse.replication.calls import MainProcess
    from synapse.storage.one_time_keys import Wanted
    from synapse.storage.remote_devices import RemoteDeviceStore
    from synapse.util.clock import Clock

T = TypeVar("T")

DEFAULT_TIMEOUT: Final = 10_000
MAX_TIMEOUT: Final = 60_000
"""Milliseconds."""
LISTS_AT_ONCE: Final = 10
"""Users of a server whose lists are fetched for one request, to be kept. Of further ones only the keys are asked for,
in one request; whoever comes into a big room would otherwise ask for thousands of lists."""
SERVERS_AT_ONCE: Final = 100
_NO_ANSWER: Final = "The server did not answer in time."

Failures = dict[str, dict[str, Any]]
"""By server: status and message."""


class Found(NamedTuple):
    """What is known of users, and of which servers something could not be had."""

    published: PublishedKeys
    failures: Failures


def seconds_of(timeout: int | None) -> float:
    """How long other servers may take, of what a client says in milliseconds."""
    return min(DEFAULT_TIMEOUT if timeout is None else timeout, MAX_TIMEOUT) / 1000


class TheirKeys:
    """Looks keys up and claims them, in any process.

    Until there is another server's user, it needs nothing: no process follows a stream, or has the modules in memory,
    for its sake alone.

    :param api: asks servers also which have not answered of late: a user waits for it.
    """

    def __init__(
        self,
        store: RemoteDeviceStore,
        api: Callable[[], FederationApi],
        speakers: Callable[[], Speakers],
        main: MainProcess,
        clock: Clock,
    ) -> None:
        self._store = store
        self._api = api
        self._speakers = speakers
        self._main = main
        self._clock = clock

    async def query(self, viewer: str, wanted: Mapping[str, Collection[str]], seconds: float) -> Found:
        """Keys of users and their devices (none named: all)."""
        failures: Failures = {}
        sharing = await self._speakers().sharing(wanted.keys())
        known = await self._store.known(list(sharing), viewer)
        lists, strangers = _divided(wanted, sharing - (known.users - known.stale), wanted.keys() - sharing)

        async def fetch() -> PublishedKeys:
            return await self._fetch(viewer, lists, seconds, failures)

        async def ask(server: str, users: list[str]) -> PublishedKeys:
            of_server = {user_id: wanted[user_id] for user_id in users}
            answer = await self._api().query_user_keys(
                server, {user_id: list(ids) for user_id, ids in of_server.items()}, within=seconds
            )
            return their_keys.answered(answer, of_server)

        asked = self._of_servers(strangers, ask, seconds, failures)
        parts = await gather([fetch(), *asked])
        answered = {user_id for part in parts if part is not None for user_id in part.users}
        kept = _without(known.published, answered)
        signatures = await self._store.signatures_by(viewer, list(answered)) if answered else []
        parts = [kept, *parts, PublishedKeys(set(), [], [], signatures)]
        return Found(_together(part for part in parts if part is not None), failures)

    async def claim(self, wanted: Iterable[Wanted], seconds: float) -> tuple[dict[str, dict[str, Any]], Failures]:
        """One-time keys by user and device, each by its id."""
        failures: Failures = {}
        by_user: dict[str, dict[str, str]] = {}
        for want in wanted:
            by_user.setdefault(want.user_id, {})[want.device_id] = want.algorithm

        async def ask(server: str, users: list[str]) -> dict[str, dict[str, Any]]:
            of_server = {user_id: by_user[user_id] for user_id in users}
            return _claimed(await self._api().claim_user_keys(server, of_server, within=seconds), of_server)

        parts = await gather(self._of_servers(_by_server(by_user), ask, seconds, failures))
        return {user_id: keys for part in parts if part is not None for user_id, keys in part.items()}, failures

    async def keep_master_keys(self, viewer: str, user_ids: Collection[str]) -> None:
        """For the main process: has the keys of these users as such here, if they can be had, so that the viewer can
        sign them. Of users who share no room with this server, they are kept for that alone.
        """
        found = (await self.query(viewer, dict.fromkeys(user_ids, ()), seconds_of(None))).published
        keys: dict[str, Keys] = {}
        for key in found.cross_signing:
            keys.setdefault(key.user_id, Keys([], [])).keys.append(key)
        for signature in found.signatures:
            if signature.signer_user_id == signature.target_user_id and signature.target_user_id in keys:
                keys[signature.target_user_id].signatures.append(signature)
        await self._store.remember(keys)

    # ------------------------------------------------------------------------------------------------------------------

    async def _fetch(self, viewer: str, user_ids: list[str], seconds: float, failures: Failures) -> PublishedKeys:
        """Lists, by way of the main process. Those that fail are left as they were."""
        if not user_ids:
            return PublishedKeys(set(), [], [], [])
        try:
            problems = await self._in_time(self._main(FETCH, user_ids), seconds)
        except (TimeoutError, MatrixError):
            problems = dict.fromkeys(user_ids, _NO_ANSWER)
        for user_id, problem in problems.items():
            failures[domain_of(user_id)] = {"status": 503, "message": problem}
        known = await self._store.known([user_id for user_id in user_ids if user_id not in problems], viewer)
        return known.published

    def _of_servers(
        self,
        users: Mapping[str, list[str]],
        ask: Callable[[str, list[str]], Awaitable[T]],
        seconds: float,
        failures: Failures,
    ) -> list[Any]:
        """Asks all servers at once, as far as that is sensible; None in place of the answer of one that fails. Who has
        no turn in time is not asked."""
        slots = Slots(SERVERS_AT_ONCE, len(users))
        deadline = self._clock.seconds() + seconds

        async def one(server: str, of_server: list[str]) -> T | None:
            async with slots.taken():
                try:
                    if (left := deadline - self._clock.seconds()) <= 0:
                        raise TimeoutError
                    answer: T = await self._in_time(ask(server, of_server), left)
                    return answer
                except FederationError as error:
                    failures[server] = _failure(error)
                except TimeoutError:
                    failures[server] = {"status": 504, "message": _NO_ANSWER}
            return None

        return [one(server, of_server) for server, of_server in users.items()]

    async def _in_time(self, work: Any, seconds: float) -> Any:
        """Its result. Raises TimeoutError; the work then goes on by itself."""
        deferred: Deferred[Any] = Deferred.fromCoroutine(work)
        outcome: Deferred[Any] = Deferred()
        timer = self._clock.callLater(seconds, lambda: None if outcome.called else outcome.errback(TimeoutError()))

        def settle(result: Any) -> None:
            if not outcome.called:
                outcome.callback(result)  # a Failure is raised

        deferred.addBoth(settle)
        try:
            return await outcome
        finally:
            if timer.active():
                timer.cancel()


def _failure(error: FederationError) -> dict[str, Any]:
    return {"status": error.code if isinstance(error, Refused) else 503, "message": error.message}


def _by_server(user_ids: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user_id in user_ids:
        found.setdefault(domain_of(user_id), []).append(user_id)
    return found


def _divided(
    wanted: Mapping[str, Collection[str]], missing: Collection[str], strangers: Collection[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Users whose lists are to be fetched, and those, by server, whose keys alone are asked for."""
    lists: list[str] = []
    asked = [user_id for user_id in wanted if user_id in strangers]
    for users in _by_server(user_id for user_id in wanted if user_id in missing).values():
        lists += users[:LISTS_AT_ONCE]
        asked += users[LISTS_AT_ONCE:]
    return lists, _by_server(asked)


def _without(published: PublishedKeys, users: set[str]) -> PublishedKeys:
    return PublishedKeys(
        published.users - users,
        [each for each in published.devices if each.user_id not in users],
        [each for each in published.cross_signing if each.user_id not in users],
        [each for each in published.signatures if each.target_user_id not in users],
    )


def _together(parts: Iterable[PublishedKeys]) -> PublishedKeys:
    whole = PublishedKeys(set(), [], [], [])
    for part in parts:
        whole.users.update(part.users)
        whole.devices.extend(part.devices)
        whole.cross_signing.extend(part.cross_signing)
        whole.signatures.extend(part.signatures)
    return whole


def _claimed(answer: ClaimedKeys, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """One key for each device that was asked for, of the algorithm that was asked for."""
    found: dict[str, dict[str, Any]] = {}
    for user_id, devices in wanted.items():
        given = answer.one_time_keys.get(user_id, {})
        for device_id, algorithm in devices.items():
            keys = given.get(device_id)
            for key_id, key in keys.items() if isinstance(keys, dict) else ():
                if key_id.startswith(f"{algorithm}:") and is_id(key_id) and _is_key(key):
                    found.setdefault(user_id, {})[device_id] = {key_id: key}
                    break
    return found


def _is_key(key: object) -> bool:
    if isinstance(key, str):
        return len(key) <= MAX_KEY_BYTES
    return isinstance(key, dict) and isinstance(key.get("key"), str) and problem_of(key) is None
