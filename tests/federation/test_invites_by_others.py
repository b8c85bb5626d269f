"""Invites that other servers bring: signed for those who want them, shown with what came along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.api.identifiers import create_id_of_room
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.events.hashes import essential_bytes
from synapse.events.signing import signatures_by, verify
from synapse.handlers.event_creation import Draft
from tests.federation.people import Member, member
from tests.federation.test_joins_by_others import bring_in
from tests.support.outsider import V1, V2, Outsider
from tests.support.postgres import PostgresServer
from tests.support.two_servers import Network, federation

FORBIDDEN, INVALID = (403, "M_FORBIDDEN"), (400, "M_INVALID_PARAM")


class Inviter:
    """Somebody of the server `two`, and a room of theirs into which they invite people of the server `one`."""

    def __init__(self, net: Network, host: Member, room: str, version: str) -> None:
        self.other = Outsider(net, "two", "one")
        self.host = host
        self.room = room
        self.version = version

    async def invite(self, user_id: str, **content: Any) -> Event:
        """An invite as two's user would send it."""
        content = {"membership": "invite", **content}
        return await self.host.hs.rooms.creation.rehearse(
            Draft(self.room, self.host.id, "m.room.member", content, user_id)
        )

    async def state(self) -> list[dict[str, Any]]:
        """What comes along."""
        keys = [(kind, "") for kind in ("m.room.create", "m.room.name", "m.room.join_rules")]
        return [stored.event.raw for stored in (await self.host.hs.rooms.state.current(self.room, keys)).values()]

    async def body(self, event: Event, /, **changes: Any) -> dict[str, Any]:
        return {"room_version": self.version, "event": event.raw, "invite_room_state": await self.state(), **changes}

    async def send(self, user_id: str) -> tuple[Event, int, Any]:
        event = await self.invite(user_id)
        code, answer = await self.other.ask("PUT", self.other.path("invite", event, V2), await self.body(event))
        return event, code, answer

    async def refused(self, event: Event, /, **changes: Any) -> tuple[int, str]:
        return await self.other.refused("PUT", self.other.path("invite", event, V2), await self.body(event, **changes))


async def inviter(net: Network, version: str = "12", **options: Any) -> Inviter:
    host = await member(net["two"], "host")
    room = await host.room(preset="private_chat", room_version=version, name="Over there", **options)
    return Inviter(net, host, room, version)


async def invited(person: Member, room: str) -> Any:
    """What the user's sync says of the invite."""
    return (await person.get("/sync")).get("rooms", {}).get("invite", {}).get(room)


