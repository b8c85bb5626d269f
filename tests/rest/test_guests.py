"""Guests: what they may do, and becoming a full user. Client-server API, "Guest Access"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted

from synapse.api.routes import find
from synapse.storage.pool import PoolSettings
from tests.rest.people import V3, Person, guest, person
from tests.support.homeserver import TestServer, cluster, homeserver

# The lists of the module, by the names of the route table.
RETRIEVING = (
    *("room_state", "room_context", "room_event", "room_state_get", "room_messages", "room_members"),
    *("room_initial_sync", "sync", "events", "media_download_authenticated", "media_thumbnail_authenticated"),
)
SENDING = ("room_join", "room_leave", "room_send", "room_state_set", "send_to_device")
MAINTAINING = (
    *("profile_field_set", "profile_field_delete", "devices", "device_get", "device_update", "whoami"),
    *("keys_upload", "keys_query", "keys_claim"),
)
NOT_FOR_GUESTS = (
    *("room_create", "knock", "room_invite", "room_kick", "room_ban", "room_unban", "room_redact", "room_forget"),
    *("room_typing", "room_receipt", "room_read_markers", "presence_set", "account_data_set", "room_tag_set"),
    *("account_password", "account_deactivate", "device_delete", "media_upload", "pusher_set", "push_rule_set"),
    *("user_directory_search", "alias_set", "room_visibility_set", "joined_rooms", "initial_sync"),
)


@pytest.mark.parametrize("name", [*RETRIEVING, *SENDING, *MAINTAINING])
def test_what_guests_may_do(name: str) -> None:
    assert find(name).guests


@pytest.mark.parametrize("name", NOT_FOR_GUESTS)
def test_what_guests_may_not_do(name: str) -> None:
    assert not find(name).guests


@pytest_twisted.async_yield_fixture
async def server(database_settings: PoolSettings) -> AsyncIterator[TestServer]:
    often = {"per_second": 100, "burst_count": 100}
    async with homeserver(database_settings, allow_guest_access=True, rc_registration=often) as hs:
        yield hs


def localpart(user: Person) -> str:
    return user.id[1:].partition(":")[0]


def upgrade(visitor: Person, **more: Any) -> dict[str, Any]:
    body = {"username": localpart(visitor), "password": "a password", "guest_access_token": visitor.token}
    return {**body, "auth": {"type": "m.login.dummy"}, **more}


@pytest_twisted.ensureDeferred
async def test_a_guest_chooses_nothing_but_how_the_device_is_called(server: TestServer) -> None:
    """`POST /register`: for guests, all parameters but `initial_device_display_name` "MUST BE ignored"."""
    wishes = {
        "username": "zed",
        "password": "secret",
        "device_id": "MINE",
        "inhibit_login": True,
        "auth": {"type": "x"},
    }
    code, made = await server.client.post(
        f"{V3}/register?kind=guest", {**wishes, "initial_device_display_name": "Phone"}
    )
    assert code == 200
    assert made["user_id"] != "@zed:test"
    assert made["device_id"] != "MINE"
    _, devices = await server.client.get(f"{V3}/devices", made["access_token"])
    assert [(each["device_id"], each["display_name"]) for each in devices["devices"]] == [(made["device_id"], "Phone")]
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": made["user_id"]}}
    assert (await server.client.post(f"{V3}/login", {**login, "password": "secret"}))[0] == 403


@pytest.mark.parametrize("how", ["state", "redaction"])
@pytest_twisted.ensureDeferred
async def test_guests_go_when_a_room_is_closed_to_them(server: TestServer, how: str) -> None:
    alice, visitor = await person(server, "alice"), await guest(server)
    room = await alice.room()
    opened = await alice.state(room, "m.room.guest_access", guest_access="can_join")
    await visitor.join(room)
    said = await visitor.say(room, "hello")
    await alice.put(f"/rooms/{room}/redact/{said}/1", {})
    since = (await alice.get("/sync"))["next_batch"]
    assert visitor.id in (await alice.get(f"/rooms/{room}/joined_members"))["joined"]
    if how == "state":
        await alice.state(room, "m.room.guest_access", guest_access="forbidden")
    else:
        await alice.put(f"/rooms/{room}/redact/{opened}/2", {})
    while visitor.id in (await alice.get(f"/rooms/{room}/joined_members"))["joined"]:
        since = (await alice.get(f"/sync?timeout=20000&since={since}"))["next_batch"]
    assert await visitor.refused("POST", f"/rooms/{room}/join", {}) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_guests_change_nothing_of_their_profile_but_the_name(server: TestServer) -> None:
    visitor = await guest(server)
    path = f"/profile/{visitor.id}"
    await visitor.put(f"{path}/displayname", {"displayname": "creeper"})
    assert (await visitor.get(path)) == {"displayname": "creeper"}
    for field in ("avatar_url", "org.example.field"):
        for method, body in (("PUT", {field: "mxc://test/a"}), ("DELETE", None)):
            assert await visitor.refused(method, f"{path}/{field}", body) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    await visitor.do("DELETE", f"{path}/displayname")
    assert (await visitor.get(path)) == {}


@pytest_twisted.ensureDeferred
async def test_guests_are_told_what_they_can_do(server: TestServer) -> None:
    told = (await (await guest(server)).get("/capabilities"))["capabilities"]
    assert told["m.profile_fields"] == {"enabled": True, "allowed": ["displayname"]}
    assert (told["m.set_displayname"], told["m.set_avatar_url"]) == ({"enabled": True}, {"enabled": False})
    assert told["m.change_password"] == {"enabled": False}


@pytest_twisted.ensureDeferred
async def test_a_guest_becomes_a_full_user(server: TestServer) -> None:
    alice, visitor = await person(server, "alice"), await guest(server)
    room, closed = await alice.room(), await alice.room()
    await alice.state(room, "m.room.guest_access", guest_access="can_join")
    await alice.state(closed, "m.room.guest_access", guest_access="forbidden")
    await visitor.join(room)
    assert await visitor.refused("POST", f"/rooms/{closed}/join", {}) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    code, asked = await server.client.post(f"{V3}/register", upgrade(visitor, auth=None))
    assert (code, asked["flows"]) == (401, [{"stages": ["m.login.dummy"]}])
    code, done = await server.client.post(f"{V3}/register", upgrade(visitor, device_id="NEW"))
    assert (code, done["user_id"], done["device_id"]) == (200, visitor.id, "NEW")
    assert await visitor.refused("GET", "/account/whoami") == (401, "M_UNKNOWN_TOKEN")
    user = Person(server.client, visitor.id, done["access_token"])
    assert await user.get("/account/whoami") == {"user_id": visitor.id, "device_id": "NEW", "is_guest": False}
    assert [device["device_id"] for device in (await user.get("/devices"))["devices"]] == ["NEW"]
    assert (await user.get("/joined_rooms"))["joined_rooms"] == [room]
    await user.join(closed)
    # A room that is closed to guests is not closed to those who were guests once.
    await alice.state(room, "m.room.guest_access", guest_access="forbidden")
    assert user.id in (await alice.get(f"/rooms/{room}/joined_members"))["joined"]
    identifier = {"type": "m.id.user", "user": user.id}
    login = {"type": "m.login.password", "identifier": identifier, "password": "a password"}
    assert (await server.client.post(f"{V3}/login", login))[0] == 200
    code, again = await server.client.post(f"{V3}/register", upgrade(visitor))
    assert (code, again["errcode"]) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_guests_are_limited_whatever_they_send_along(database_settings: PoolSettings) -> None:
    two = {"per_second": 0.001, "burst_count": 2}
    bodies: tuple[dict[str, Any], ...] = ({}, {"auth": {"session": "none"}}, {"auth": {"session": "none"}})
    async with homeserver(database_settings, allow_guest_access=True, rc_registration=two) as server:
        codes = [(await server.client.post(f"{V3}/register?kind=guest", body))[0] for body in bodies]
    assert codes == [200, 200, 429]


@pytest_twisted.ensureDeferred
async def test_without_a_login_nobody_is_logged_in(server: TestServer) -> None:
    visitor = await guest(server)
    code, done = await server.client.post(f"{V3}/register", upgrade(visitor, inhibit_login=True))
    assert (code, done.get("access_token"), done["user_id"]) == (200, None, visitor.id)
    assert await visitor.refused("GET", "/account/whoami") == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_nobody_upgrades_somebody_else(server: TestServer) -> None:
    alice, visitor, other = await person(server, "alice"), await guest(server), await guest(server)
    for body, code, errcode in (
        (upgrade(visitor, guest_access_token=other.token), 403, "M_FORBIDDEN"),
        (upgrade(visitor, guest_access_token=alice.token), 403, "M_FORBIDDEN"),
        (upgrade(alice), 403, "M_FORBIDDEN"),
        (upgrade(visitor, guest_access_token="nonsense"), 403, "M_FORBIDDEN"),
        (upgrade(visitor, guest_access_token=5), 400, "M_BAD_JSON"),
        (upgrade(visitor, username=None), 400, "M_MISSING_PARAM"),
    ):
        got, answer = await server.client.post(f"{V3}/register", body)
        assert (got, answer["errcode"]) == (code, errcode), body
    for user in (alice, visitor, other):
        assert (await user.get("/account/whoami"))["user_id"] == user.id


@pytest_twisted.ensureDeferred
async def test_the_token_of_the_guest_is_written_down_nowhere(server: TestServer) -> None:
    visitor = await guest(server)
    code, _ = await server.client.post(f"{V3}/register", upgrade(visitor, auth=None))
    assert code == 401

    def sessions(txn: Any) -> list[str]:
        txn.execute("SELECT client_dict::text FROM ui_auth_sessions")
        return [text for (text,) in txn.rows()]

    [session] = await server.hs.database.read("test", sessions)
    assert visitor.token not in session


@pytest_twisted.ensureDeferred
async def test_upgrading_on_a_worker(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "client_reader", "synchrotron", allow_guest_access=True) as hs:
        visitor = await guest(hs["client_reader"])
        assert (await hs["synchrotron"].client.get(f"{V3}/sync", visitor.token))[0] == 200
        code, done = await hs["client_reader"].client.post(f"{V3}/register", upgrade(visitor))
        assert (code, done["user_id"]) == (200, visitor.id)
        await hs.caught_up()
        assert (await hs["synchrotron"].client.get(f"{V3}/sync", visitor.token))[0] == 401
        assert (await hs["synchrotron"].client.get(f"{V3}/sync", done["access_token"]))[0] == 200
