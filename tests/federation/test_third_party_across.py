"""Invitations by address whose owner turns out to be of another server than the inviter."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from tests.federation.people import Member, member
from tests.support.outsider import V1, Outsider
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation

FORBIDDEN, INVALID = (403, "M_FORBIDDEN"), (400, "M_INVALID_PARAM")
KEY = generate_signing_key("0")
TOKEN = "the token"


async def inviting(alice: Member, **options: Any) -> str:
    """A room of Alice's with an invitation by address, as an identity server would have had her make it."""
    room = await alice.room(preset="private_chat", **options)
    key = encode_base64(get_verify_key(KEY).encode())
    content = {"display_name": "b...@e...", "public_key": key, "key_validity_url": "", "public_keys": []}
    await alice.put(f"/rooms/{room}/state/m.room.third_party_invite/{quote(TOKEN)}", content)
    return room


def signed(user_id: str, token: str = TOKEN, key: Any = KEY) -> dict[str, Any]:
    """The identity server's word that the address is the user's."""
    return dict(sign_json({"mxid": user_id, "token": token}, "id.test", key))


def wish(room: str, sender: str, user_id: str, **changes: Any) -> dict[str, Any]:
    invite = {"display_name": "", "signed": changes.pop("signed", signed(user_id))}
    content = {"membership": "invite", "third_party_invite": invite}
    event = {"type": "m.room.member", "room_id": room, "sender": sender, "state_key": user_id, "content": content}
    return {**event, **changes}


def binding(room: str, sender: str, user_id: str) -> dict[str, Any]:
    """What an identity server tells the user's server."""
    invite = {"medium": "email", "address": "b@e.test", "mxid": user_id, "room_id": room, "sender": sender}
    pending = {**invite, "signed": signed(user_id)}
    return {"medium": "email", "address": "b@e.test", "mxid": user_id, "invites": [pending]}


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_the_inviter_s_server_is_asked(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, bob = await member(net["one"], "alice"), await member(net["two"], "bob")
        room = await inviting(alice, room_version=version)
        body = binding(room, alice.id, bob.id)
        code, _ = await net["two"].client.put("/_matrix/federation/v1/3pid/onbind", body)
        assert code == 200
        key = ("m.room.member", bob.id)
        invite = (await alice.hs.rooms.state.current(room, [key]))[key].event
        assert invite.sender == alice.id
        assert invite.content["third_party_invite"] == {"display_name": "b...@e...", "signed": signed(bob.id)}
        assert set(invite.raw["signatures"]) == {"one.test:8448", "two.test:8448"}
        assert room in (await bob.get("/sync"))["rooms"]["invite"]
        code, _ = await net["two"].client.put("/_matrix/federation/v1/3pid/onbind", body)
        assert code == 200, "who is invited stays so"


@pytest_twisted.ensureDeferred
async def test_what_is_not_exchanged(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, other = await member(net["one"], "alice"), Outsider(net, "two", "one")
        room, bob = await inviting(alice), other.user("bob")

        async def refused(body: dict[str, Any], of: str = room) -> tuple[int, str]:
            return await other.refused("PUT", f"{V1}/exchange_third_party_invite/{quote(of, safe='')}", body)

        good = wish(room, alice.id, bob)
        assert await refused({**good, "type": "m.room.topic"}) == INVALID
        assert await refused({**good, "content": {**good["content"], "membership": "join"}}) == INVALID
        assert await refused({**good, "room_id": "!other:one.test"}) == INVALID
        assert await refused({**good, "content": {"membership": "invite"}}) == (400, "M_MISSING_PARAM")
        assert await refused({**good, "content": 5}) == (400, "M_BAD_JSON")
        assert await refused(wish(room, alice.id, alice.id)) == FORBIDDEN, "another server's user"
        assert await refused(wish(room, other.user("eve"), bob)) == FORBIDDEN, "another server's inviter"
        assert await refused(wish(room, alice.id.replace("alice", "ann"), bob)) == FORBIDDEN
        assert await refused(wish(room, alice.id, bob, signed=signed(other.user("eve")))) == FORBIDDEN
        assert await refused(wish(room, alice.id, bob, signed=signed(bob, "another token"))) == FORBIDDEN
        assert await refused(wish(room, alice.id, bob, signed={"mxid": bob})) == (400, "M_BAD_JSON")
        stranger = generate_signing_key("0")
        assert await refused(wish(room, alice.id, bob, signed=signed(bob, TOKEN, stranger))) == FORBIDDEN
        assert await refused({**good, "room_id": "!none:one.test"}, "!none:one.test") == (404, "M_NOT_FOUND")
        await alice.state(room, "m.room.server_acl", allow=["*"], deny=["two.test"])
        assert await refused(good) == FORBIDDEN
        assert await alice.membership(room, bob) is None


@pytest_twisted.ensureDeferred
async def test_bindings_that_lead_nowhere(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, bob = await member(net["one"], "alice"), await member(net["two"], "bob")
        room = await inviting(alice)

        async def told(body: dict[str, Any]) -> tuple[int, str]:
            code, answer = await net["two"].client.put("/_matrix/federation/v1/3pid/onbind", body)
            return code, answer.get("errcode", "")

        assert await told(binding(room, alice.id, alice.id)) == INVALID, "another server's user"
        assert await told(binding(room, bob.id, bob.id)) == FORBIDDEN, "a room that nobody here is in"
        assert (await told(binding(room, "@a:nowhere.test:1", bob.id)))[0] == 502
        net.cut("one", "two")
        assert (await told(binding(room, alice.id, bob.id)))[0] == 502


@pytest_twisted.ensureDeferred
async def test_nobody_has_other_servers_asked_without_end(postgres: PostgresServer) -> None:
    limits = {"rc_third_party_invite": {"per_second": 0.001, "burst_count": 2}}
    async with federation(postgres, "one", "two", **limits) as net:
        alice, bob = await member(net["one"], "alice"), await member(net["two"], "bob")
        body = binding(await inviting(alice), alice.id, bob.id)
        codes = [(await net["two"].client.put("/_matrix/federation/v1/3pid/onbind", body))[0] for _ in range(3)]
        assert codes == [200, 200, 429]


@pytest_twisted.ensureDeferred
async def test_a_server_in_the_room_invites_for_another_s_inviter(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, bob, eve = (
            await member(net["one"], "alice"),
            await member(net["two"], "bob"),
            await member(net["two"], "eve"),
        )
        room = await inviting(alice)
        await alice.post(f"/rooms/{room}/invite", {"user_id": eve.id})
        await eve.post(f"/join/{quote(room)}?server_name=one.test:8448")
        code, _ = await net["two"].client.put("/_matrix/federation/v1/3pid/onbind", binding(room, alice.id, bob.id))
        assert code == 200
        assert room in (await bob.get("/sync"))["rooms"]["invite"]
        key = ("m.room.member", bob.id)
        invite = (await eve.hs.rooms.state.current(room, [key]))[key].event
        assert (invite.sender, set(invite.raw["signatures"])) == (alice.id, {"two.test:8448"})

        async def has_come() -> bool:
            return await alice.membership(room, bob.id) == "invite"

        await net.until(has_come)
        await bob.post(f"/rooms/{room}/join")

        async def has_joined() -> bool:
            return await alice.membership(room, bob.id) == "join"

        await net.until(has_joined)