@pytest.mark.parametrize("version", ["1", "3", "6", "8", "10", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_invites_are_signed_and_shown(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, host = await member(net["one"], "alice"), await inviter(net, version)
        for _ in range(2):  # twice is no more than once
            event = await host.invite(alice.id)
            code, answer = await host.other.ask("PUT", host.other.path("invite", event), await host.body(event))
            assert code == 200, answer
        signature = signatures_by(answer["event"], host.other.of)["ed25519:one"]
        room_version = ROOM_VERSIONS[version]
        key: Any = net["one"].hs.rooms.signer.key.verify_key
        key.alg, key.version = "ed25519", "one"
        verify(essential_bytes(answer["event"], room_version), signature, key)
        assert {**answer["event"], "signatures": event.raw["signatures"]} == event.raw
        shown = {entry["type"]: entry for entry in (await invited(alice, host.room))["invite_state"]["events"]}
        assert set(shown) == {"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"}
        assert shown["m.room.name"]["content"] == {"name": "Over there"}
        assert set(shown["m.room.name"]) == {"type", "state_key", "sender", "content"}
        assert shown["m.room.member"]["state_key"] == alice.id


@pytest.mark.parametrize("version", ["1", "2"])
@pytest_twisted.ensureDeferred
async def test_the_first_form(postgres: PostgresServer, version: str) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, host = await member(net["one"], "alice"), await inviter(net, version)
        event = await host.invite(alice.id)
        stripped = [{key: raw[key] for key in ("type", "state_key", "sender", "content")} for raw in await host.state()]
        stripped[-1]["content"] = {**stripped[-1]["content"], "x": 10**30, "y": "\x00", "z": 1e300}
        body = {**event.raw, "unsigned": {"invite_room_state": stripped}}
        code, answer = await host.other.ask("PUT", host.other.path("invite", event, V1), body)
        assert (code, answer[0]) == (200, 200)
        assert signatures_by(answer[1]["event"], host.other.of)
        shown = (await invited(alice, host.room))["invite_state"]["events"]
        assert {"name": "Over there"} in [entry["content"] for entry in shown]


@pytest_twisted.ensureDeferred
async def test_what_is_no_invite_of_theirs(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, host = await member(net["one"], "alice"), await inviter(net, "10")
        good = await host.invite(alice.id)
        other, path = host.other, host.other.path("invite", good)

        def changed(**changes: Any) -> Event:
            raw = {name: value for name, value in good.raw.items() if name not in ("hashes", "signatures")}
            return other.sealed({"room_version": "10", "event": raw}, **changes)

        assert await host.refused(good, room_version="next") == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        assert await host.refused(good, room_version=10) == (400, "M_BAD_JSON")
        assert await host.refused(good, event=5) == (400, "M_BAD_JSON")
        assert await host.refused(good, event={**good.raw, "depth": 1.5}) == (400, "M_BAD_JSON")
        assert await host.refused(good, invite_room_state=5) == INVALID
        assert await host.refused(good, invite_room_state=[{}] * 51) == INVALID
        assert await other.refused("PUT", path, {"room_version": "10"}) == (400, "M_MISSING_PARAM")
        assert await other.refused("PUT", path, {"event": good.raw}) == (400, "M_MISSING_PARAM")
        assert await other.refused("PUT", path[:-1], await host.body(good)) == INVALID
        elsewhere = path.replace(quote(host.room, safe=""), "!else:two.test")
        assert await other.refused("PUT", elsewhere, await host.body(good)) == INVALID
        assert await host.refused(good, event={**good.raw, "content": {"membership": "invite", "a": "b"}}) == INVALID
        assert await host.refused(changed(type="m.room.topic")) == INVALID
        assert await host.refused(changed(content={"membership": "join"})) == INVALID
        assert await host.refused(changed(state_key=host.host.id)) == INVALID
        assert await host.refused(changed(sender="@eve:three.test")) == INVALID
        assert await host.refused(good, event={**good.raw, "signatures": {}}) == FORBIDDEN
        wrong = {other.name: {"ed25519:two": "a" * 86}}
        assert await host.refused(good, event={**good.raw, "signatures": wrong}) == FORBIDDEN
        assert await other.refused("PUT", other.path("invite", good, V1), good.raw) == (400, "M_BAD_JSON")
        assert await invited(alice, host.room) is None


@pytest_twisted.ensureDeferred
async def test_people_who_cannot_be_invited(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, gone = await member(net["one"], "alice"), await member(net["one"], "gone")
        host = await inviter(net)
        await gone.post("/account/deactivate", {"auth": _password("gone")})
        for user_id in (gone.id, alice.id.replace("alice", "nobody")):
            assert await host.refused(await host.invite(user_id)) == FORBIDDEN
        config = "m.invite_permission_config"
        await alice.put(f"/user/{alice.id}/account_data/{config}", {"default_action": "block"})
        assert await host.refused(await host.invite(alice.id)) == (403, "M_INVITE_BLOCKED")
        await alice.put(f"/user/{alice.id}/account_data/{config}", {})
        ignored = {"ignored_users": {host.host.id: {}}}
        await alice.put(f"/user/{alice.id}/account_data/m.ignored_user_list", ignored)
        assert (await host.send(alice.id))[1] == 200
        assert await invited(alice, host.room) is None, "whoever is ignored is not heard"


def _password(name: str) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": identifier, "password": "a password"}


@pytest_twisted.ensureDeferred
async def test_state_that_comes_along(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, host = await member(net["one"], "alice"), await inviter(net)
        event, state = await host.invite(alice.id), await host.state()
        stranger = await host.host.room()
        create = await host.host.hs.rooms.events.get(create_id_of_room(stranger))
        assert create is not None
        stripped = [{key: raw[key] for key in ("type", "state_key", "sender", "content")} for raw in state]
        is_create: Callable[[Any], bool] = lambda raw: raw["type"] == "m.room.create"  # noqa: E731
        for wrong, error in (
            (None, (400, "M_MISSING_PARAM")),
            ([], (400, "M_MISSING_PARAM")),
            (stripped, INVALID),
            ([raw for raw in state if not is_create(raw)], INVALID),
            ([create.event.raw, *state], INVALID),
            ([raw if is_create(raw) else {**raw, "signatures": {}} for raw in state], INVALID),
            ([*state, 5], INVALID),
        ):
            assert await host.refused(event, invite_room_state=wrong) == error, wrong
        old = await inviter_of_old(net, host.host)
        event = await old.invite(alice.id)
        entries = [{}, {"type": "m.room.name", "state_key": "", "sender": "x", "content": {}}]
        entries += [{"type": "m.room.name", "state_key": "", "sender": "@a:b", "content": {"name": "N"}, "more": 1}]
        entries += [{"type": "m.secret", "state_key": "", "sender": "@a:b", "content": {}}]
        odd = {"topic": "T\x00", "half": 1.5, "vast": 10**30}  # in old rooms, anything that JSON can say
        entries += [{"type": "m.room.topic", "state_key": "", "sender": "@a:b", "content": odd}]
        code, _ = await old.other.ask(
            "PUT", old.other.path("invite", event), await old.body(event, invite_room_state=entries)
        )
        assert code == 200
        shown = (await invited(alice, old.room))["invite_state"]["events"]
        assert [entry["type"] for entry in shown] == ["m.room.name", "m.room.topic", "m.room.member"]
        assert set(shown[0]) == {"type", "state_key", "sender", "content"}


async def inviter_of_old(net: Network, host: Member) -> Inviter:
    return Inviter(net, host, await host.room(preset="private_chat", room_version="10"), "10")


@pytest_twisted.ensureDeferred
async def test_rooms_that_the_server_is_in(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        alice, bob = await member(net["one"], "alice"), await member(net["one"], "bob")
        room = await alice.room(preset="private_chat", room_version="10")
        other = Outsider(net, "two", "one")
        eve = other.user("eve")
        await alice.state(room, "m.room.join_rules", join_rule="public")
        await bring_in(other, room, eve)
        template = {
            "room_version": "10",
            "event": {
                **(await other.template("join", room, eve, "10"))["event"],
                "state_key": bob.id,
                "content": {"membership": "invite"},
            },
        }
        event = other.sealed(template)
        body = {"room_version": "10", "event": event.raw, "invite_room_state": []}
        code, answer = await other.ask("PUT", other.path("invite", event), body)
        assert (code, bool(signatures_by(answer["event"], other.of))) == (200, True)
        assert await alice.membership(room, bob.id) is None, "it comes once more, with a transaction"
        wrong = {**body, "room_version": "11"}
        assert await other.refused("PUT", other.path("invite", event), wrong) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        await alice.state(room, "m.room.server_acl", allow=["*"], deny=["two.test"])
        assert await other.refused("PUT", other.path("invite", event), body) == FORBIDDEN
