"""Interactive authentication: sessions, the order of stages, and what of them counts where."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.handlers.ui_auth import SESSION_LIFETIME_MS, AuthenticationNeeded, Flows, Operation, Proven, UiAuth
from synapse.handlers.ui_stages.dummy import DummyStage
from synapse.handlers.ui_stages.types import Attempt
from synapse.http.request import RawRequest, Request, Requester
from synapse.storage.database import Database, Transaction
from synapse.storage.ui_auth import UiAuthStore
from tests.rest.accounts import Server, admin_of, error

DUMMY = {"type": "m.login.dummy"}
ALICE, BOB = "@alice:test", "@bob:test"


class Riddle:
    """A stage with an answer. `open_to` are those who can prove by it who they are."""

    def __init__(self, kind: str, open_to: set[str | None]) -> None:
        self.kind = kind
        self.open_to = open_to
        self.attempts: list[Attempt] = []

    def params(self) -> dict[str, Any] | None:
        return {"question": "what has feet in the morning?"}

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        self.attempts.append(attempt)
        if auth.get("answer") == "never":
            raise forbidden("The gate is shut.")
        if auth.get("answer") != 42:
            raise MatrixError(401, Codes.UNAUTHORIZED, "That is not the answer.")
        return "solved"

    async def is_open_to(self, user_id: str | None) -> bool:
        return user_id in self.open_to


RIDDLE, OTHER = "org.example.riddle", "org.example.other"
FLOWS = [[RIDDLE, "m.login.dummy"], [OTHER]]


class Stages:
    """Interactive authentication with stages of our own, and the ways to ask for it."""

    def __init__(self, server: Server, timeout_ms: int = 0) -> None:
        self.riddle = Riddle(RIDDLE, {ALICE, None})
        self.other = Riddle(OTHER, {BOB})
        self.server = server
        # Another process has an object of its own.
        self.processes = [self._make(timeout_ms), self._make(timeout_ms)]
        self.uses = 0

    def _make(self, timeout_ms: int) -> UiAuth:
        store, server = UiAuthStore(self.server.database), self.server
        stages = (self.riddle, self.other, DummyStage())
        return UiAuth(store, stages, server.accounts.passwords, server.clock, timeout_ms=timeout_ms)

    async def check(
        self,
        body: dict[str, Any],
        flows: Flows = FLOWS,
        user: str | None = None,
        device: str = "PHONE",
        endpoint: str = "something",
        **options: Any,
    ) -> Proven:
        """Asks the processes in turns."""
        request = Request(RawRequest("POST", "/", {"user-agent": "tests"}, client_ip="10.1.2.3"))
        request.requester = None if user is None else Requester(user, device)
        self.uses += 1
        operation = Operation("POST", endpoint, "do something", user, **options)
        return await self.processes[self.uses % 2].check(operation, body, flows, request)

    async def asked(self, body: dict[str, Any], **kw: Any) -> dict[str, Any]:
        """What is still asked for."""
        with pytest.raises(AuthenticationNeeded) as caught:
            await self.check(body, **kw)
        assert caught.value.code == 401
        return caught.value.body()

    async def refused(self, body: dict[str, Any], **kw: Any) -> tuple[int, str]:
        with pytest.raises(MatrixError) as caught:
            await self.check(body, **kw)
        assert not isinstance(caught.value, AuthenticationNeeded)
        return caught.value.code, caught.value.errcode


@pytest_twisted.ensureDeferred
async def test_stages_are_passed_one_after_another_on_different_processes(server: Server) -> None:
    stages = Stages(server)
    first = await stages.asked({"a": 1})
    assert first["flows"] == [{"stages": [RIDDLE, "m.login.dummy"]}, {"stages": [OTHER]}]
    question = {"question": "what has feet in the morning?"}
    assert first["params"] == {RIDDLE: question, OTHER: question}
    assert first["completed"] == []
    assert "errcode" not in first
    session = first["session"]
    early = await stages.asked({"auth": {**DUMMY, "session": session}})
    assert (early["errcode"], early["completed"]) == ("M_FORBIDDEN", []), "the order matters"
    wrong = await stages.asked({"a": 1, "auth": {"type": RIDDLE, "answer": 41, "session": session}})
    assert (wrong["errcode"], wrong["error"]) == ("M_UNAUTHORIZED", "That is not the answer.")
    never = {"auth": {"type": RIDDLE, "answer": "never", "session": session}}
    assert await stages.refused(never) == (403, "M_FORBIDDEN")
    half = await stages.asked({"a": 1, "auth": {"type": RIDDLE, "answer": 42, "session": session}})
    assert (half["completed"], half["session"]) == ([RIDDLE], session)
    assert "errcode" not in half
    again = await stages.asked({"auth": {"type": RIDDLE, "answer": 41, "session": session}})
    assert again == half, "what is passed cannot be tried again"
    looked = await stages.asked({"auth": {"session": session}})
    assert looked == half
    proven = await stages.check({"auth": {**DUMMY, "session": session}})
    assert proven == Proven({"a": 1}, {RIDDLE: "solved", "m.login.dummy": True}, None)
    attempt = stages.riddle.attempts[0]
    assert (attempt.session_id, attempt.client_ip, attempt.user_agent) == (session, "10.1.2.3", "tests")
    assert await stages.refused({"auth": {**DUMMY, "session": session}}) == (400, "M_UNKNOWN")


@pytest.mark.parametrize("auth", [None, {}])
@pytest_twisted.ensureDeferred
async def test_who_brings_no_proof_is_told_what_is_needed(server: Server, auth: Any) -> None:
    asked = await Stages(server).asked({"a": 1, "auth": auth})
    assert (asked["completed"], "errcode" in asked) == ([], False)


@pytest_twisted.ensureDeferred
async def test_a_proof_may_come_with_the_first_request(server: Server) -> None:
    stages = Stages(server)
    half = await stages.asked({"a": 1, "auth": {"type": RIDDLE, "answer": 42}})
    assert half["completed"] == [RIDDLE]
    proven = await stages.check({"auth": {**DUMMY, "session": half["session"]}})
    assert proven.proofs[RIDDLE] == "solved"
    assert (await stages.check({"a": 1, "auth": {"type": OTHER, "answer": 42}})).proofs == {OTHER: "solved"}


@pytest_twisted.ensureDeferred
async def test_sessions_of_the_release_before_go_on(server: Server) -> None:
    stages = Stages(server)
    session = (await stages.asked({"x": 1}))["session"]

    def as_before(txn: Transaction) -> None:
        txn.execute("UPDATE ui_auth_sessions SET server_dict = '{\"secrets\": []}'")

    await server.database.write("test", as_before)
    failed = await stages.asked({"auth": {"type": RIDDLE, "session": session, "answer": 41}})
    assert failed["errcode"] == "M_UNAUTHORIZED"
    await stages.asked({"auth": {"type": RIDDLE, "session": session, "answer": 42}})
    assert (await stages.check({"auth": {**DUMMY, "session": session}})).body == {"x": 1}


@pytest_twisted.ensureDeferred
async def test_a_stage_may_be_passed_elsewhere(server: Server) -> None:
    stages = Stages(server)
    session = (await stages.asked({"a": 1}))["session"]
    await stages.processes[0].complete(session, OTHER, "by a link in a mail")
    proven = await stages.check({"auth": {"session": session}})
    assert proven == Proven({"a": 1}, {OTHER: "by a link in a mail"}, None)
    with pytest.raises(MatrixError, match="begin again"):
        await stages.processes[0].complete(session, OTHER, "twice")


@pytest_twisted.ensureDeferred
async def test_a_session_is_its_users_and_its_operations(server: Server) -> None:
    stages = Stages(server)
    session = (await stages.asked({"a": 1}, user=ALICE))["session"]
    auth = {"auth": {"type": OTHER, "answer": 42, "session": session}}
    assert await stages.refused(auth, user=BOB) == (403, "M_FORBIDDEN")
    assert await stages.refused(auth) == (403, "M_FORBIDDEN")
    assert await stages.refused(auth, user=ALICE, endpoint="else") == (403, "M_FORBIDDEN")
    assert await stages.refused({**auth, "a": 2}, user=ALICE) == (403, "M_FORBIDDEN")
    assert await stages.refused({**auth, "b": 1}, user=ALICE) == (403, "M_FORBIDDEN")
    assert stages.other.attempts == []
    assert (await stages.check(auth, user=ALICE)).body == {"a": 1}


@pytest_twisted.ensureDeferred
async def test_a_session_that_nobody_began_belongs_to_who_passes_a_stage(server: Server) -> None:
    stages = Stages(server)
    session = (await stages.asked({}))["session"]
    await stages.asked({"auth": {"type": RIDDLE, "answer": 42, "session": session}}, user=ALICE)
    assert await stages.refused({"auth": {**DUMMY, "session": session}}, user=BOB) == (403, "M_FORBIDDEN")
    assert (await stages.check({"auth": {**DUMMY, "session": session}}, user=ALICE)).proofs[RIDDLE] == "solved"


@pytest_twisted.ensureDeferred
async def test_of_two_last_steps_one_counts(server: Server) -> None:
    stages = Stages(server)
    session = (await stages.asked({}))["session"]
    last = {"auth": {"type": OTHER, "answer": 42, "session": session}}
    steps = [Deferred.fromCoroutine(_outcome(stages, last)) for _ in range(4)]
    outcomes = await gatherResults(steps)
    assert sorted(outcomes) == [(200, ""), *[(400, "M_UNKNOWN")] * 3]


async def _outcome(stages: Stages, body: dict[str, Any]) -> tuple[int, str]:
    try:
        await stages.check(body)
    except MatrixError as error:
        return error.code, error.errcode
    return 200, ""


@pytest_twisted.ensureDeferred
async def test_how_users_prove_to_be_themselves(server: Server) -> None:
    stages = Stages(server)
    ui_auth = stages.processes[0]
    assert await ui_auth.own_flows(ALICE) == [[RIDDLE]]
    assert await ui_auth.own_flows(BOB) == [[OTHER]]
    assert await ui_auth.own_flows(None) == [[RIDDLE]]
    with pytest.raises(MatrixError, match="no way of proving") as caught:
        await ui_auth.own_flows("@carol:test")
    assert caught.value.code == 403


@pytest_twisted.ensureDeferred
async def test_a_fresh_authentication_counts_for_the_next_operation(server: Server) -> None:
    stages = Stages(server, timeout_ms=15_000)
    assert await _needs_proof(stages)
    await stages.check({"auth": {"type": OTHER, "answer": 42}}, user=ALICE)
    assert await stages.check({"a": 1}, user=ALICE, reusable=True) == Proven({"a": 1}, {}, None)
    assert await _needs_proof(stages, reusable=False)
    assert await _needs_proof(stages, device="LAPTOP")
    assert await _needs_proof(stages, user=BOB)
    server.clock.advance(16)
    assert await _needs_proof(stages)


async def _needs_proof(stages: Stages, **kw: Any) -> bool:
    return bool(await stages.asked({"a": 1}, **{"user": ALICE, "reusable": True, **kw}))


@pytest_twisted.ensureDeferred
async def test_without_the_option_every_operation_asks(server: Server) -> None:
    stages = Stages(server)
    await stages.check({"auth": {"type": OTHER, "answer": 42}}, user=ALICE)
    assert await _needs_proof(stages)


# -- at the endpoints --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_password_of_a_registration_need_not_be_sent_twice(server: Server, database: Database) -> None:
    body = {"username": "alice", "password": "secret"}
    first = await server.call("POST", "/register", body)
    auth = {**DUMMY, "session": first.json["session"]}

    def stored(txn: Transaction) -> str:
        txn.execute("SELECT s::text FROM ui_auth_sessions s")
        return str(txn.one()[0])

    assert "secret" not in (await database.read("test", stored)).replace("secrets", "")
    other = await server.call("POST", "/register", {**body, "password": "public", "auth": auth})
    assert error(other) == (403, "M_FORBIDDEN")
    done = await server.call("POST", "/register", {"auth": auth})
    assert done.code == 200
    assert (await server.login("alice", "secret")).code == 200


@pytest_twisted.ensureDeferred
async def test_a_password_may_come_with_the_last_step(server: Server) -> None:
    first = await server.call("POST", "/register", {"username": "alice"})
    auth = {**DUMMY, "session": first.json["session"]}
    done = await server.call("POST", "/register", {"password": "secret", "auth": auth})
    assert done.code == 200
    assert (await server.login("alice", "secret")).code == 200


@pytest_twisted.ensureDeferred
async def test_who_registers_may_ask_what_is_needed_before_they_choose_a_name(database: Database) -> None:
    """As many clients do: an empty request, whose session then goes on with a name and a password."""
    server = Server(database, registration_requires_token=True, enable_registration_without_verification=None)
    made = await server.call(
        "POST", "/_synapse/admin/v1/registration_tokens/new", {"token": "abcd"}, await admin_of(server)
    )
    assert made.code == 200
    session = {"session": (await server.call("POST", "/register", {})).json["session"]}
    body = {"username": "alice", "password": "secret", "device_id": "PHONE"}
    wrong = {"type": "m.login.registration_token", "token": "wrong", **session}
    assert (await server.call("POST", "/register", {**body, "auth": wrong})).code == 401
    changed = await server.call("POST", "/register", {"username": "bob", "auth": {**wrong, "token": "abcd"}})
    assert error(changed) == (403, "M_FORBIDDEN")
    assert (await server.call("POST", "/register", {"auth": {**wrong, "token": "abcd"}})).code == 401
    done = await server.call("POST", "/register", {"auth": {**DUMMY, **session}})
    assert (done.json["user_id"], done.json["device_id"]) == ("@alice:test", "PHONE")
    assert (await server.login("alice", "secret")).code == 200


@pytest_twisted.ensureDeferred
async def test_a_session_is_for_what_it_was_begun_for(server: Server) -> None:
    token = await server.register("alice")
    first = await server.call("POST", "/register", {"username": "bob"})
    auth = {**DUMMY, "session": first.json["session"]}
    changed = await server.call("POST", "/register", {"username": "carol", "auth": auth})
    assert error(changed) == (403, "M_FORBIDDEN")
    elsewhere = await server.call("POST", "/delete_devices", {"devices": [], "auth": auth}, token)
    assert error(elsewhere) == (403, "M_FORBIDDEN")
    server.clock.advance(SESSION_LIFETIME_MS / 1000 + 1)
    late = await server.call("POST", "/register", {"username": "bob", "auth": auth})
    assert error(late) == (400, "M_UNKNOWN")


@pytest_twisted.ensureDeferred
async def test_who_has_no_password_is_told_that_nothing_can_be_proven(server: Server) -> None:
    reply = await server.call("POST", "/register", {"username": "alice", "auth": DUMMY})
    token = reply.json["access_token"]
    refused = await server.call("DELETE", f"/devices/{reply.json['device_id']}", user=token)
    assert error(refused) == (403, "M_FORBIDDEN")
    assert "no way of proving" in refused.json["error"]


@pytest_twisted.ensureDeferred
async def test_devices_may_go_one_after_another_with_one_proof(database: Database) -> None:
    server = Server(database, ui_auth={"session_timeout": "15s"})
    token = await server.register("alice")
    for name in ("A", "B"):
        await server.login("alice", device_id=name)
    identifier = {"type": "m.id.user", "user": "alice"}
    proof = {"type": "m.login.password", "identifier": identifier, "password": "password"}
    assert (await server.call("DELETE", "/devices/A", {"auth": proof}, token)).code == 200
    assert (await server.call("DELETE", "/devices/B", {}, token)).code == 200
    assert (await server.call("POST", "/account/password", {"new_password": "new"}, token)).code == 401
    assert (await server.call("POST", "/account/deactivate", {}, token)).code == 401
