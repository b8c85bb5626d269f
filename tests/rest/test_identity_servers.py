"""Identity servers over real HTTPS: addresses bound and unbound, phone numbers that one checks; and text messages."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from unpaddedbase64 import decode_base64

from synapse.http.addresses import AddressFilter
from synapse.http.outside import OutsideClient, Trust
from synapse.storage.database import Database
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply
from tests.support.elsewhere import Asked, Certificates, Elsewhere, Told, elsewhere
from tests.support.reactor import real_reactor

ALICE = "@alice:test"
ADDRESS = "Alice@Example.org"
SECRET = "monkeys_are_GREAT"
API = "/_matrix/identity/v2"
BIND, UNBIND, DELETE = "/account/3pid/bind", "/account/3pid/unbind", "/account/3pid/delete"
NAMED = {"medium": "email", "address": "alice@EXAMPLE.org"}


class World:
    """A server of ours, and one elsewhere that answers as it is told to, by path; `bound` is what it tells others."""

    def __init__(self, server: Server, there: Elsewhere) -> None:
        self.server = server
        self.there = there
        self.bound: dict[str, str] = {}
        self.instead: dict[str, Told] = {}

    @property
    def name(self) -> str:
        return self.there.name

    async def answer(self, asked: Asked) -> Told:
        if (told := self.instead.get(asked.path)) is not None:
            return told
        if asked.path == f"{API}/3pid/bind":
            if asked.headers.get("authorization") != "Bearer swordfish":
                return Told(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Who are you?"})
            if asked.json["sid"] != "good":
                return Told(400, {"errcode": "M_SESSION_NOT_VALIDATED", "error": "Not yet"})
            self.bound[ADDRESS.casefold()] = asked.json["mxid"]
            return Told(200, {"medium": "email", "address": ADDRESS.casefold(), "mxid": asked.json["mxid"]})
        if asked.path == f"{API}/3pid/unbind":
            self._check_signature(asked)
            if self.bound.get(asked.json["threepid"]["address"]) != asked.json["mxid"]:
                return Told(404, b"")
            del self.bound[asked.json["threepid"]["address"]]
            return Told(200, {})
        raise AssertionError(asked)

    def _check_signature(self, asked: Asked) -> None:
        scheme, _, rest = asked.headers["authorization"].partition(" ")
        parts = dict(part.split("=", 1) for part in rest.split(","))
        origin, destination, key_id, signature = (
            parts[name].strip('"') for name in ("origin", "destination", "key", "sig")
        )
        assert (scheme, origin, destination) == ("X-Matrix", "test", self.name)
        keys_of_ours = self.server.federation.server_keys.published()
        keys = json.loads(keys_of_ours)["verify_keys"]
        key = decode_verify_key_bytes(key_id, decode_base64(keys[key_id]["key"]))
        signed = {
            "method": "POST",
            "uri": asked.path,
            "origin": "test",
            "destination": self.name,
            "content": asked.json,
            "signatures": {"test": {key_id: signature}},
        }
        verify_signed_json(signed, "test", key)

    async def bind(self, token: str, **more: Any) -> Reply:
        body = {"id_server": self.name, "id_access_token": "swordfish", "sid": "good", "client_secret": SECRET, **more}
        return await self.server.call("POST", BIND, body, token)


@asynccontextmanager
async def world(database: Database, tmp_path: Path, **options: Any) -> AsyncIterator[World]:
    async def answer(asked: Asked) -> Told:
        try:
            return await made.answer(asked)
        except Exception:  # a test that hangs tells less than one that fails
            logging.exception("The server elsewhere failed")
            return Told(500)

    async with elsewhere(Certificates(tmp_path), answer) as there:
        for name, value in options.items():
            if isinstance(value, dict):
                options[name] = {inner: text.replace("THERE", there.name) for inner, text in value.items()}
        server = Server(database, **options)
        made = World(server, there)
        client = OutsideClient(real_reactor(), AddressFilter(()), Trust(verify=False))
        server.accounts.contacts.identity_client = server.accounts.contacts.service_client = client
        yield made
        await client.close()


def auth() -> dict[str, Any]:
    return {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}


@pytest.mark.parametrize("way", ["named", "remembered", "deleted", "deactivated", "deactivated by an administrator"])
@pytest_twisted.ensureDeferred
async def test_an_address_is_bound_and_unbound(database: Database, tmp_path: Path, way: str) -> None:
    async with world(database, tmp_path) as it:
        token = await it.server.register("alice")
        assert (await it.bind(token)).json == {}
        assert it.bound == {"alice@example.org": ALICE}
        if way == "deactivated":
            reply = await it.server.call("POST", "/account/deactivate", {"auth": auth()}, token)
        elif way == "deactivated by an administrator":
            await it.server.register("root")
            await database.write("test", lambda txn: txn.execute("UPDATE users SET admin = user_id LIKE '@root:%'"))
            admin = (await it.server.login("root")).json["access_token"]
            reply = await it.server.call("POST", f"/_synapse/admin/v1/deactivate/{ALICE}", {}, admin)
        else:
            body = {**NAMED, **({"id_server": it.name} if way == "named" else {})}
            reply = await it.server.call("POST", DELETE if way == "deleted" else UNBIND, body, token)
        assert reply.json == {"id_server_unbind_result": "success"}
        assert it.bound == {}
        assert await it.server.accounts.contacts.store.bindings(ALICE) == []


@pytest_twisted.ensureDeferred
async def test_what_was_bound_behind_our_back(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as it:
        token = await it.server.register("alice")
        it.bound["alice@example.org"] = ALICE
        for path in (UNBIND, DELETE):
            reply = await it.server.call("POST", path, NAMED, token)
            assert reply.json == {"id_server_unbind_result": "no-support"}
        assert it.there.asked == [], "nobody knows whom to ask"
        await it.server.accounts.contacts.store.add(ALICE, "email", "alice@example.org", 1, 1)
        body = {"auth": auth(), "id_server": it.name}
        reply = await it.server.call("POST", "/account/deactivate", body, token)
        assert (reply.json, it.bound) == ({"id_server_unbind_result": "success"}, {})


@pytest_twisted.ensureDeferred
async def test_what_identity_servers_refuse(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as it:
        token = await it.server.register("alice")
        assert error(await it.bind(token, sid="bad")) == (400, "M_SESSION_NOT_VALIDATED")
        assert error(await it.bind(token, id_access_token="wrong")) == (403, "M_FORBIDDEN")
        assert error(await it.bind(token, id_access_token="a\r\nb")) == (400, "M_INVALID_PARAM")
        assert error(await it.bind(token, id_server="http://x")) == (400, "M_INVALID_PARAM")
        assert error(await it.bind(token, id_server="localhost:1")) == (400, "M_UNKNOWN")
        it.instead[f"{API}/3pid/bind"] = Told(404, {"errcode": "M_NO_VALID_SESSION", "error": "No"})
        assert error(await it.bind(token)) == (404, "M_NO_VALID_SESSION")
        for odd in ({}, {"medium": "email", "address": "x" * 5000}, {"medium": "pigeon", "address": "x"}):
            it.instead[f"{API}/3pid/bind"] = Told(200, odd)
            assert (await it.bind(token)).code == 200
        assert await it.server.accounts.contacts.store.bindings(ALICE) == []
        it.instead.clear()
        await it.bind(token)
        unbind, body = f"{API}/3pid/unbind", {**NAMED, "id_server": it.name}
        for code in (400, 404, 501):
            it.instead[unbind] = Told(code, b"<html>")
            assert (await it.server.call("POST", UNBIND, body, token)).json["id_server_unbind_result"] == "no-support"
        it.instead[unbind] = Told(403, {"errcode": "M_FORBIDDEN", "error": "No"})
        assert error(await it.server.call("POST", UNBIND, body, token)) == (403, "M_FORBIDDEN")
        assert (await it.server.call("POST", DELETE, body, token)).json == {"id_server_unbind_result": "no-support"}
        reply = await it.server.call("POST", "/account/deactivate", {"auth": auth()}, token)
        assert (reply.code, reply.json) == (200, {"id_server_unbind_result": "no-support"})


@pytest_twisted.ensureDeferred
async def test_identity_servers_that_are_not_trusted(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path, trusted_third_party_id_servers=["id.example.org"]) as it:
        token = await it.server.register("alice")
        assert error(await it.bind(token)) == (400, "M_SERVER_NOT_TRUSTED")
        for path in (UNBIND, DELETE):
            reply = await it.server.call("POST", path, {**NAMED, "id_server": it.name}, token)
            assert error(reply) == (400, "M_SERVER_NOT_TRUSTED")
        body = {"auth": auth(), "id_server": it.name}
        assert error(await it.server.call("POST", "/account/deactivate", body, token)) == (400, "M_SERVER_NOT_TRUSTED")
        assert await it.server.is_logged_in(token), "nothing was done"
        assert it.there.asked == []


# -- phone numbers -----------------------------------------------------------------------------------------------------


async def request(it: World, attempt: int = 1, number: str = "07700 900001") -> Reply:
    body = {"client_secret": SECRET, "country": "GB", "phone_number": number, "send_attempt": attempt}
    return await it.server.call("POST", "/account/3pid/msisdn/requestToken", body)


async def submit(it: World, reply: Reply, code: str) -> Reply:
    url = reply.json["submit_url"]
    assert url.startswith("https://test/")
    body = {"sid": reply.json["sid"], "client_secret": SECRET, "token": code}
    return await it.server.call("POST", url.removeprefix("https://test"), body)


async def numbers(it: World, reply: Reply) -> list[str]:
    """What the account has after an attempt to add what the session proves."""
    token = (await it.server.login("alice")).json["access_token"]
    body = {"sid": reply.json["sid"], "client_secret": SECRET, "auth": auth()}
    await it.server.call("POST", "/account/3pid/add", body, token)
    return [one["address"] for one in (await it.server.call("GET", "/account/3pid", user=token)).json["threepids"]]


@pytest_twisted.ensureDeferred
async def test_a_number_is_proved_by_a_text_message(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path, sms={"url": "https://THERE/send?x=1", "secret": "shared"}) as it:
        await it.server.register("alice")
        it.instead["/send"] = Told(202)
        reply = await request(it)
        assert (await request(it)).json == reply.json
        (asked,) = it.there.asked
        assert (asked.method, asked.query, asked.headers["authorization"]) == ("POST", "x=1", "Bearer shared")
        assert asked.json["to"] == "+447700900001"
        code, _, text = asked.json["text"].partition(" ")
        assert text == "is your code for test. Do not tell it to anybody who asks you for it."
        assert await numbers(it, reply) == []
        assert error(await submit(it, reply, "")) == (400, "M_TOKEN_INCORRECT")
        assert (await submit(it, reply, code)).json == {"success": True}
        assert await numbers(it, reply) == ["447700900001"]


@pytest_twisted.ensureDeferred
async def test_a_password_is_reset_by_a_text_message(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path, sms={"url": "https://THERE/send", "secret": "shared"}) as it:
        token = await it.server.register("alice")
        it.instead["/send"] = Told(202)
        body = {"client_secret": SECRET, "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
        path = "/account/password/msisdn/requestToken"
        assert error(await it.server.call("POST", path, body)) == (400, "M_THREEPID_NOT_FOUND")
        await it.server.accounts.contacts.store.add(ALICE, "msisdn", "447700900001", 1, 1)
        reply = await it.server.call("POST", path, body)
        assert (await submit(it, reply, it.there.asked[-1].json["text"][:6])).code == 200
        creds = {"sid": reply.json["sid"], "client_secret": SECRET}
        reset = {"new_password": "better", "auth": {"type": "m.login.msisdn", "threepid_creds": creds}}
        assert (await it.server.call("POST", "/account/password", {**reset, "logout_devices": False})).json == {}
        assert await it.server.is_logged_in(token)
        assert (await it.server.login("alice", "better")).code == 200


@pytest_twisted.ensureDeferred
async def test_text_messages_that_are_not_sent(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path, sms={"url": "https://THERE/send", "secret": "shared"}) as it:
        for told, expected in [
            (Told(400, b"no such number"), (400, "M_INVALID_PARAM")),
            (Told(500, b"oops"), (503, "M_UNKNOWN")),
            (Told(401, b"who?"), (503, "M_UNKNOWN")),
        ]:
            it.instead["/send"] = told
            assert error(await request(it)) == expected
        it.instead["/send"] = Told(200)
        assert (await request(it)).code == 200, "the attempt was not made"
        assert error(await request(it, number="07700")) == (400, "M_INVALID_PARAM")
        assert len(it.there.asked) == 4


class Delegate:
    """The part of an identity server that writes to phone numbers."""

    def __init__(self, it: World) -> None:
        self.validated = False
        self.requests: list[dict[str, Any]] = []
        it.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, asked: Asked) -> Told:
        assert asked.headers["authorization"] == "Bearer a token"
        if asked.path == f"{API}/validate/msisdn/requestToken":
            self.requests.append(asked.json)
            return Told(200, {"sid": "remote"})
        if asked.path == f"{API}/validate/msisdn/submitToken":
            assert (asked.json["sid"], asked.json["client_secret"]) == ("remote", SECRET)
            if asked.json["token"] == "late":
                return Told(400, {"errcode": "M_SESSION_EXPIRED"})
            return Told(200, {"success": asked.json["token"] == "code"})
        assert (asked.path, asked.query) == (f"{API}/3pid/getValidated3pid", f"sid=remote&client_secret={SECRET}")
        if not self.validated:
            return Told(400, {"errcode": "M_SESSION_NOT_VALIDATED"})
        return Told(200, {"medium": "msisdn", "address": "447700900001", "validated_at": 1})


@pytest.mark.parametrize("way", ["code", "link"])
@pytest_twisted.ensureDeferred
async def test_a_number_is_proved_by_an_identity_server(database: Database, tmp_path: Path, way: str) -> None:
    delegate_option = {"msisdn": "https://THERE/", "msisdn_access_token": "a token"}
    async with world(database, tmp_path, account_threepid_delegates=delegate_option) as it:
        await it.server.register("alice")
        delegate = Delegate(it)
        reply = await request(it)
        assert (await request(it)).json == reply.json
        (asked,) = delegate.requests
        assert asked == {"client_secret": SECRET, "country": "GB", "phone_number": "+447700900001", "send_attempt": 1}
        assert await numbers(it, reply) == []
        if way == "code":
            assert error(await submit(it, reply, "wrong")) == (400, "M_TOKEN_INCORRECT")
            assert error(await submit(it, reply, "late")) == (400, "M_SESSION_EXPIRED")
            assert (await submit(it, reply, "code")).json == {"success": True}
        else:
            delegate.validated = True
        assert await numbers(it, reply) == ["447700900001"]


@pytest_twisted.ensureDeferred
async def test_an_identity_server_that_sends_nothing(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path, account_threepid_delegates={"msisdn": "https://THERE"}) as it:
        path = f"{API}/validate/msisdn/requestToken"
        for told, expected in [
            (Told(400, {"errcode": "M_INVALID_PARAM"}), (400, "M_INVALID_PARAM")),
            (Told(401, {"errcode": "M_UNAUTHORIZED"}), (503, "M_UNKNOWN")),
            (Told(200, {"sid": "not an id!"}), (503, "M_UNKNOWN")),
            (Told(200, b"<html>"), (503, "M_UNKNOWN")),
        ]:
            it.instead[path] = told
            assert error(await request(it)) == expected
        it.instead[path] = Told(200, {"sid": "remote"})
        reply = await request(it)
        it.instead[f"{API}/validate/msisdn/submitToken"] = Told(500, b"")
        assert error(await submit(it, reply, "code")) == (503, "M_UNKNOWN")
