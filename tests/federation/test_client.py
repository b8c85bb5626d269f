"""Requests to other servers: signed, made again where that helps, and not made to those that are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import verify_signed_json
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.federation.api import FederationApi
from synapse.federation.backoff import Schedule
from synapse.federation.client import FederationClient, Insistence, Retries, Settings
from synapse.federation.destinations import CACHE, Destinations
from synapse.federation.errors import BadAnswer, Denied, FederationError, Refused, Unreachable, matrix_error, refused
from synapse.federation.x_matrix import parse
from synapse.http.client import AnswerLate, AnswerLost, AnswerTooLarge, ClientAnswer, NotSent
from synapse.storage.database import Database
from synapse.storage.destinations import DestinationsStore
from synapse.util.caches import Caches
from tests.support.deferreds import started
from tests.support.world import World

KEY = generate_signing_key("k")
HERE, THERE = "here.test", "there.test"
MINUTE = 60.0

Told = ClientAnswer | Exception


def answer(code: int = 200, body: Any = None) -> ClientAnswer:
    return ClientAnswer(code, {}, body if isinstance(body, bytes) else orjson.dumps({} if body is None else body))


class Line:
    """In the place of the way to other servers: says what it is told to, the last again and again."""

    def __init__(self, *told: Told) -> None:
        self.told = list(told)
        self.sent: list[tuple[str, str, str, bytes | None, dict[str, str]]] = []
        self.options: list[dict[str, Any]] = []

    async def send(
        self, destination: str, method: str, path: str, body: bytes | None, headers: Any, **options: Any
    ) -> ClientAnswer:
        self.sent.append((destination, method, path, body, dict(headers)))
        self.options.append(options)
        told = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        if isinstance(told, Exception):
            raise told
        return told


class Process:
    """A process with what it knows of other servers; processes of one `Cluster` tell each other."""

    def __init__(self, database: Database, line: Line, clock: Clock, tell: Callable[[str], None], **more: Any) -> None:
        self.caches = Caches()

        async def told(cache: str, keys: list[str]) -> None:
            assert cache == CACHE
            for key in keys:
                tell(key)

        cache = self.caches.cache(CACHE, 100)
        self.destinations = Destinations(DestinationsStore(database), cache, told, Schedule(), clock)
        settings = Settings(timeout=7.0, short=Retries(2, 1.0), **more)
        self.client = FederationClient(HERE, KEY, line, clock, self.destinations, settings)
        self.api = FederationApi(self.client, self._in_thread)
        self.threads = 0

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        self.threads += 1
        return function(*args)

    async def ask(self, **options: Any) -> int:
        return (await self.client.request(THERE, "GET", "/_matrix/x", **options)).code


class Cluster:
    def __init__(self, database: Database, *told: Told, **more: Any) -> None:
        self.line = Line(*told)
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.processes: list[Process] = []
        for _ in range(2):
            self.processes.append(Process(database, self.line, self.clock, self._tell, **more))
        self.one, self.two = self.processes

    def _tell(self, key: str) -> None:
        for process in self.processes:
            process.caches.invalidate(CACHE, key)


async def unreachable(doing: Any) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await doing
    return caught.value


@pytest_twisted.ensureDeferred
async def test_requests_are_signed_for_their_server(database: Database) -> None:
    cluster = Cluster(database, answer())
    content = {"b": 1, "a": {"ü": 1.5, "n": 10**18}}
    await cluster.one.client.request(THERE, "PUT", "/_matrix/federation/v1/x?a=%20", content)
    destination, method, path, body, headers = cluster.line.sent[0]
    assert (destination, method, body) == (THERE, "PUT", '{"a":{"n":1000000000000000000,"ü":1.5},"b":1}'.encode())
    assert cluster.line.options == [{"within": 7.0, "max_answer": 8 << 20}]
    said = parse(headers["Authorization"])
    assert (said.origin, said.destination) == (HERE, THERE)
    request = {
        "method": method,
        "uri": path,
        "origin": HERE,
        "destination": THERE,
        "content": content,
        "signatures": {HERE: said.signatures},
    }
    verify_signed_json(request, HERE, get_verify_key(KEY))
    await cluster.one.client.request(THERE, "GET", "/_matrix/key/v2/server", signed=False)
    assert cluster.line.sent[1][3:] == (None, {})


@pytest.mark.parametrize("told", [NotSent(""), AnswerLost(""), AnswerLate(""), answer(502), answer(503), answer(504)])
@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_is_left_alone_by_all_processes(database: Database, told: Told) -> None:
    cluster = Cluster(database, told)
    changes: list[str | None] = []
    cluster.two.destinations.on_change(changes.append)
    assert await cluster.two.destinations.ready([THERE, "other.test"]) == [THERE, "other.test"]
    error = await unreachable(cluster.one.ask())
    assert (error.late, error.asked) == (isinstance(told, AnswerLate), True)
    assert changes == [THERE]
    for process in cluster.processes:
        error = await unreachable(process.ask())
        assert (error.asked, str(error)) == (False, "there.test does not answer; it is tried again in 1 s.")
        assert await process.destinations.ready([THERE, "other.test"]) == ["other.test"]
    assert len(cluster.line.sent) == 1
    cluster.clock.advance(1)
    await unreachable(cluster.two.ask())
    cluster.clock.advance(1)
    error = await unreachable(cluster.one.ask())
    assert (error.asked, str(error)) == (False, "there.test does not answer; it is tried again in 1 s.")
    cluster.clock.advance(1)
    cluster.line.told = [answer()]
    assert await cluster.one.ask() == 200
    assert await cluster.two.ask() == 200
    assert changes == [THERE] * 3
    assert await DestinationsStore(database).failing(10) == []


@pytest.mark.parametrize("told", [answer(200), answer(404), answer(401), answer(429), answer(500), AnswerTooLarge("")])
@pytest_twisted.ensureDeferred
async def test_who_answers_anything_is_there(database: Database, told: Told) -> None:
    cluster = Cluster(database, told)
    for _ in range(2):
        if isinstance(told, Exception):
            with pytest.raises(BadAnswer):
                await cluster.one.ask()
        else:
            assert await cluster.one.ask() == told.code
    assert len(cluster.line.sent) == 2


@pytest_twisted.ensureDeferred
async def test_a_servers_answer_costs_no_statement(database: Database) -> None:
    cluster = Cluster(database, answer())
    await cluster.one.ask()
    with database.counted() as counts:
        await cluster.one.ask()
        cluster.one.destinations.heard_from(THERE)
    assert counts.round_trips == 0


@pytest_twisted.ensureDeferred
async def test_a_users_wish_is_tried_all_the_same(database: Database) -> None:
    cluster = Cluster(database, NotSent(""))
    await unreachable(cluster.one.ask())
    await unreachable(cluster.one.ask(despite_backoff=True))
    await unreachable(cluster.one.api.for_users.version(THERE))
    assert len(cluster.line.sent) == 3
    cluster.clock.advance(1)
    assert await cluster.two.destinations.retry_at(THERE) is None, "nobody waits longer for that"


@pytest_twisted.ensureDeferred
async def test_who_was_asked_again_and_again_is_left_alone_for_long(database: Database) -> None:
    cluster = Cluster(database, NotSent(""))
    await cluster.one.destinations.failed(THERE)
    error = await unreachable(cluster.two.ask())
    assert (error.asked, str(error)) == (False, "there.test does not answer; it is tried again in 10 min.")
    cluster.clock.advance(10 * MINUTE)
    await cluster.two.destinations.failed(THERE)
    cluster.clock.advance(19 * MINUTE)
    assert not (await unreachable(cluster.one.ask())).asked
    cluster.clock.advance(1 * MINUTE)
    assert (await unreachable(cluster.one.ask())).asked


@pytest_twisted.ensureDeferred
async def test_who_speaks_is_asked_again(database: Database) -> None:
    cluster = Cluster(database, NotSent(""))
    await cluster.one.destinations.failed(THERE)
    cluster.clock.advance(2 * MINUTE)
    changed: Deferred[Any] = Deferred()
    cluster.one.destinations.on_change(lambda name: changed.called or changed.callback(name))
    cluster.two.destinations.heard_from(THERE)
    assert await changed == THERE
    assert (await unreachable(cluster.one.ask())).asked


@pytest_twisted.ensureDeferred
async def test_who_goes_on_speaking_costs_nothing_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(database, NotSent(""))
    destinations = cluster.one.destinations
    await destinations.failed(THERE)
    cluster.clock.advance(2 * MINUTE)
    changed: Deferred[Any] = Deferred()
    destinations.on_change(lambda name: changed.called or changed.callback(name))
    destinations.heard_from(THERE)
    await changed
    assert await destinations.retry_at(THERE) is None
    asked: list[str] = []
    monkeypatch.setattr(destinations._store, "change", lambda name, _: asked.append(name))
    destinations.heard_from(THERE)
    assert not asked


@pytest_twisted.ensureDeferred
async def test_failures_that_others_keep_are_not_noted(database: Database) -> None:
    cluster = Cluster(database, NotSent(""))
    await unreachable(cluster.one.api.server_keys(THERE))
    await unreachable(cluster.one.api.server_keys(THERE))
    assert len(cluster.line.sent) == 2


@pytest_twisted.ensureDeferred
async def test_servers_are_forgotten_when_nobody_wants_them(database: Database) -> None:
    cluster = Cluster(database, NotSent(""))
    await unreachable(cluster.one.ask())
    cluster.clock.advance(30 * 86_400)
    await cluster.one.destinations.forget_old()
    assert len(await DestinationsStore(database).failing(10)) == 1
    cluster.clock.advance(11 * MINUTE)
    changes: list[str | None] = []
    cluster.two.destinations.on_change(changes.append)
    await cluster.one.destinations.forget_old()
    assert await DestinationsStore(database).failing(10) == []
    assert changes == [THERE], "whoever remembers it is told"


@pytest_twisted.ensureDeferred
async def test_servers_that_anybody_may_name_are_forgotten_soon_and_are_never_many(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(database, NotSent(""), answer())
    one, store = cluster.one.destinations, DestinationsStore(database)
    world = World(database)
    await world.member(await world.room("@a:test"), f"@b:{THERE}", "join")
    await unreachable(cluster.one.ask())
    for number in range(5):
        cluster.clock.advance(1)
        await one.failed(f"{number}.test")

    async def kept() -> list[str]:
        return [name for name, _ in await store.failing(10)]

    await one.forget_strangers()
    assert len(await kept()) == 6, "they are not to be tried yet"
    monkeypatch.setattr("synapse.federation.destinations.STRANGERS", 2)
    assert await one.retry_at("0.test") is not None
    await one.forget_strangers()
    assert await kept() == ["3.test", "4.test", THERE], "those tried last, and those that share a room"
    assert await one.retry_at("0.test") is None
    cluster.clock.advance(71 * MINUTE)
    await one.forget_strangers()
    assert await kept() == [THERE]


@pytest_twisted.ensureDeferred
async def test_what_somebody_waits_for_is_tried_again(database: Database) -> None:
    cluster = Cluster(database, NotSent(""), answer(503), answer())
    await cluster.one.destinations.ready([THERE])  # so that nothing has to be read
    asking = started(cluster.one.ask(insistence=Insistence.SHORT))
    cluster.clock.advance(0.5)
    cluster.clock.advance(1.0)
    assert await asking == 200
    assert len(cluster.line.sent) == 3

    cluster.line.told = [AnswerLate("")]
    await unreachable(cluster.one.ask(insistence=Insistence.SHORT))
    assert len(cluster.line.sent) == 4, "who was late is not waited for again"


@pytest_twisted.ensureDeferred
async def test_who_is_never_asked(database: Database) -> None:
    cluster = Cluster(database, answer(), allowed=frozenset({"good.test"}))
    for server in (THERE, HERE):
        error = await unreachable(cluster.one.client.request(server, "GET", "/_matrix/x"))
        assert not error.asked
    assert (await cluster.one.client.request("good.test", "GET", "/_matrix/x")).code == 200
    assert [sent[0] for sent in cluster.line.sent] == ["good.test"]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unreachable("a", "away"), "502 M_CONNECTION_FAILED: away"),
        (Unreachable("a", "late", late=True), "504 M_CONNECTION_TIMEOUT: late"),
        (Denied("a"), "403 M_FORBIDDEN: This server does not federate with a."),
        (BadAnswer("a", "bad"), "502 M_CONNECTION_FAILED: bad"),
        (refused("a", 403, {"errcode": "M_FORBIDDEN", "error": "no"}), "403 M_FORBIDDEN: no"),
        (refused("a", 404, {"errcode": "M_NOT_FOUND", "error": "x" * 5000}), "404 M_NOT_FOUND: " + "x" * 1024),
        (
            refused("a", 429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 10**12}),
            "429 M_LIMIT_EXCEEDED: a refuses",
        ),
        (refused("a", 401, {"errcode": "M_UNKNOWN_TOKEN", "error": "log out"}), "502 M_UNKNOWN: a answers: log out"),
        (refused("a", 403, {"errcode": "M_USER_LOCKED", "error": "log out"}), "502 M_UNKNOWN: a answers: log out"),
        (refused("a", 404, {"errcode": "M_UNRECOGNIZED", "error": "what?"}), "502 M_UNKNOWN: a answers: what?"),
        (refused("a", 500, {"errcode": "<script>"}), "502 M_UNKNOWN: a answers: a refuses, with status 500."),
        (refused("a", 400, {"errcode": 5, "error": []}), "400 M_UNKNOWN: a refuses, with status 400."),
    ],
)
def test_what_clients_are_told(error: FederationError, expected: str) -> None:
    told = matrix_error(error)
    assert isinstance(told, MatrixError)
    assert str(told).startswith(expected)
    assert told.fields.get("retry_after_ms", 0) <= 3_600_000


def test_the_version_of_a_room_that_we_do_not_know_is_handed_on() -> None:
    body = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "no", "room_version": "99", "more": 1}
    assert matrix_error(refused("a", 400, body)).fields == {"room_version": "99"}
    assert isinstance(refused("a", 400, body), Refused)
