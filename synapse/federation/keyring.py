"""Whose signature is it? The keys of servers, of which there are three memories (this process, the database, their own
servers and the notaries), and the checks that need them.

A key is asked for as of a time: what was signed after the key's validity is not believed. Room versions before 5 know
no validity; their events are checked as of the beginning of time.

Server-server API, "Retrieving server keys", "Validating hashes and signatures on received events"; room version 5.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from synapse.api.identifiers import is_server_name
from synapse.events.hashes import essential_bytes
from synapse.events.signing import SignatureError, required_signers, signatures_by, verify
from synapse.federation.published import BadKeys, canonical_of, verify_key_of
from synapse.util.concurrency import gather, spawn
from synapse.util.problems import Problem, log_failure

if TYPE_CHECKING:
    from signedjson.types import VerifyKey

    from synapse.events.event import Event
    from synapse.storage.server_keys import ServerKeysStore, StoredKey
    from synapse.util.caches import LruCache
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_SIGNATURES: Final = 10
"""How many signatures by one server are looked at."""

AT_ONCE: Final = 4
"""So few events are checked where one is; more of them on threads, in pieces of PIECE."""

PIECE: Final = 50
USED_MS: Final = 7 * 24 * 3600 * 1000
REMEMBERED: Final = 50_000

Keys = Mapping[str, "StoredKey"]
Lacking = Mapping[str, Mapping[str, int]]
"""By server and key id: as of when the key must be valid."""

FOREVER: Final = 2**63 - 1


class KeyUnavailable(SignatureError):
    """The key of a signature is not to be had, or was not valid then. The text is a sentence."""


class Fetcher(Protocol):
    """Gets keys from elsewhere."""

    async def fetch(self, lacking: Lacking, asked_by: str | None = None) -> set[str]:
        """Asks for keys, for the sake of what a server has brought, and stores them; the servers of which there is
        news."""


class _Signed(NamedTuple):
    """What a server has signed: signatures by key id, as of a time."""

    server: str
    signatures: Mapping[str, str]
    at: int


class KeyRing:
    """Keys of servers, and signatures that are checked with them.

    :param own: this server's keys, old ones included.
    :param cache: remembers the keys of servers.
    :param in_thread: runs a function on another thread.
    """

    def __init__(
        self,
        server_name: str,
        own: Keys,
        store: ServerKeysStore,
        fetcher: Fetcher,
        cache: LruCache[str, Keys],
        in_thread: Callable[..., Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._server_name = server_name
        self._own = own
        self._store = store
        self._fetcher = fetcher
        self._cache = cache
        self._in_thread = in_thread
        self._clock = clock
        self._touched: dict[str, int] = {}  # when this process last said that a server's keys are needed

    async def key(self, server_name: str, key_id: str, at: int) -> VerifyKey:
        """A key that was valid at that time (milliseconds). Raises KeyUnavailable."""
        known = await self._known({server_name: [({key_id: ""}, at)]})
        return _usable(known[server_name], server_name, key_id, at)

    async def verify(self, server_name: str, signed_json: Mapping[str, Any], minimum_valid_until_ts: int) -> None:
        """Checks that a JSON object (no event) bears a right signature of the server, by a key that is valid at least
        until then. Raises SignatureError."""
        try:
            message = canonical_of(signed_json)
        except BadKeys as error:
            raise SignatureError(str(error)) from error
        await self.verify_message(server_name, message, signatures_by(signed_json, server_name), minimum_valid_until_ts)

    async def verify_message(
        self, server_name: str, message: bytes, signatures: Mapping[str, str], minimum_valid_until_ts: int
    ) -> None:
        """The same for bytes and the server's signatures of them, by key id."""
        some = dict(list(signatures.items())[:MAX_SIGNATURES])
        if not some or not is_server_name(server_name):
            raise SignatureError(f"There is no signature of {server_name}.")
        known = await self._known({server_name: [(some, minimum_valid_until_ts)]})
        signed = _Signed(server_name, some, minimum_valid_until_ts)
        _check(message, signed, known[server_name])

    async def verify_events(self, events: Collection[Event], asked_by: str | None = None) -> set[str]:
        """The ids of those events that lack a right signature of a server that must have signed them.

        Their format is checked already. Keys that are lacking are fetched for all servers together, for the sake
        of `asked_by`, the server that has brought the events. Of copies of one event that differ in their signatures,
        all count as failed where one does.
        """
        wanted: dict[str, list[tuple[Mapping[str, str], int]]] = {}
        jobs: list[tuple[Event, list[_Signed]]] = []
        failed: set[str] = set()
        for event in events:
            signed = _signatures_of(event)
            if signed is None:
                failed.add(event.event_id)
                continue
            jobs.append((event, signed))
            for each in signed:
                wanted.setdefault(each.server, []).append((each.signatures, each.at))
        known = await self._known(wanted, asked_by)
        if len(jobs) <= AT_ONCE:
            return failed | _failing(jobs, known)
        pieces = [jobs[start : start + PIECE] for start in range(0, len(jobs), PIECE)]
        return failed.union(*await gather(self._failing(piece, known) for piece in pieces))

    def is_at_a_loss(self, event: Event) -> bool:
        """Whether of a server that must have signed the event no key is known: it has not been reached yet, it seems.
        For an event that `verify_events` has failed."""
        return any(
            server != self._server_name and is_server_name(server) and not self._cache.get(server)
            for server in required_signers(event.raw, event.room_version)
        )

    async def _failing(self, jobs: Sequence[tuple[Event, list[_Signed]]], known: Mapping[str, Keys]) -> set[str]:
        found: set[str] = await self._in_thread(_failing, jobs, known)
        return found

    # -- where keys are ------------------------------------------------------------------------------------------------

    async def _known(
        self, wanted: Mapping[str, Sequence[tuple[Mapping[str, str], int]]], asked_by: str | None = None
    ) -> dict[str, Keys]:
        """The keys of servers, among them those that are wanted, as far as they are to be had.

        `wanted`: by server, signatures (of which one must be by a usable key) and as of when.
        """
        known: dict[str, Keys] = {}
        for server in wanted:
            keys = self._own if server == self._server_name else self._cache.get(server)
            if keys is not None:
                known[server] = keys
        unread = [server for server in wanted if server not in known or self._lacks(known, server, wanted[server])]
        # What this process remembers may be older than what another has written since.
        known |= await self._read([server for server in unread if server != self._server_name])
        lacking = {
            server: lacks
            for server in unread
            if server != self._server_name and (lacks := self._lacks(known, server, wanted[server]))
        }
        if lacking:
            known |= await self._read(list(await self._fetcher.fetch(lacking, asked_by)))
        return known

    def _lacks(
        self, known: Mapping[str, Keys], server: str, wanted: Iterable[tuple[Mapping[str, str], int]]
    ) -> dict[str, int]:
        keys = known.get(server, {})
        lacks: dict[str, int] = {}
        for signatures, at in wanted:
            if not any(key_id in keys and keys[key_id].good_until >= at for key_id in signatures):
                for key_id in signatures:
                    lacks[key_id] = max(at, lacks.get(key_id, 0))
        return lacks

    async def _read(self, servers: list[str]) -> dict[str, Keys]:
        if not servers:
            return {}
        found = await self._store.get_many(servers)
        for server, keys in found.items():
            self._cache.set(server, keys)
        self._touch([server for server, keys in found.items() if keys])
        return {**found}

    def _touch(self, servers: list[str]) -> None:
        """Keeps the keys from being forgotten, which nobody waits for; once in a week."""
        now = int(self._clock.seconds() * 1000)
        due = [server for server in servers if self._touched.get(server, 0) < now - USED_MS]
        if due:
            spawn(self._tell_used(due, now))
        for server in due:
            self._touched.pop(server, None)
            self._touched[server] = now
        while len(self._touched) > REMEMBERED:
            del self._touched[next(iter(self._touched))]

    async def _tell_used(self, servers: list[str], now: int) -> None:
        try:
            await self._store.used(servers, now)
        except Problem:
            logger.debug("It was not written down that the keys of %d servers are needed", len(servers))
        except Exception as error:
            log_failure(logger, error, "It was not written down that the keys of %d servers are needed", len(servers))


