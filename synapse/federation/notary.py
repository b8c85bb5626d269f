"""This server as a notary: the keys of others as they published them, under this server's signature too.

Anybody may ask, unsigned, so what one question can set in motion is bounded: the servers that are asked (each so often,
as `key_fetching` has it), and the size of the answer. What a server said last is told also when it is gone.

Server-server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import invalid_param, too_large
from synapse.api.identifiers import is_server_name
from synapse.events import canonical

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.federation.keyring import Fetcher, Lacking
    from synapse.storage.server_keys import ServerKeysStore, ToldKey
    from synapse.util.clock import Clock

MAX_SERVERS: Final = 100
MAX_KEYS: Final = 20
"""How many keys of one server may be asked for, and how many answers of it are told."""

MAX_BYTES: Final = 4 << 20

ANY: Final = ""

Wanted = Mapping[str, Mapping[str, int | None]]
"""By server and key id: until when (milliseconds) the keys should be valid, None for now.

The id ANY, or none at all, stands for whatever keys the server has.
"""


class Notary:
    """Answers `/_matrix/key/v2/query`.

    :param own: this server's published keys, in JSON.
    """

    def __init__(
        self,
        server_name: str,
        key: SigningKey,
        own: Callable[[], bytes],
        store: ServerKeysStore,
        fetcher: Fetcher,
        in_thread: Callable[..., Awaitable[Any]],
        clock: Clock,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._own = own
        self._store = store
        self._fetcher = fetcher
        self._in_thread = in_thread
        self._clock = clock

    async def query(self, wanted: Wanted) -> list[dict[str, Any]]:
        """The answers that published the keys, countersigned; none for servers that are unknown and do not answer.

        Raises MatrixError (400 M_INVALID_PARAM, 413 M_TOO_LARGE).
        """
        if len(wanted) > MAX_SERVERS:
            raise too_large(f"The keys of {MAX_SERVERS} servers may be asked for at once.")
        for server, keys in wanted.items():
            if not is_server_name(server):
                raise invalid_param(f"'{server[:80]}' is not a server name.")
            if len(keys) > MAX_KEYS:
                raise too_large(f"{MAX_KEYS} keys of a server may be asked for at once.")
        now = int(self._clock.seconds() * 1000)
        others = {server: keys for server, keys in wanted.items() if server != self._server_name}
        known = await self._store.told(others)
        lacking: Lacking = {
            server: {
                key_id: now if until is None else until for key_id, until in others[server].items() if key_id != ANY
            }
            for server, told in known.items()
            if _is_lacking(told, others[server], now)
        }
        if lacking:
            await self._fetcher.fetch(lacking)
            known |= await self._store.told(lacking)
        answers = [self._own().decode()] if self._server_name in wanted else []
        answers += await self._store.answers(_chosen(known, others))
        found: list[dict[str, Any]] = await self._in_thread(self._countersigned, answers)
        return found

    def _countersigned(self, answers: list[str]) -> list[dict[str, Any]]:
        from signedjson.sign import sign_json

        signed = []
        for text in answers:
            answer: dict[str, Any] = canonical.parse_lenient(text)
            is_ours = answer["server_name"] == self._server_name
            signed.append(answer if is_ours else sign_json(answer, self._server_name, self._key))
        return signed


def _is_lacking(told: Mapping[str, ToldKey], keys: Mapping[str, int | None], now: int) -> bool:
    """Whether the server is to be asked before its keys are told."""
    for key_id, until in (keys or {ANY: None}).items():
        some = told.values() if key_id == ANY else [told[key_id]] if key_id in told else []
        if not any(_is_fresh(key, now if until is None else until, now) for key in some):
            return True
    return False


def _is_fresh(key: ToldKey, until: int, now: int) -> bool:
    """Whether an answer serves: valid for long enough, and in the first half of its life unless an old one will do."""
    if key.until < until:
        return False
    return until < now or now <= key.ts + (key.until - key.ts) // 2


def _chosen(known: Mapping[str, Mapping[str, ToldKey]], wanted: Wanted) -> list[tuple[str, str]]:
    """The servers and key ids whose answers are told, as many as fit into one of ours."""
    chosen: list[tuple[str, str]] = []
    size = 0
    for server, told in known.items():
        for key_id in _of_server(told, wanted[server]):
            size += told[key_id].size
            if size > MAX_BYTES:
                return chosen
            chosen.append((server, key_id))
    return chosen


def _of_server(told: Mapping[str, ToldKey], keys: Mapping[str, int | None]) -> list[str]:
    """A key of each answer that published these keys; of the newest where none of them is known, or none is named."""
    newest_first = sorted(told, key=lambda key_id: -told[key_id].until)
    named = {told[key_id]: key_id for key_id in reversed(newest_first) if key_id in keys}
    return list(reversed(named.values()))[:MAX_KEYS] or newest_first[:1]
