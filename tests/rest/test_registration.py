"""Registration: what is asked of those who register, tokens and captchas, and that one session makes one account."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.handlers.registration_flows import Asked, registration_flows
from synapse.handlers.ui_stages.recaptcha import RecaptchaStage
from synapse.handlers.ui_stages.types import Attempt, Operation
from synapse.http.client import AnswerLate, ClientAnswer
from synapse.http.ratelimit import RateLimits
from synapse.rest.client.register import ANSWERED_AGAIN_MS
from synapse.storage.database import Database, Transaction
from tests.rest.accounts import SECRET, Server, admin_of, error

ADMIN = "/_synapse/admin/v1/registration_tokens"
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
DUMMY, TOKEN = "m.login.dummy", "m.login.registration_token"
EMAIL, MSISDN, CAPTCHA, TERMS = "m.login.email.identity", "m.login.msisdn", "m.login.recaptcha", "m.login.terms"


# -- flows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "flows"),
    [
        ({}, [[DUMMY]]),
        ({"captcha": True}, [[CAPTCHA, DUMMY]]),
        ({"token": True, "captcha": True, "terms": True}, [[TOKEN, CAPTCHA, TERMS, DUMMY]]),
        ({"offered": {"email"}}, [[DUMMY], [EMAIL]]),
        ({"offered": {"email", "msisdn"}}, [[DUMMY], [EMAIL], [MSISDN], [MSISDN, EMAIL]]),
        ({"offered": {"email", "msisdn"}, "required": {"email"}}, [[EMAIL], [MSISDN, EMAIL]]),
        ({"offered": {"email"}, "required": {"email"}, "terms": True}, [[TERMS, EMAIL]]),
        ({"offered": {"msisdn"}, "required": {"msisdn"}}, [[MSISDN]]),
        ({"offered": {"email", "msisdn"}, "required": {"email", "msisdn"}}, [[MSISDN, EMAIL]]),
    ],
)
def test_flows(asked: dict[str, Any], flows: list[list[str]]) -> None:
    sets = {name: frozenset(asked.pop(name, ())) for name in ("offered", "required")}
    nothing = {"token": False, "captcha": False, "terms": False}
    assert registration_flows(Asked(**{**nothing, **asked}, **sets)) == flows


# -- one session, one account ------------------------------------------------------------------------------------------


async def begun(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    reply = await server.call("POST", "/register", body)
    assert reply.code == 401, reply
    return {"type": DUMMY, "session": reply.json["session"]}


@pytest.mark.parametrize("name", [{}, {"username": "alice"}])
@pytest_twisted.ensureDeferred
async def test_who_repeats_the_last_step_gets_the_same_account(server: Server, name: dict[str, Any]) -> None:
    body = {**name, "password": "secret", "device_id": "PHONE"}
    auth = await begun(server, body)
    first = await server.call("POST", "/register", {**body, "auth": auth})
    again = await server.call("POST", "/register", {"auth": auth})
    assert (first.code, again.code) == (200, 200)
    assert again.json["user_id"] == first.json["user_id"]
    assert again.json["device_id"] == "PHONE"
    assert await server.is_logged_in(again.json["access_token"])
    assert not await server.is_logged_in(first.json["access_token"]), "the device has one token"
    with_it = await server.call("POST", "/register", {**body, "auth": auth})
    assert (with_it.code, with_it.json["user_id"]) == (200, first.json["user_id"])
    wrong = await server.call("POST", "/register", {**body, "password": "other", "auth": auth})
    assert error(wrong) == (403, "M_FORBIDDEN")
    server.clock.advance(ANSWERED_AGAIN_MS / 1000 + 1)
    assert error(await server.call("POST", "/register", {"auth": auth})) == (400, "M_UNKNOWN")


@pytest_twisted.ensureDeferred
async def test_a_password_that_came_with_the_last_step_may_be_repeated(server: Server) -> None:
    auth = await begun(server, {"username": "alice"})
    for _ in range(2):
        assert (await server.call("POST", "/register", {"password": "secret", "auth": auth})).code == 200


@pytest_twisted.ensureDeferred
async def test_a_session_gives_no_way_into_an_account_with_another_password(server: Server) -> None:
    auth = await begun(server, {"username": "alice", "password": "secret"})
    token = (await server.call("POST", "/register", {"auth": auth})).json["access_token"]
    proof = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "secret"}
    body = {"new_password": "better", "auth": proof}
    assert (await server.call("POST", "/account/password", body, token)).code == 200
    assert error(await server.call("POST", "/register", {"auth": auth})) == (400, "M_UNKNOWN")


@pytest_twisted.ensureDeferred
async def test_how_many_registrations_are_begun_is_limited_not_their_steps(database: Database) -> None:
    server = Server(database, limited=True)
    auth = await begun(server, {"username": "alice"})
    for _ in range(20):
        reply = await server.call("POST", "/register", {"auth": {"session": auth["session"]}})
        assert reply.code == 401
    for number in range(4):
        await begun(server, {"username": f"user{number}"})
    assert error(await server.call("POST", "/register", {"username": "bob"})) == (429, "M_LIMIT_EXCEEDED")
    assert error(await server.call("POST", "/register", {}, query={"kind": "guest"})) == (429, "M_LIMIT_EXCEEDED")
    assert (await server.call("POST", "/register", {"auth": auth})).code == 200


@pytest_twisted.ensureDeferred
async def test_without_login_a_repetition_logs_nobody_in(server: Server) -> None:
    auth = await begun(server, {"username": "alice", "inhibit_login": True})
    for _ in range(2):
        done = await server.call("POST", "/register", {"auth": auth})
        assert done.json == {"user_id": "@alice:test", "home_server": "test"}


@pytest.mark.parametrize("name", [{}, {"username": "alice"}])
@pytest_twisted.ensureDeferred
async def test_last_steps_at_once_make_one_account(server: Server, database: Database, name: dict[str, Any]) -> None:
    auth = await begun(server, name)
    calls = [Deferred.fromCoroutine(server.call("POST", "/register", {"auth": auth})) for _ in range(5)]
    replies = await gatherResults(calls)
    assert [reply.code for reply in replies] == [200] * 5
    assert len({reply.json["user_id"] for reply in replies}) == 1
    for reply in replies:
        assert await server.is_logged_in(reply.json["access_token"])

    def count(txn: Transaction) -> int:
        txn.execute("SELECT count(*) FROM users")
        return int(txn.one()[0])

    assert await database.read("test", count) == 1


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_taken_meanwhile(server: Server) -> None:
    auth = await begun(server, {"username": "alice"})
    await server.register("alice")
    assert error(await server.call("POST", "/register", {"auth": auth})) == (400, "M_USER_IN_USE")


@pytest_twisted.ensureDeferred
async def test_taken_names_may_be_kept_secret(database: Database) -> None:
    server = Server(database, inhibit_user_in_use_error=True)
    await server.register("taken")
    available = await server.call("GET", "/register/available", query={"username": "taken"})
    assert available.json == {"available": True}
    auth = await begun(server, {"username": "taken"})
    assert error(await server.call("POST", "/register", {"auth": auth})) == (400, "M_USER_IN_USE")


@pytest_twisted.ensureDeferred
async def test_nobody_gets_the_name_of_a_deactivated_user(server: Server) -> None:
    token = await server.register("alice")
    proof = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}
    assert (await server.call("POST", "/account/deactivate", {"auth": proof}, token)).code == 200
    body = {"username": "alice", "auth": {"type": DUMMY}}
    assert error(await server.call("POST", "/register", body)) == (400, "M_USER_IN_USE")


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(database: Database) -> Server:
    return Server(database, enable_registration_without_verification=False, registration_requires_token=True)


async def made(server: Server, **wish: Any) -> dict[str, Any]:
    reply = await server.call("POST", f"{ADMIN}/new", wish, await admin_of(server))
    assert reply.code == 200, reply
    return dict(reply.json)


async def is_valid(server: Server, token: str) -> bool:
    return bool((await server.call("GET", VALIDITY, query={"token": token})).json["valid"])


@pytest_twisted.ensureDeferred
async def test_a_token_lets_people_register_as_often_as_it_says(guarded: Server) -> None:
    token = (await made(guarded, uses_allowed=1))["token"]
    first = await guarded.call("POST", "/register", {"username": "alice"})
    assert first.json["flows"] == [{"stages": [TOKEN, DUMMY]}]
    session = first.json["session"]
    for wrong, errcode in (("nope", "M_UNAUTHORIZED"), ("n\x00", "M_UNAUTHORIZED"), ("x" * 65, "M_UNAUTHORIZED")):
        reply = await guarded.call("POST", "/register", {"auth": {"type": TOKEN, "token": wrong, "session": session}})
        assert (reply.code, reply.errcode, reply.json["completed"]) == (401, errcode, [])
    for nonsense, errcode in ((None, "M_MISSING_PARAM"), (5, "M_BAD_JSON")):
        auth = {"type": TOKEN, "token": nonsense, "session": session}
        assert error(await guarded.call("POST", "/register", {"auth": auth})) == (400, errcode)
    assert await is_valid(guarded, token)
    half = await guarded.call("POST", "/register", {"auth": {"type": TOKEN, "token": token, "session": session}})
    assert (half.code, half.json["completed"]) == (401, [TOKEN])
    shown = (await guarded.call("GET", f"{ADMIN}/{token}", user=await admin_of(guarded))).json
    assert (shown["pending"], shown["completed"]) == (1, 0)
    assert not await is_valid(guarded, token), "the only use is under way"
    done = await guarded.call("POST", "/register", {"auth": {"type": DUMMY, "session": session}})
    assert done.code == 200
    shown = (await guarded.call("GET", f"{ADMIN}/{token}", user=await admin_of(guarded))).json
    assert (shown["pending"], shown["completed"]) == (0, 1)
    assert not await is_valid(guarded, token)


@pytest_twisted.ensureDeferred
async def test_nobody_guesses_tokens(database: Database) -> None:
    server = Server(database, limited=True, registration_requires_token=True)
    first = await server.call("POST", "/register", {"username": "alice"})
    auth = {"type": TOKEN, "session": first.json["session"]}
    for _ in range(5):
        assert (await server.call("POST", "/register", {"auth": {**auth, "token": "guess"}})).code == 401
    assert error(await server.call("POST", "/register", {"auth": {**auth, "token": "guess"}})) == (
        *(429, "M_LIMIT_EXCEEDED"),
    )


@pytest_twisted.ensureDeferred
async def test_a_use_that_is_given_up_comes_back(guarded: Server) -> None:
    token = (await made(guarded, uses_allowed=1))["token"]
    await guarded.call("POST", "/register", {"auth": {"type": TOKEN, "token": token}})
    assert not await is_valid(guarded, token)
    guarded.clock.advance(24 * 3600 + 1)
    assert await is_valid(guarded, token)


@pytest_twisted.ensureDeferred
async def test_a_token_that_goes_meanwhile_makes_no_account(guarded: Server) -> None:
    token = (await made(guarded))["token"]
    half = await guarded.call("POST", "/register", {"username": "alice", "auth": {"type": TOKEN, "token": token}})
    gone = await guarded.call("DELETE", f"{ADMIN}/{token}", user=await admin_of(guarded))
    assert gone.json == {}
    auth = {"type": DUMMY, "session": half.json["session"]}
    assert error(await guarded.call("POST", "/register", {"auth": auth})) == (403, "M_FORBIDDEN")
    available = await guarded.call("GET", "/register/available", query={"username": "alice"})
    assert available.json == {"available": True}


@pytest_twisted.ensureDeferred
async def test_one_use_is_not_given_to_two(guarded: Server) -> None:
    token = (await made(guarded, uses_allowed=1))["token"]
    # Both begin while the token is good: the pending use of each is known to the other only afterwards.
    bodies = [{"username": name, "auth": {"type": TOKEN, "token": token}} for name in ("alice", "bob", "carol")]
    halves = await gatherResults([Deferred.fromCoroutine(guarded.call("POST", "/register", body)) for body in bodies])
    lasts = [
        {"auth": {"type": DUMMY, "session": half.json["session"]}}
        for half in halves
        if half.json["completed"] == [TOKEN]
    ]
    replies = await gatherResults([Deferred.fromCoroutine(guarded.call("POST", "/register", body)) for body in lasts])
    assert [reply.code for reply in replies].count(200) == 1


@pytest_twisted.ensureDeferred
async def test_tokens_expire(guarded: Server) -> None:
    soon = int(guarded.clock.seconds() * 1000) + 60_000
    token = (await made(guarded, token="abc", expiry_time=soon))["token"]
    assert await is_valid(guarded, token)
    guarded.clock.advance(61)
    assert not await is_valid(guarded, token)
    reply = await guarded.call("POST", "/register", {"auth": {"type": TOKEN, "token": token}})
    assert (reply.code, reply.errcode) == (401, "M_UNAUTHORIZED")


@pytest_twisted.ensureDeferred
async def test_administrators_keep_tokens(guarded: Server) -> None:
    admin = await admin_of(guarded)
    token = await made(guarded, token="abcd", uses_allowed=3)
    assert token == {"token": "abcd", "uses_allowed": 3, "pending": 0, "completed": 0, "expiry_time": None}
    assert len((await made(guarded))["token"]) == 16
    assert len((await made(guarded, length=64))["token"]) == 64
    changed = await guarded.call("PUT", f"{ADMIN}/abcd", {"uses_allowed": 0}, admin)
    assert changed.json == {**token, "uses_allowed": 0}
    changed = await guarded.call("PUT", f"{ADMIN}/abcd", {"expiry_time": None}, admin)
    assert changed.json == {**token, "uses_allowed": 0}, "what is not given stays"

    async def listed(**query: str) -> list[str]:
        reply = await guarded.call("GET", ADMIN, user=admin, query=query)
        return [one["token"] for one in reply.json["registration_tokens"]]

    assert len(await listed()) == 3
    assert await listed(valid="false") == ["abcd"]
    assert len(await listed(valid="true")) == 2
    unlimited = await guarded.call("PUT", f"{ADMIN}/abcd", {"uses_allowed": None}, admin)
    assert unlimited.json["uses_allowed"] is None
    assert (await guarded.call("DELETE", f"{ADMIN}/abcd", user=admin)).json == {}
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        assert error(await guarded.call(method, f"{ADMIN}/abcd", body, admin)) == (404, "M_NOT_FOUND")
        assert error(await guarded.call(method, f"{ADMIN}/a%20b", body, admin)) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    "wish",
    [
        *({"token": "taken"}, {"token": ""}, {"token": "a b"}, {"token": "x" * 65}, {"token": "ä"}),
        *({"length": 0}, {"length": 65}, {"uses_allowed": -1}, {"uses_allowed": 2**53}),
        *({"expiry_time": 1}, {"expiry_time": 2**60}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tokens_that_cannot_be(guarded: Server, wish: dict[str, Any]) -> None:
    admin = await admin_of(guarded)
    await made(guarded, token="taken")
    assert error(await guarded.call("POST", f"{ADMIN}/new", wish, admin)) == (400, "M_INVALID_PARAM")
    if "token" not in wish and "length" not in wish:
        assert error(await guarded.call("PUT", f"{ADMIN}/taken", wish, admin)) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_nobody_else_keeps_tokens(server: Server, database: Database) -> None:
    alice = await server.register("alice")
    assert error(await server.call("GET", ADMIN, user=alice)) == (403, "M_FORBIDDEN")
    assert error(await server.call("POST", f"{ADMIN}/new", {}, alice)) == (403, "M_FORBIDDEN")
    assert error(await server.call("GET", VALIDITY)) == (400, "M_MISSING_PARAM")
    closed = Server(database, enable_registration=False)
    assert error(await closed.call("GET", VALIDITY, query={"token": "x"})) == (403, "M_FORBIDDEN")


# -- captchas ----------------------------------------------------------------------------------------------------------


class Service:
    """A captcha's service that answers what it is told to."""

    def __init__(self, answer: Any = None, code: int = 200) -> None:
        self.answer = answer
        self.code = code
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []

    async def request(self, method: str, url: str, body: bytes, headers: Any, **limits: Any) -> ClientAnswer:
        self.asked.append((method, url, parse_qs(body.decode())))
        if self.answer is None:
            raise AnswerLate("too late")
        return ClientAnswer(self.code, {}, orjson.dumps(self.answer))


