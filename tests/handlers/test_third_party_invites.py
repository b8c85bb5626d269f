"""Invitations by e-mail: against an identity server over real HTTPS, with signatures that are real too."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from synapse.api.errors import MatrixError
from synapse.config.contacts import ThreepidsConfig
from synapse.handlers.identity_server import IdentityServers
from synapse.handlers.room_plan import CreateRoom, Invite3pid
from synapse.handlers.third_party_invites import Bound, Pending
from synapse.handlers.threepid_rules import ThreepidRules
from synapse.http.addresses import AddressFilter
from synapse.http.outside import OutsideClient, Trust
from synapse.storage.database import Database, Transaction
from tests.support.elsewhere import Asked, Certificates, Told, elsewhere
from tests.support.reactor import real_reactor
from tests.support.rooms import ALICE, BOB, CAROL, DAVE, RoomProcess, start

ADDRESS = "Lemurs@MonkeyWorld.example"
API = "/_matrix/identity/v2"


class Identity:
    """An identity server with one key; its answers may be overridden by path."""

    def __init__(self) -> None:
        self.name = ""
        self.key = generate_signing_key("0")
        self.valid = True
        self.pepper = "pepper"
        self.bound: dict[str, str] = {}
        self.stored: list[dict[str, Any]] = []
        self.instead: dict[str, Told] = {}

    async def answer(self, asked: Asked) -> Told:
        if (told := self.instead.get(asked.path)) is not None:
            return told
        if asked.path.endswith("/isvalid"):
            return Told(
                200,
                {
                    "valid": self.valid
                    and asked.query == "public_key=" + self.public.replace("/", "%2F").replace("+", "%2B")
                },
            )
        if asked.headers.get("authorization") != "Bearer swordfish":
            return Told(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Who are you?"})
        if asked.path == f"{API}/hash_details":
            return Told(200, {"algorithms": ["none", "sha256"], "lookup_pepper": self.pepper})
        if asked.path == f"{API}/lookup":
            return self._lookup(asked.json)
        self.stored.append(asked.json)
        key = {"public_key": self.public, "key_validity_url": f"https://{self.name}{API}/pubkey/isvalid"}
        return Told(200, {"token": f"token{len(self.stored)}", "display_name": "l...@m...", "public_keys": [key]})

    def _lookup(self, body: dict[str, Any]) -> Told:
        assert body["algorithm"] == "sha256"
        if body["pepper"] != "pepper":
            self.pepper = "pepper"
            return Told(400, {"errcode": "M_INVALID_PEPPER", "error": "It has been rotated."})
        hashes = {_hash(address, "pepper"): user_id for address, user_id in self.bound.items()}
        return Told(200, {"mappings": {h: hashes[h] for h in body["addresses"] if h in hashes}})

    @property
    def public(self) -> str:
        return encode_base64(get_verify_key(self.key).encode())

    def signed(self, **fields: str) -> dict[str, Any]:
        return sign_json(dict(fields), self.name, self.key)


def _hash(address: str, pepper: str) -> str:
    digest = hashlib.sha256(f"{address} email {pepper}".encode()).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


@asynccontextmanager
async def world(database: Database, tmp_path: Path) -> AsyncIterator[tuple[RoomProcess, Identity]]:
    """A process, and an identity server that it can reach."""
    process, identity = (await start(database)).main, Identity()
    async with elsewhere(Certificates(tmp_path), identity.answer) as server:
        identity.name = server.name
        process.outside_client = OutsideClient(real_reactor(), AddressFilter(()), Trust(verify=False))
        yield process, identity
        await process.outside_client.close()


def wanted(identity: Identity, **more: Any) -> dict[str, Any]:
    return {"id_server": identity.name, "id_access_token": "swordfish", "medium": "email", "address": ADDRESS, **more}


async def state(process: RoomProcess, room_id: str, event_type: str, state_key: str) -> dict[str, Any] | None:
    found = await process.state.current(room_id, [(event_type, state_key)])
    stored = found.get((event_type, state_key))
    return None if stored is None else stored.event.content


async def refused(doing: Any) -> str:
    with pytest.raises(MatrixError) as caught:
        await doing
    return f"{caught.value.code} {caught.value.errcode}"


@pytest_twisted.ensureDeferred
async def test_who_is_known_is_invited(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as (process, identity):
        identity.bound[ADDRESS.casefold()] = BOB.user_id
        identity.pepper = "an old one"  # which it changes just when it is used
        room_id = await process.room(preset="private_chat")
        await process.memberships.invite(ALICE, room_id, wanted(identity))
        assert await process.memberships.membership(room_id, BOB.user_id) == "invite"
        assert identity.stored == []
        await process.memberships.join(BOB, room_id)
        assert await refused(process.memberships.invite(ALICE, room_id, wanted(identity))) == "403 M_FORBIDDEN"
        identity.bound[ADDRESS.casefold()] = "@bob:elsewhere.example"
        refusal = await refused(process.memberships.invite(ALICE, room_id, wanted(identity)))
        assert refusal == "502 M_CONNECTION_FAILED"


@pytest_twisted.ensureDeferred
async def test_who_is_not_known_is_invited_once_the_address_is_bound(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as (process, identity):
        room_id = await process.room(preset="private_chat", name="A room", room_alias_name="here")
        await process.memberships.invite(ALICE, room_id, wanted(identity))
        assert identity.stored == [
            {
                "medium": "email",
                "address": ADDRESS.casefold(),
                "room_id": room_id,
                "sender": ALICE.user_id,
                "room_name": "A room",
                "room_alias": "#here:test",
                "room_join_rules": "invite",
            }
        ]
        url = f"https://{identity.name}{API}/pubkey/isvalid"
        assert await state(process, room_id, "m.room.third_party_invite", "token1") == {
            "display_name": "l...@m...",
            "public_key": identity.public,
            "key_validity_url": url,
            "public_keys": [{"public_key": identity.public, "key_validity_url": url}],
        }
        await process.memberships.invite(ALICE, room_id, {"user_id": CAROL.user_id})
        await process.memberships.join(CAROL, room_id)
        await process.memberships.leave(ALICE, room_id)  # an invitation outlives its sender's stay
        signed = identity.signed(mxid=BOB.user_id, token="token1")
        pending = Pending(room_id=room_id, sender=ALICE.user_id, signed=signed)
        unknown = Pending(room_id="!no:test", sender=ALICE.user_id, signed=signed)
        await process.third_party.bound(
            Bound(medium="email", address=ADDRESS, mxid=BOB.user_id, invites=[unknown, pending])
        )
        assert await state(process, room_id, "m.room.member", BOB.user_id) == {
            "membership": "invite",
            "third_party_invite": {"display_name": "l...@m...", "signed": signed},
        }
        await process.memberships.join(BOB, room_id)
        await process.third_party.bound(Bound(medium="email", address=ADDRESS, mxid=BOB.user_id, invites=[pending]))
        assert await process.memberships.membership(room_id, BOB.user_id) == "join", "who is in the room stays"


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_joining_with_the_signature_in_hand(database: Database, tmp_path: Path, version: str) -> None:
    async with world(database, tmp_path) as (process, identity):
        room_id = await process.room(preset="private_chat", room_version=version)
        await process.memberships.invite(ALICE, room_id, wanted(identity))
        signed = identity.signed(mxid=BOB.user_id, sender=ALICE.user_id, token="token1")
        await process.memberships.join(BOB, room_id, {"third_party_signed": signed})
        assert await state(process, room_id, "m.room.member", BOB.user_id) == {"membership": "join"}


@pytest_twisted.ensureDeferred
async def test_signatures_that_prove_nothing(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as (process, identity):
        room_id = await process.room(preset="private_chat", joined=[])
        await process.memberships.invite(ALICE, room_id, wanted(identity))
        good = {"mxid": BOB.user_id, "sender": ALICE.user_id, "token": "token1"}
        stranger = Identity()
        stranger.name = identity.name
        for signed, expected in [
            (5, "400 M_BAD_JSON"),
            ({}, "400 M_BAD_JSON"),
            ({**good, "token": 5}, "400 M_BAD_JSON"),
            (good, "403 M_FORBIDDEN"),
            ({**good, "signatures": {"x": {"ed25519:0": "!!!"}}}, "403 M_FORBIDDEN"),
            (identity.signed(**{**good, "token": "token2"}), "403 M_FORBIDDEN"),
            (identity.signed(**{**good, "mxid": CAROL.user_id}), "403 M_FORBIDDEN"),
            (identity.signed(**{**good, "sender": CAROL.user_id}), "403 M_FORBIDDEN"),
            (stranger.signed(**good), "403 M_FORBIDDEN"),
        ]:
            assert await refused(process.memberships.join(BOB, room_id, {"third_party_signed": signed})) == expected
        right = {"third_party_signed": identity.signed(**good)}
        for way in ("revoked", "garbage", "gone"):
            identity.valid = way != "revoked"
            identity.instead = {
                "garbage": {f"{API}/pubkey/isvalid": Told(200, b"yes, of course")},
                "gone": {f"{API}/pubkey/isvalid": Told(404, {"valid": True})},
            }.get(way, {})
            assert await refused(process.memberships.join(BOB, room_id, right)) == "403 M_FORBIDDEN", way
            bound = Bound(
                medium="email",
                address=ADDRESS,
                mxid=BOB.user_id,
                invites=[Pending(room_id=room_id, sender=ALICE.user_id, signed=right["third_party_signed"])],
            )
            assert await refused(process.third_party.bound(bound)) == "403 M_FORBIDDEN", way
            assert await process.memberships.membership(room_id, BOB.user_id) is None, way
        identity.valid, identity.instead = True, {}
        elsewhere = await process.room(preset="private_chat")
        await process.memberships.invite(ALICE, elsewhere, wanted(identity))
        held = identity.signed(**{**good, "token": "token2"})
        one = Pending(room_id=elsewhere, sender=ALICE.user_id, signed=held)
        bound = Bound(medium="email", address=ADDRESS, mxid=BOB.user_id, invites=[bound.invites[0], one])
        await process.memberships.ban(ALICE, room_id, {"user_id": BOB.user_id})
        await process.third_party.bound(bound)  # one that holds is enough
        assert await process.memberships.membership(elsewhere, BOB.user_id) == "invite"
        await process.memberships.unban(ALICE, room_id, {"user_id": BOB.user_id})
        await process.memberships.join(BOB, room_id, right)
    assert await refused(process.third_party.bound(Bound(medium="email", address="a", mxid="@b:far"))) == (
        "400 M_INVALID_PARAM"
    )


@pytest_twisted.ensureDeferred
async def test_rooms_that_begin_with_such_invitations(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as (process, identity):
        identity.bound["bob@example.org"] = BOB.user_id
        invites = [Invite3pid(**wanted(identity, address=address)) for address in ("BOB@example.org", "c@example.org")]
        wish = CreateRoom(preset="private_chat", name="A room", invite_3pid=invites, is_direct=True)
        room_id = (await process.rooms.create(ALICE, wish)).room_id
        assert await state(process, room_id, "m.room.member", BOB.user_id) == {
            "membership": "invite",
            "is_direct": True,
        }
        assert await state(process, room_id, "m.room.third_party_invite", "token1") is not None
        assert (identity.stored[0]["room_id"], identity.stored[0]["room_name"]) == (room_id, "A room")
        identity.instead = {f"{API}/store-invite": Told(403, {"errcode": "M_TERMS_NOT_SIGNED", "error": "Agree first"})}
        rooms = await process.memberships.joined_rooms(ALICE.user_id)
        assert await refused(process.rooms.create(ALICE, wish)) == "403 M_TERMS_NOT_SIGNED"
        assert await process.memberships.joined_rooms(ALICE.user_id) == rooms, "no room is left half made"


@pytest_twisted.ensureDeferred
async def test_identity_servers_link_to_the_client_of_the_administrators_choice(tmp_path: Path) -> None:
    identity = Identity()
    async with elsewhere(Certificates(tmp_path), identity.answer) as server:
        identity.name = server.name
        client = OutsideClient(real_reactor(), AddressFilter(()), Trust(verify=False))
        servers = IdentityServers(lambda: client, ThreepidRules(ThreepidsConfig()), "https://app.example.org")
        await servers.store_invite(Invite3pid(**wanted(identity)), {"room_id": "!r:test"})
        await client.close()
    assert identity.stored[0]["org.matrix.web_client_location"] == "https://app.example.org"


@pytest_twisted.ensureDeferred
async def test_nobody_is_written_to_in_vain(database: Database, tmp_path: Path) -> None:
    async with world(database, tmp_path) as (process, identity):
        room_id = await process.room(joined=[BOB])  # in a public room, moderators invite
        for who in (BOB, DAVE):
            assert await refused(process.memberships.invite(who, room_id, wanted(identity))) == "403 M_FORBIDDEN"
        for more, expected in [
            ({"id_server": "https://x"}, "400 M_INVALID_PARAM"),
            ({"id_server": "x/y"}, "400 M_INVALID_PARAM"),
            ({"id_access_token": "a\r\nb"}, "400 M_INVALID_PARAM"),
            ({"id_access_token": "wrong"}, "403 M_FORBIDDEN"),
            ({"address": "nobody"}, "400 M_INVALID_PARAM"),
            ({"medium": "pigeon"}, "400 M_THREEPID_MEDIUM_NOT_SUPPORTED"),
            ({"address": "two words"}, "400 M_INVALID_PARAM"),
            ({"address": ""}, "400 M_INVALID_PARAM"),
            ({"address": 5}, "400 M_BAD_JSON"),
            ({"id_server": "localhost:1"}, "400 M_UNKNOWN"),
        ]:
            assert await refused(process.memberships.invite(ALICE, room_id, wanted(identity, **more))) == expected
        missing = {"medium": "email", "address": ADDRESS}
        assert await refused(process.memberships.invite(ALICE, room_id, missing)) == "400 M_MISSING_PARAM"
        for path, told in [
            ("hash_details", Told(200, {"algorithms": ["md5"], "lookup_pepper": "x"})),
            ("hash_details", Told(200, b"<html>")),
            ("hash_details", Told(500, {"errcode": "M_UNKNOWN"})),
            ("store-invite", Told(200, {"token": "not a token!", "public_keys": [], "display_name": "x"})),
            ("store-invite", Told(200, {"token": "t", "public_keys": [{"public_key": 5}], "display_name": "x"})),
            ("store-invite", Told(200, b"x" * 100_000)),
        ]:
            identity.instead = {f"{API}/{path}": told}
            assert await refused(process.memberships.invite(ALICE, room_id, wanted(identity))) == "400 M_UNKNOWN"
        assert await database.read("invites", _third_party_invites) == 0
        assert identity.stored == []


def _third_party_invites(txn: Transaction) -> int:
    txn.execute("SELECT count(*) FROM events WHERE type = 'm.room.third_party_invite'")
    count: int = txn.one()[0]
    return count


@pytest_twisted.ensureDeferred
async def test_nobody_is_looked_up_where_that_is_switched_off() -> None:
    def client() -> OutsideClient:
        raise AssertionError("nobody is to be asked")

    servers = IdentityServers(client, ThreepidRules(ThreepidsConfig(enable_3pid_lookup=False)))
    wanted = Invite3pid(id_server="id.test", id_access_token="t", medium="email", address="a@example.org")
    with pytest.raises(MatrixError) as caught:
        await servers.lookup(wanted)
    assert (caught.value.code, caught.value.errcode) == (403, "M_FORBIDDEN")
