"""Invites that other servers bring: signed for those who want them, shown with what came along."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest_twisted

from synapse.events.event import Event
from synapse.events.signing import signatures_by
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
        assert await host.refused(changed(sender="@eve:three.test")) == FORBIDDEN
        assert await host.refused(good, event={**good.raw, "signatures": {}}) == FORBIDDEN
        wrong = {other.name: {"ed25519:two": "a" * 86}}
        assert await host.refused(good, event={**good.raw, "signatures": wrong}) == FORBIDDEN
        assert await other.refused("PUT", other.path("invite", good, V1), good.raw) == (400, "M_BAD_JSON")
        assert await invited(alice, host.room) is None


def _password(name: str) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": identifier, "password": "a password"}


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