async def tried(service: Service, response: Any) -> Any:
    limits = RateLimits(lambda _: None, Clock())

    def client() -> Any:
        return service

    stage = RecaptchaStage(client, limits, "public", "private", "http://captcha/verify")
    assert stage.params() == {"public_key": "public"}
    attempt = Attempt(Operation("POST", "register", "", None), None, "10.1.2.3", "tests")
    return await stage.check({"response": response}, attempt)


@pytest_twisted.ensureDeferred
async def test_the_captchas_service_is_asked() -> None:
    service = Service({"success": True})
    assert await tried(service, "sol ved&") is True
    fields = {"secret": ["private"], "response": ["sol ved&"], "remoteip": ["10.1.2.3"]}
    assert service.asked == [("POST", "http://captcha/verify", fields)]


@pytest.mark.parametrize(
    ("service", "response", "expected"),
    [
        (Service({"success": False}), "x", (401, "M_CAPTCHA_INVALID")),
        (Service({"success": "yes"}), "x", (401, "M_CAPTCHA_INVALID")),
        (Service([]), "x", (401, "M_CAPTCHA_INVALID")),
        (Service({"success": True}, 500), "x", (401, "M_CAPTCHA_INVALID")),
        (Service(None), "x", (503, "M_UNKNOWN")),
        (Service({"success": True}), None, (401, "M_CAPTCHA_NEEDED")),
        (Service({"success": True}), "", (401, "M_CAPTCHA_NEEDED")),
        (Service({"success": True}), 5, (400, "M_BAD_JSON")),
        (Service({"success": True}), "x" * 20_000, (400, "M_BAD_JSON")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_captchas_that_are_not_solved(service: Service, response: Any, expected: tuple[int, str]) -> None:
    with pytest.raises(MatrixError) as caught:
        await tried(service, response)
    assert (caught.value.code, caught.value.errcode) == expected


@pytest_twisted.ensureDeferred
async def test_a_captcha_may_be_asked_of_everybody(database: Database) -> None:
    keys = {"recaptcha_public_key": "public", "recaptcha_private_key": "private"}
    server = Server(database, enable_registration_captcha=True, registration_shared_secret=SECRET, **keys)
    reply = await server.call("POST", "/register", {})
    assert reply.json["flows"] == [{"stages": [CAPTCHA, DUMMY]}]
    assert reply.json["params"] == {CAPTCHA: {"public_key": "public"}}
