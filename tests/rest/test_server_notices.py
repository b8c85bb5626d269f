"""Server notices: rooms in which the server tells a user something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from joserfc import jwt
from joserfc.jwk import OctKey
from twisted.internet.defer import gatherResults

from synapse.config.errors import ConfigError
from synapse.config.root import from_options
from synapse.handlers.server_notices import Notice
from synapse.http.request import Requester
from synapse.storage.deactivation import DeactivationStore
from synapse.storage.pool import PoolSettings
from tests.rest.accounts import OPTIONS as ACCOUNTS
from tests.rest.people import Person, person
from tests.rest.test_moderation import administrator
from tests.support.deferreds import started
from tests.support.homeserver import Cluster, cluster

SEND = "/_synapse/admin/v1/send_server_notice"
OPTIONS = {
    "system_mxid_localpart": "notices",
    "system_mxid_display_name": "The Server",
    "system_mxid_avatar_url": "mxc://test/picture",
    "room_name": "News",
    "room_avatar_url": "mxc://test/room",
    "room_topic": "What is new",
}
TEXT = {"msgtype": "m.text", "body": "Hello"}


class House(NamedTuple):
    made: Cluster
    admin: Person
    alice: Person

    async def tell(self, **more: Any) -> str:
        body = {"user_id": self.alice.id, "content": TEXT, **more}
        return str((await self.admin.post(SEND, body))["event_id"])

    async def invited(self) -> list[str]:
        return list((await self.alice.get("/sync"))["rooms"].get("invite", {}))

    async def joined(self) -> dict[str, Any]:
        return dict((await self.alice.get("/sync"))["rooms"].get("join", {}))


async def _house(made: Cluster) -> House:
    return House(made, await administrator(made.main), await person(made.main, "alice"))


@pytest_twisted.async_yield_fixture
async def house(database_settings: PoolSettings) -> AsyncIterator[House]:
    async with cluster(database_settings, "event_creator", server_notices=OPTIONS) as made:
        yield await _house(made)


@pytest_twisted.ensureDeferred
async def test_a_notice_comes_in_a_room_of_its_own(house: House) -> None:
    alice = house.alice
    event_id = await house.tell()
    (room,) = await house.invited()
    tags = await alice.get(f"/user/{alice.id}/rooms/{room}/tags")
    assert tags == {"tags": {"m.server_notice": {}}}
    await alice.post(f"/rooms/{room}/join")
    event = await alice.get(f"/rooms/{room}/event/{event_id}")
    assert (event["sender"], event["content"]) == ("@notices:test", TEXT)
    for event_type, content in (
        ("m.room.name", {"name": "News"}),
        ("m.room.avatar", {"url": "mxc://test/room"}),
        ("m.room.member/@notices:test", {"displayname": "The Server", "avatar_url": "mxc://test/picture"}),
    ):
        found = await alice.get(f"/rooms/{room}/state/{event_type}")
        assert content.items() <= found.items()
    assert (await alice.get(f"/rooms/{room}/state/m.room.topic"))["topic"] == "What is new"
    assert await alice.refused("PUT", f"/rooms/{room}/send/m.room.message/1", TEXT) == (403, "M_FORBIDDEN")
    await house.tell(content={"msgtype": "m.text", "body": "More"})
    assert list(await house.joined()) == [room]


@pytest.mark.parametrize("process", ["main", "event_creator"])
@pytest_twisted.ensureDeferred
async def test_the_invitation_cannot_be_refused_but_the_room_be_left(house: House, process: str) -> None:
    await house.tell()
    (room,) = await house.invited()
    await house.made.caught_up()
    alice = house.alice
    if process != "main":
        alice = Person(house.made[process].client, alice.id, alice.token)
    for method, path, body in (
        ("POST", f"/rooms/{room}/leave", {}),
        ("PUT", f"/rooms/{room}/state/m.room.member/{alice.id}", {"membership": "leave"}),
    ):
        assert await alice.refused(method, path, body) == (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
    await alice.post(f"/rooms/{room}/join")
    await alice.post(f"/rooms/{room}/leave")
    await house.tell()
    assert await house.invited() == [room]


@pytest_twisted.ensureDeferred
async def test_other_invitations_can_be_refused(house: House) -> None:
    await house.tell()
    (notices,) = await house.invited()
    room = await house.admin.room(preset="private_chat", invite=[house.alice.id])
    assert sorted(await house.invited()) == sorted([notices, room])
    await house.alice.post(f"/rooms/{room}/leave")
    assert await house.invited() == [notices]


@pytest_twisted.ensureDeferred
async def test_suspended_users_may_come_to_hear_it(house: House) -> None:
    await house.tell()
    (room,) = await house.invited()
    await house.admin.put(f"/_matrix/client/v1/admin/suspend/{house.alice.id}", {"suspended": True})
    other = await house.admin.room()
    assert await house.alice.refused("POST", f"/rooms/{other}/join", {}) == (403, "M_USER_SUSPENDED")
    await house.alice.post(f"/join/{room}")


@pytest_twisted.ensureDeferred
async def test_the_same_transaction_is_one_notice_however_often_and_at_once(house: House) -> None:
    body = {"user_id": house.alice.id, "content": TEXT}
    answers = await gatherResults([started(house.admin.put(f"{SEND}/txn", body)) for _ in range(5)])
    assert len({answer["event_id"] for answer in answers}) == 1
    assert len(await house.invited()) == 1
    other = await administrator(house.made.main, "other")
    assert (await other.put(f"{SEND}/txn", body))["event_id"] != answers[0]["event_id"]


@pytest_twisted.ensureDeferred
async def test_a_new_main_process_goes_on_in_the_same_room(house: House) -> None:
    await house.tell()
    (room,) = await house.invited()
    await house.made.stop_main()
    await house.made.start_main()
    main = house.made.main.client
    body = {"user_id": house.alice.id, "content": TEXT}
    code, _ = await main.post(SEND, body, house.admin.token)
    assert code == 200
    code, synced = await main.get("/_matrix/client/v3/sync", house.alice.token)
    assert list(synced["rooms"]["invite"]) == [room]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "@nobody:test", "content": TEXT}, (404, "M_NOT_FOUND")),
        ({"user_id": "@alice:far", "content": TEXT}, (400, "M_INVALID_PARAM")),
        ({"user_id": "alice", "content": TEXT}, (400, "M_INVALID_PARAM")),
        ({"content": TEXT}, (400, "M_MISSING_PARAM")),
        ({"user_id": "@alice:test"}, (400, "M_MISSING_PARAM")),
        ({"user_id": "@alice:test", "content": []}, (400, "M_BAD_JSON")),
        ({"user_id": "@alice:test", "content": TEXT, "type": "m.room.create", "state_key": ""}, (400, "M_BAD_STATE")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_notices(house: House, body: Any, expected: tuple[int, str]) -> None:
    assert await house.admin.refused("POST", SEND, body) == expected
    assert await house.alice.refused("POST", SEND, body) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_nobody_else_can_have_the_name(house: House) -> None:
    await house.tell()
    register = {"username": "notices", "password": "p", "auth": {"type": "m.login.dummy"}}
    assert await house.alice.refused("POST", "/register", register) == (400, "M_USER_IN_USE")


@pytest_twisted.ensureDeferred
async def test_whoever_vouches_for_it_nobody_logs_in_as_the_server(database_settings: PoolSettings) -> None:
    secret = "a secret of at least thirty-two bytes"
    jwt_config = {"enabled": True, "secret": secret, "algorithm": "HS256"}
    async with cluster(database_settings, server_notices=OPTIONS, jwt_config=jwt_config) as made:
        house = await _house(made)
        for _ in range(2):
            token = jwt.encode({"alg": "HS256"}, {"sub": "notices"}, OctKey.import_key(secret))
            body = {"type": "org.matrix.login.jwt", "token": token}
            assert (await house.alice.refused("POST", "/login", body))[0] in (400, 403)
            await house.tell()  # whereupon there is such a user


@pytest_twisted.ensureDeferred
async def test_the_servers_own_user_is_in_no_directory(database_settings: PoolSettings) -> None:
    directory = {"search_all_users": True}
    async with cluster(database_settings, server_notices=OPTIONS, user_directory=directory) as made:
        house = await _house(made)
        await house.tell()
        for term, expected in (("notices", []), ("the server", []), ("alice", ["@alice:test"])):
            found = await house.admin.post("/user_directory/search", {"search_term": term})
            assert [one["user_id"] for one in found["results"]] == expected


@pytest_twisted.ensureDeferred
async def test_the_name_is_reserved_before_it_is_used(house: House) -> None:
    assert await house.alice.refused("GET", "/register/available?username=notices") == (400, "M_USER_IN_USE")


@pytest_twisted.ensureDeferred
async def test_who_is_deactivated_leaves(house: House) -> None:
    await house.tell()
    (room,) = await house.invited()
    auth = {"type": "m.login.password", "user": "alice", "password": "a password"}
    await house.alice.post("/account/deactivate", {"auth": auth})
    hs = house.made.main.hs
    departures = DeactivationStore(hs.database)
    while await departures.departing():
        pass  # the main process is at it
    assert await hs.rooms.memberships.membership(room, house.alice.id) == "leave"
    body = {"user_id": house.alice.id, "content": TEXT}
    assert await house.admin.refused("POST", SEND, body) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("version", ["10", "12"])
@pytest_twisted.ensureDeferred
async def test_with_auto_join_users_are_there_at_once(database_settings: PoolSettings, version: str) -> None:
    options = {"system_mxid_localpart": "notices", "auto_join": True}
    async with cluster(database_settings, server_notices=options, default_room_version=version) as made:
        house = await _house(made)
        await house.tell()
        ((room, synced),) = (await house.joined()).items()
        assert [e["content"]["body"] for e in synced["timeline"]["events"] if e["type"] == "m.room.message"] == [
            "Hello"
        ]
        await house.alice.post(f"/rooms/{room}/leave")
        await house.tell()
        assert list(await house.joined()) == [room]


@pytest_twisted.ensureDeferred
async def test_somebody_who_had_the_name_before_speaks_for_nobody(database_settings: PoolSettings) -> None:
    async with cluster(database_settings) as made:
        await person(made.main, "notices")
        assert await (await _house(made)).admin.refused("POST", SEND, {"user_id": "@alice:test", "content": TEXT}) == (
            400,
            "M_UNKNOWN",
        )
    async with cluster(database_settings, server_notices=OPTIONS) as made:
        admin = await administrator(made.main, "admin2")
        code, answer = await admin.ask("POST", SEND, {"user_id": "@alice:test", "content": TEXT})
        assert (code, answer["errcode"]) == (400, "M_UNKNOWN")
        assert "somebody's account" in answer["error"]


# -- a main process that dies halfway ----------------------------------------------------------------------------------


class Died(Exception):
    """The end of the process, as far as what it was doing is concerned."""


def dies_once(monkeypatch: pytest.MonkeyPatch, owner: object, method: str, *, afterwards: bool = False) -> None:
    """Has the process die at the next call of that method, or right after it."""
    work = getattr(owner, method)
    died: list[bool] = []

    async def dying(*args: Any, **kw: Any) -> Any:
        if died:
            return await work(*args, **kw)
        died.append(True)
        if afterwards:
            await work(*args, **kw)
        raise Died

    monkeypatch.setattr(owner, method, dying)


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize("step", ["room_creation.create", "set_room", "set_tag", "invite"])
@pytest_twisted.ensureDeferred
async def test_wherever_it_dies_there_is_one_room_in_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str, afterwards: bool
) -> None:
    hs = house.made.main.hs
    notices = hs.conduct.server_notices
    owner: object = {
        "room_creation.create": hs.rooms.room_creation,
        "set_room": hs.conduct.notices_store,
        "set_tag": hs.accounts.account_data,
        "invite": hs.rooms.memberships,
    }[step]
    dies_once(monkeypatch, owner, step.rpartition(".")[2], afterwards=afterwards)
    notice = Notice(user_id=house.alice.id, content=TEXT, txn_id="once")
    with pytest.raises(Died):
        await notices.send(notice)
    event_id = await notices.send(notice)
    assert await notices.send(notice) == event_id
    (room,) = await house.invited()
    assert (await house.alice.get(f"/user/{house.alice.id}/rooms/{room}/tags"))["tags"] == {"m.server_notice": {}}
    await house.alice.post(f"/rooms/{room}/join")
    messages = [event["content"]["body"] for event in await _messages(house.alice, room)]
    assert messages == ["Hello"]


async def _messages(who: Person, room: str) -> list[Any]:
    chunk = (await who.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"]
    return [event for event in chunk if event["type"] == "m.room.message"]


@pytest_twisted.ensureDeferred
async def test_a_room_that_is_lost_is_replaced(house: House) -> None:
    await house.tell()
    (room,) = await house.invited()
    await house.made.main.hs.rooms.memberships.leave(Requester("@notices:test"), room)
    await house.tell()
    (other,) = set(await house.invited()) - {room}
    refused = await house.alice.refused("POST", f"/rooms/{other}/leave", {})
    assert refused == (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")


def test_pictures_are_on_this_server() -> None:
    options = {"server_notices": {**OPTIONS, "room_avatar_url": "https://example.org/a.png"}}
    with pytest.raises(ConfigError, match="no mxc: URI"):
        from_options({**ACCOUNTS, **options})
