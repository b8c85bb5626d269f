"""Servers with keys, for tests of those who ask for them: what they publish, and what notaries tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from signedjson.key import encode_verify_key_base64, generate_signing_key
from signedjson.sign import sign_json
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.federation.errors import FederationError, Refused, Unreachable
from synapse.federation.key_fetching import KeyFetcher, Notary
from synapse.federation.keyring import KeyRing, own_keys
from synapse.storage.database import Database
from synapse.storage.server_keys import ServerKeysStore
from synapse.util.caches import LruCache

HERE = "here.test"
NOW = 1_700_000_000_000
DAY = 86_400_000


def base64_of(key: Any) -> str:
    return str(encode_verify_key_base64(key.verify_key))


def published(server: str, *keys: Any, until: int = NOW + DAY, old: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a server answers whose keys these are."""
    answer: dict[str, Any] = {
        "server_name": server,
        "valid_until_ts": until,
        "verify_keys": {f"ed25519:{key.version}": {"key": base64_of(key)} for key in keys},
        "old_verify_keys": old or {},
    }
    for key in keys:
        answer = sign_json(answer, server, key)
    return answer


class Servers:
    """In the place of `FederationApi`: servers by name, with what they answer; `asked` is whom we asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answers: dict[str, dict[str, Any] | FederationError] = {}
        self.notarised: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.questions: list[tuple[str, dict[str, Any]]] = []
        self.hold: dict[str, Deferred[None]] = {}
        self.under_way = self.most_under_way = 0

    async def server_keys(self, server: str, *, within: float) -> dict[str, Any]:
        self.asked.append(server)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if server in self.hold:
            await self.hold[server]
        self.under_way -= 1
        answer = self.answers.get(server)
        if answer is None:
            raise Unreachable(server, f"{server} cannot be reached.")
        if isinstance(answer, FederationError):
            raise answer
        return answer

    async def notarised_keys_of_many(
        self, notary: str, wanted: Mapping[str, Mapping[str, int]], *, within: float
    ) -> list[dict[str, Any]]:
        self.questions.append((notary, {server: dict(keys) for server, keys in wanted.items()}))
        if notary not in self.notarised:
            raise Refused(notary, 404, "M_UNRECOGNIZED", "No notary.", {})
        return self.notarised[notary]


class Ring:
    """A key ring of `here.test`, over a real database."""

    def __init__(self, database: Database, *notaries: Notary, servers: Servers | None = None) -> None:
        self.clock = Clock() if servers is None else servers.clock
        if servers is None:
            self.clock.advance(NOW / 1000)
        self.servers = servers or Servers(self.clock)
        self.key = generate_signing_key("here")
        self.store = ServerKeysStore(database)
        api: Any = self.servers
        self.fetcher = KeyFetcher(HERE, api, self.store, notaries, self.clock)
        own = own_keys([("ed25519:here", bytes(self.key.verify_key), None)])
        self.threads = 0
        self.ring = KeyRing(HERE, own, self.store, self.fetcher, LruCache("keys", 100), self._in_thread, self.clock)

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        self.threads += 1
        return function(*args)
