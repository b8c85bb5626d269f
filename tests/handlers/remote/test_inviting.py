"""Invites of other servers' users: signed by their server before they are in the room, or refused in its words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from tests.support.postgres import PostgresServer
from tests.support.resident import Answered, Resident
from tests.support.two_servers import Network, federation

STRANGER = "stranger.test"
THEM = f"@them:{STRANGER}"
ROOMS = "/_matrix/client/v3/rooms"


class Case:
    """A user of ours, Alice, in a room of hers, and a server of the test's own making."""

    def __init__(self, net: Network, token: str, room_id: str) -> None:
        self.net, self.token, self.room_id = net, token, room_id
        self.client = net["one"].client
        self.stranger = net.strangers[STRANGER]

    async def invite(self, user_id: str = THEM, **more: Any) -> tuple[int, Any]:
        path = f"{ROOMS}/{quote(self.room_id)}/invite"
        return await self.client.post(path, {"user_id": user_id, **more}, self.token)

    async def member(self) -> dict[str, Any] | None:
        path = f"{ROOMS}/{quote(self.room_id)}/state/m.room.member/{quote(THEM)}?format=event"
        code, body = await self.client.get(path, self.token)
        return dict(body) if code == 200 else None


@asynccontextmanager
async def world(postgres: PostgresServer, version: str = "12") -> AsyncIterator[Case]:
    async with federation(postgres, "one") as net:
        net.strangers[STRANGER] = Resident(STRANGER)
        token = await net["one"].client.register("alice")
        room_id = await create(net, token, room_version=version, name="The room")
        yield Case(net, token, room_id)


async def create(net: Network, token: str, **wish: Any) -> str:
    code, body = await net["one"].client.post("/_matrix/client/v3/createRoom", wish, token)
    assert code == 200, body
    return str(body["room_id"])


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest_twisted.ensureDeferred
async def test_an_invite_is_in_the_room_with_both_signatures(postgres: PostgresServer, version: str) -> None:
    async with world(postgres, version) as case:
        sent: list[Any] = []
        case.stranger.lie["invite"] = lambda answered: sent.append(answered) or answered
        assert await case.invite(reason="come") == (200, {})
        event = sent[0][1]["event"]
        assert event["content"] == {"membership": "invite", "reason": "come"}
        stored = await case.net["one"].hs.rooms.events.get_many([(await case.member() or {})["event_id"]])
        (invite,) = [each.event for each in stored.values()]
        assert set(invite.raw["signatures"]) == {"one.test:8448", STRANGER}
        assert await case.invite(reason="come") == (200, {})
        assert case.stranger.asked.count("invite") == 1  # who is invited already is not invited again


@pytest_twisted.ensureDeferred
async def test_what_the_room_is_goes_along_as_whole_events(postgres: PostgresServer) -> None:
    async with world(postgres) as case:
        bodies: list[Any] = []
        answer = case.stranger._invite

        def look(path: list[str], args: Any, body: Any) -> Answered:
            bodies.append(body)
            return answer(path, args, body)

        case.stranger.__dict__["_invite"] = look
        await case.invite()
        (body,) = bodies
        assert body["room_version"] == "12"
        shown = {(event["type"], event["state_key"]): event for event in body["invite_room_state"]}
        assert {"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"} <= {key[0] for key in shown}
        assert all("signatures" in event and "auth_events" in event for event in shown.values())


def _refusal(code: int, errcode: str) -> Callable[[Answered], Answered]:
    return lambda _: (code, {"errcode": errcode, "error": "No."})


def _change(**fields: Any) -> Callable[[Answered], Answered]:
    return lambda answered: (200, {"event": {**answered[1]["event"], **fields}})


def _unsigned(answered: Answered) -> Answered:
    event = answered[1]["event"]
    return 200, {"event": {**event, "signatures": {k: v for k, v in event["signatures"].items() if k != STRANGER}}}


# What the invited user's server answers, and what whoever invites is told.
REFUSALS: list[tuple[Callable[[Answered], Answered], tuple[int, str]]] = [
    (_refusal(403, "M_FORBIDDEN"), (403, "M_FORBIDDEN")),
    (_refusal(403, "M_INVITE_BLOCKED"), (403, "M_INVITE_BLOCKED")),
    (_refusal(400, "M_INCOMPATIBLE_ROOM_VERSION"), (400, "M_UNSUPPORTED_ROOM_VERSION")),
    (_refusal(400, "M_UNSUPPORTED_ROOM_VERSION"), (400, "M_UNSUPPORTED_ROOM_VERSION")),
    (_refusal(400, "M_INVALID_PARAM"), (502, "M_UNKNOWN")),
    (_refusal(400, "M_MISSING_PARAM"), (502, "M_UNKNOWN")),
    (_refusal(500, "M_UNKNOWN"), (502, "M_UNKNOWN")),
    (_refusal(401, "M_UNKNOWN_TOKEN"), (502, "M_UNKNOWN")),
    (_unsigned, (502, "M_CONNECTION_FAILED")),
    (_change(content={"membership": "join"}), (502, "M_CONNECTION_FAILED")),
    (_change(state_key="@alice:one.test:8448"), (502, "M_CONNECTION_FAILED")),
    (_change(bad=1.5), (400, "M_BAD_JSON")),
    (_change(signatures={STRANGER: {"ed25519:made_up": "A" * 86}}), (502, "M_CONNECTION_FAILED")),
    (lambda _: (200, {"event": "none"}), (400, "M_BAD_JSON")),
    (lambda _: (200, {}), (502, "M_CONNECTION_FAILED")),
]


@pytest_twisted.ensureDeferred
async def test_what_is_refused_or_forged_is_told_and_is_not_in_the_room(postgres: PostgresServer) -> None:
    async with world(postgres) as case:
        for number, (lie, (status, errcode)) in enumerate(REFUSALS):
            case.stranger.lie["invite"] = lie
            code, body = await case.invite()
            assert (code, body.get("errcode")) == (status, errcode), number
            assert await case.member() is None
        del case.net.strangers[STRANGER]
        code, body = await case.invite()
        assert (code, body["errcode"]) == (502, "M_CONNECTION_FAILED")


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_for_an_invite_that_the_room_does_not_allow(postgres: PostgresServer) -> None:
    async with world(postgres) as case:
        bob = await case.client.register("bob")
        path = f"{ROOMS}/{quote(case.room_id)}/invite"
        assert (await case.client.post(path, {"user_id": THEM}, bob))[0] == 403
        case.room_id = await create(case.net, case.token, creation_content={"m.federate": False})
        assert (await case.invite())[1]["errcode"] == "M_FORBIDDEN"
        assert "invite" not in case.stranger.asked


@pytest_twisted.ensureDeferred
async def test_a_new_room_has_those_invites_that_could_be_made(postgres: PostgresServer) -> None:
    async with world(postgres) as case:
        other = Resident("other.test")
        other.lie["invite"] = _refusal(403, "M_FORBIDDEN")
        case.net.strangers["other.test"] = other
        invited = [THEM, f"@second:{STRANGER}", "@no:other.test", "@no:away.test"]
        case.room_id = await create(case.net, case.token, invite=invited, is_direct=True, preset="private_chat")
        member = await case.member()
        assert member is not None
        assert member["content"] == {"membership": "invite", "is_direct": True}
        path = f"{ROOMS}/{quote(case.room_id)}/members"
        _, body = await case.client.get(path, case.token)
        memberships = {event["state_key"]: event["content"]["membership"] for event in body["chunk"]}
        assert memberships == {
            "@alice:one.test:8448": "join",
            THEM: "invite",
            f"@second:{STRANGER}": "invite",
        }