def own_keys(keys: Iterable[tuple[str, bytes, int | None]]) -> dict[str, StoredKey]:
    """This server's own keys of their ids, bytes, and when (milliseconds) they went out of use."""
    from synapse.storage.server_keys import StoredKey

    return {
        key_id: StoredKey(key, FOREVER if expired is None else expired, expired is not None)
        for key_id, key, expired in keys
    }


def _usable(keys: Keys, server: str, key_id: str, at: int) -> VerifyKey:
    key = keys.get(key_id)
    if key is None:
        raise KeyUnavailable(f"The key {key_id} of {server} could not be found.")
    if key.good_until < at:
        raise KeyUnavailable(f"The key {key_id} of {server} was not valid any more.")
    try:
        return verify_key_of(key_id, key.verify_key)
    except ValueError as error:
        raise KeyUnavailable(f"The key {key_id} of {server} is not one.") from error


def _check(message: bytes, signed: _Signed, keys: Keys) -> None:
    """One signature that is right suffices. Raises SignatureError with what is wrong with the last."""
    problem = SignatureError(f"There is no signature of {signed.server}.")
    for key_id, signature in signed.signatures.items():
        try:
            verify(message, signature, _usable(keys, signed.server, key_id, signed.at))
        except SignatureError as error:
            problem = error
        else:
            return
    raise problem


def _check_event(message: bytes, signed: _Signed, keys: Keys) -> None:
    """All signatures by keys that are known, and were valid then, must be right, and there must be one; the others are
    passed over. Raises SignatureError."""
    is_signed = False
    for key_id, signature in signed.signatures.items():
        try:
            key = _usable(keys, signed.server, key_id, signed.at)
        except KeyUnavailable:
            continue
        verify(message, signature, key)
        is_signed = True
    if not is_signed:
        raise SignatureError(f"There is no signature of {signed.server} by a key that is known.")


def _signatures_of(event: Event) -> list[_Signed] | None:
    """The signatures that an event must bear; None where a server has not signed it at all."""
    at = event.origin_server_ts if event.room_version.enforce_key_validity else 0
    found = []
    for server in required_signers(event.raw, event.room_version):
        signatures = dict(list(signatures_by(event.raw, server).items())[:MAX_SIGNATURES])
        if not signatures or not is_server_name(server):
            return None
        found.append(_Signed(server, signatures, at))
    return found


def _failing(jobs: Sequence[tuple[Event, list[_Signed]]], known: Mapping[str, Keys]) -> set[str]:
    failed = set()
    for event, signatures in jobs:
        message = essential_bytes(event.raw, event.room_version)
        try:
            for signed in signatures:
                _check_event(message, signed, known.get(signed.server, {}))
        except SignatureError:
            failed.add(event.event_id)
    return failed
