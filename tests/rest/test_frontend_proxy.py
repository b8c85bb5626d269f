"""What a frontend_proxy answers by itself, and what it passes through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.handlers.device_changes import DeviceChanges
from synapse.handlers.frontend_proxy import FrontendProxy
from synapse.handlers.keys import Keys
from synapse.http.client import AnswerLate, AnswerLost, ClientAnswer, NotSent
from synapse.http.request import RawRequest
from synapse.rest.client.frontend_proxy import PresenceStub
from synapse.rest.client.keys import KeyEndpoints
from synapse.storage.database import Database, Transaction
from synapse.storage.device_keys import DeviceKeyStore
from synapse.storage.one_time_keys import OneTimeKeyStore
from synapse.storage.pool import PoolSettings
from synapse.sync.keys_left import CACHE, KeysLeftCache
from synapse.util.caches import Cache
from tests.rest.accounts import C
from tests.rest.driver import Driver
from tests.rest.test_keys import identity
from tests.support.homeserver import cluster

ALICE = "@alice:test"
FROM_MAIN = {"errcode": "M_UNKNOWN", "error": "from main"}


class MainProcess:
    """Records what reaches the main process's client listener."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.answer: ClientAnswer | Exception = ClientAnswer(
            418, {"content-type": "application/json", "retry-after": "3", "server": "x"}, orjson.dumps(FROM_MAIN)
        )

    async def request(
        self, method: str, path: str, body: bytes, headers: tuple[tuple[str, str], ...], **_: Any
    ) -> ClientAnswer:
        self.requests.append((method, path, body, dict(headers)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NoCalls:
    """A worker that has no way to the main process but HTTP."""

    def expose(self, *_: Any) -> None:
        pass

    async def __call__(self, *_: Any) -> None:
        raise AssertionError("no call was expected")


class Worker:
    """A frontend_proxy."""

    def __init__(self, database: Database) -> None:
        self.main = MainProcess()
        self.store, self.identities = OneTimeKeyStore(database), DeviceKeyStore(database)
        self.cache: Cache[str, Any] = Cache(CACHE, 10)
        self.forgotten: list[str] = []
        calls: Any = NoCalls()
        changes = DeviceChanges(self.identities, calls, calls, self._invalidate, Clock())
        proxy = FrontendProxy(self.main)  # type: ignore[arg-type]  # it has the one method that is used
        keys = Keys(self.store, KeysLeftCache(self.store, self.cache), changes, calls, Clock(), "test")
        self.driver = Driver(KeyEndpoints(keys, calls, calls, proxy), PresenceStub(proxy))

    async def _invalidate(self, _name: str, keys: Any) -> None:
        self.forgotten += keys
        for key in keys:
            self.cache.invalidate(key)


def _make_device(txn: Transaction) -> None:
    txn.execute("INSERT INTO devices (user_id, device_id, created_ts) VALUES (%s, 'DEVICE', 1)", (ALICE,))


@pytest_twisted.async_yield_fixture
async def worker(database: Database) -> AsyncIterator[Worker]:
    await database.write("test", _make_device)
    yield Worker(database)


@pytest_twisted.ensureDeferred
async def test_uploads_of_one_time_keys_stay_here(worker: Worker) -> None:
    for body, counts in (({}, {}), ({"one_time_keys": {"x:1": "key"}}, {"x": 1})):
        reply = await worker.driver.call("POST", f"{C}/keys/upload", body, user=ALICE)
        assert reply.json == {"one_time_key_counts": counts}
    assert worker.main.requests == []
    assert worker.forgotten == [f"{ALICE} DEVICE"]


@pytest_twisted.ensureDeferred
async def test_what_is_there_already_costs_the_main_process_nothing(worker: Worker, database: Database) -> None:
    text = orjson.dumps(identity(), option=orjson.OPT_SORT_KEYS).decode()
    await worker.identities.put(ALICE, "DEVICE", text, 1, 1)
    keys = {"one_time_keys": {"x:1": "key"}, "fallback_keys": {"x:f": "key"}}
    assert (await worker.driver.call("POST", f"{C}/keys/upload", keys, user=ALICE)).code == 200
    worker.forgotten.clear()
    with database.counted() as counts:
        for body in ({}, {"device_keys": identity()}, {"device_keys": identity(unsigned={"a": 1})}):
            reply = await worker.driver.call("POST", f"{C}/keys/upload", body, user=ALICE)
            assert reply.json == {"one_time_key_counts": {"x": 1}}
    assert counts.statements_read == counts.statements_written == 0
    assert (await worker.driver.call("POST", f"{C}/keys/upload", keys, user=ALICE)).code == 200
    assert worker.main.requests == worker.forgotten == [], "nobody has to be told of anything"
    other = {"device_keys": identity(algorithms=["another"])}
    await worker.driver.call("POST", f"{C}/keys/upload", other, user=ALICE)
    assert len(worker.main.requests) == 1


@pytest_twisted.ensureDeferred
async def test_new_identity_keys_are_passed_on_as_they_came(worker: Worker) -> None:
    body = b'{"device_keys": ' + orjson.dumps(identity()) + b"  }"
    headers = {"user-agent": "nio", "connection": "close", "accept-encoding": "gzip", "content-length": "999"}
    reply = await worker.driver.call("POST", f"{C}/keys/upload", body, user=ALICE, headers=headers, query={"a": "b c"})
    assert (reply.code, reply.json, reply.headers["retry-after"]) == (418, FROM_MAIN, "3")
    assert "server" not in reply.headers
    ((method, path, passed, passed_headers),) = worker.main.requests
    assert (method, path, passed) == ("POST", f"{C}/keys/upload?a=b+c", body)
    assert passed_headers == {
        "authorization": f"Bearer {ALICE}",
        "user-agent": "nio",
        "x-forwarded-for": "127.0.0.1",
    }


@pytest.mark.parametrize(("failure", "code"), [(NotSent("x"), 502), (AnswerLost("x"), 502), (AnswerLate("x"), 504)])
@pytest_twisted.ensureDeferred
async def test_a_main_process_that_does_not_answer(worker: Worker, failure: Exception, code: int) -> None:
    worker.main.answer = failure
    reply = await worker.driver.call("POST", f"{C}/keys/upload", {"device_keys": identity()}, user=ALICE)
    assert (reply.code, reply.errcode) == (code, "M_UNKNOWN")
    assert "main process" in reply.json["error"]


@pytest_twisted.ensureDeferred
async def test_a_bad_upload_does_not_reach_the_main_process(worker: Worker) -> None:
    reply = await worker.driver.call("POST", f"{C}/keys/upload", {"device_keys": {}}, user=ALICE)
    assert (reply.code, reply.errcode) == (400, "M_MISSING_PARAM")
    assert worker.main.requests == []


@pytest_twisted.ensureDeferred
async def test_presence_is_read_through_and_not_set(worker: Worker) -> None:
    path = f"{C}/presence/{ALICE}/status"
    assert (await worker.driver.call("GET", path, user=ALICE)).json == FROM_MAIN
    assert (await worker.driver.call("PUT", path, {"presence": "online"}, user=ALICE)).json == {}
    assert (await worker.driver.call("PUT", path, {}, user="@bob:test")).errcode == "M_FORBIDDEN"
    assert (await worker.driver.call("PUT", path, b"x", user=ALICE)).errcode == "M_NOT_JSON"
    assert (await worker.driver.call("PUT", path, {"presence": "busy"}, user=ALICE)).errcode == "M_INVALID_PARAM"
    assert (await worker.driver.call("PUT", path, {}, user=ALICE)).errcode == "M_MISSING_PARAM"
    assert len(worker.main.requests) == 1


@pytest_twisted.ensureDeferred
async def test_uploads_in_a_cluster(database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A main process and a frontend_proxy that is connected to it: who is asked what."""
    path = f"{C}/keys/upload"
    async with cluster(database_settings, "frontend_proxy") as hs:
        token = await hs.main.client.register("alice")
        code, me = await hs.main.client.get(f"{C}/account/whoami", token)
        assert code == 200
        worker = hs["frontend_proxy"].client
        asked: list[str] = []
        handle = hs.main.hs.router.handle

        async def counted(request: RawRequest, *match: Any) -> Any:
            asked.append(request.target)
            return await handle(request, *match)

        monkeypatch.setattr(hs.main.hs.router, "handle", counted)
        device = {"device_keys": identity(device=me["device_id"])}
        assert await worker.post(path, device, token) == (200, {"one_time_key_counts": {}})
        assert asked == [path], "new identity keys are the main process's"
        await hs.caught_up()
        keys = {"one_time_keys": {"x:1": "key"}}
        assert await worker.post(path, {**device, **keys}, token) == (200, {"one_time_key_counts": {"x": 1}})
        await hs.caught_up()
        asked.clear()
        with hs.main.hs.database.counted() as of_main, hs["frontend_proxy"].hs.database.counted() as own:
            for body in ({}, device, device):
                assert await worker.post(path, body, token) == (200, {"one_time_key_counts": {"x": 1}})
        assert asked == []
        assert not of_main.sql
        assert not own.sql
        claim = {"one_time_keys": {ALICE: {me["device_id"]: "x"}}}
        code, answer = await hs.main.client.post(f"{C}/keys/claim", claim, token)
        assert (code, answer["one_time_keys"]) == (200, {ALICE: {me["device_id"]: {"x:1": "key"}}})
        await hs.caught_up()
        assert await worker.post(path, {}, token) == (200, {"one_time_key_counts": {}}), "it has heard of the claim"
