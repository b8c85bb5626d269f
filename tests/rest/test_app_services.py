"""Application services: acting for their users, registering them, logging in as them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import yaml

from synapse.config import ConfigError
from synapse.storage.database import Database, Transaction
from synapse.storage.pool import PoolSettings
from tests.api.test_app_services import IRC, OTHER
from tests.rest.accounts import C, Server, error
from tests.rest.driver import Reply
from tests.support.homeserver import cluster, homeserver

TOKEN, OTHER_TOKEN = IRC["as_token"].replace(" ", "_"), OTHER["as_token"]
BOT, GHOST = "@_irc_bot:test", "@_irc_ghost:test"
SERVICE = {"type": "m.login.application_service"}
Make = Callable[..., Server]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for registration in ({**IRC, "as_token": TOKEN}, OTHER):
        paths.append(str(tmp_path / f"{registration['id']}.yaml"))
        Path(paths[-1]).write_text(yaml.safe_dump(registration))
    return paths


@pytest.fixture
def make(database: Database, files: list[str]) -> Make:
    return lambda **options: Server(database, app_service_config_files=files, **options)


async def register(server: Server, name: str, token: str | None = TOKEN, **more: Any) -> Reply:
    return await server.call("POST", "/register", {**SERVICE, "username": name, **more}, token)


async def whoami(server: Server, token: str = TOKEN, **query: str) -> Reply:
    return await server.call("GET", "/account/whoami", user=token, query=query)


async def log_in(server: Server, name: str, token: str | None = TOKEN, **more: Any) -> Reply:
    body = {**SERVICE, "identifier": {"type": "m.id.user", "user": name}, **more}
    return await server.call("POST", "/login", body, token)


@pytest_twisted.ensureDeferred
async def test_a_service_is_its_own_user_unless_it_names_another(make: Make, database: Database) -> None:
    server = make()
    assert (await whoami(server)).json == {"user_id": BOT, "is_guest": False}
    assert error(await whoami(server, user_id=GHOST)) == (403, "M_FORBIDDEN"), "nobody has registered that user"
    made = await register(server, "_irc_ghost", inhibit_login=True)
    assert (made.code, made.json) == (200, {"user_id": GHOST, "home_server": "test"})
    assert (await whoami(server, user_id=GHOST)).json == {"user_id": GHOST, "is_guest": False}
    with database.counted() as counted:
        assert (await whoami(server, user_id=GHOST)).code == 200
    assert not counted.read
    assert not counted.written

    def ids(txn: Transaction) -> list[Any]:
        txn.execute("SELECT user_id, app_service_id FROM users ORDER BY user_id")
        return [tuple(row) for row in txn.rows()]

    assert await database.read("test", ids) == [(BOT, "irc"), (GHOST, "irc")]


@pytest_twisted.ensureDeferred
async def test_a_service_acts_for_nobody_else(make: Make) -> None:
    server = make()
    await server.register("alice")
    await register(server, "_irc_ghost")
    for token, user_id in ((TOKEN, "@alice:test"), (TOKEN, "@_irc_ghost:elsewhere"), (OTHER_TOKEN, GHOST)):
        assert error(await whoami(server, token, user_id=user_id)) == (403, "M_FORBIDDEN")
    assert error(await whoami(server, "no such token")) == (401, "M_UNKNOWN_TOKEN")
    assert error(await whoami(server, TOKEN + "x", user_id=GHOST)) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_devices_of_a_services_user(make: Make) -> None:
    server = make()
    await register(server, "_irc_ghost", inhibit_login=True)
    query = {"user_id": GHOST, "device_id": "BRIDGE"}
    assert error(await whoami(server, **query)) == (400, "M_UNKNOWN_DEVICE")
    as_ghost = {"user": TOKEN, "query": {"user_id": GHOST}}
    made = await server.call("PUT", "/devices/BRIDGE", {"display_name": "the bridge"}, **as_ghost)
    assert (made.code, made.json) == (201, {})
    again = await server.call("PUT", "/devices/BRIDGE", {"display_name": "the other bridge"}, **as_ghost)
    assert (again.code, again.json) == (200, {})
    told = (await server.call("GET", "/devices", **as_ghost)).json["devices"]
    assert told == [{"device_id": "BRIDGE", "display_name": "the other bridge"}]
    assert (await whoami(server, **query)).json == {"user_id": GHOST, "is_guest": False, "device_id": "BRIDGE"}
    assert (await server.call("DELETE", "/devices/BRIDGE", {}, **as_ghost)).code == 200, "without any stages"
    assert error(await whoami(server, **query)) == (400, "M_UNKNOWN_DEVICE")
    assert (await whoami(server, user_id=GHOST)).code == 200


@pytest_twisted.ensureDeferred
async def test_a_user_who_is_deactivated_is_acted_for_no_more(make: Make) -> None:
    server = make()
    await register(server, "_irc_ghost")
    assert (await whoami(server, user_id=GHOST)).code == 200
    await server.accounts.deactivation.deactivate(GHOST, False)
    assert error(await whoami(server, user_id=GHOST)) == (403, "M_USER_DEACTIVATED")
    assert error(await log_in(server, GHOST)) == (403, "M_USER_DEACTIVATED")


@pytest_twisted.ensureDeferred
async def test_a_user_who_is_locked_is_acted_for_no_more(make: Make) -> None:
    server = make()
    await register(server, "_irc_ghost")
    assert (await whoami(server, user_id=GHOST)).code == 200
    hashes = await server.conduct.standing_store.mark(GHOST, "locked", True)
    await server.accounts.authenticator.forget(hashes)
    assert error(await whoami(server, user_id=GHOST)) == (401, "M_USER_LOCKED")


@pytest_twisted.ensureDeferred
async def test_services_log_in_as_their_users(make: Make) -> None:
    server = make(nonrefreshable_access_token_lifetime="1h")
    kinds = [flow["type"] for flow in (await server.call("GET", "/login")).json["flows"]]
    assert "m.login.application_service" in kinds
    first = (await register(server, "_irc_ghost", device_id="FIRST")).json
    assert (await server.call("GET", "/account/whoami", user=first["access_token"])).json["device_id"] == "FIRST"
    second = (await log_in(server, "_irc_ghost", device_id="SECOND")).json
    assert second["user_id"] == GHOST
    assert await server.is_logged_in(second["access_token"])
    server.clock.advance(3600)
    assert not await server.is_logged_in(second["access_token"])
    assert (await whoami(server, user_id=GHOST)).code == 200, "the service's own token never expires"


@pytest.mark.parametrize("kind", ["login", "register"])
@pytest_twisted.ensureDeferred
async def test_who_is_no_service_cannot_say_to_be_one(make: Make, kind: str) -> None:
    server = make()
    alice = await server.register("alice")
    ask = log_in if kind == "login" else register
    assert error(await ask(server, "_irc_ghost", None)) == (401, "M_MISSING_TOKEN")
    for token in ("no such token", alice):
        assert error(await ask(server, "_irc_ghost", token)) == (401, "M_UNKNOWN_TOKEN")
    assert error(await ask(server, "alice", TOKEN)) == (400, "M_EXCLUSIVE")
    assert error(await ask(server, "_irc_x", OTHER_TOKEN)) == (400, "M_EXCLUSIVE")


@pytest_twisted.ensureDeferred
async def test_where_there_are_no_services_nobody_is_one(server: Server) -> None:
    kinds = [flow["type"] for flow in (await server.call("GET", "/login")).json["flows"]]
    assert "m.login.application_service" not in kinds
    for ask in (log_in, register):
        assert error(await ask(server, "_irc_ghost", TOKEN)) == (401, "M_UNKNOWN_TOKEN")
        assert error(await ask(server, "_irc_ghost", None)) == (401, "M_MISSING_TOKEN")


@pytest_twisted.ensureDeferred
async def test_registrations_that_are_not_understood(make: Make) -> None:
    server = make(enable_registration=False)
    assert error(await server.call("POST", "/register", SERVICE, TOKEN)) == (400, "M_MISSING_PARAM")
    assert error(await register(server, "_irc_ä")) == (400, "M_INVALID_USERNAME")
    assert (await register(server, "_irc_a")).code == 200, "though nobody else may register"
    assert error(await register(server, "_irc_a")) == (400, "M_USER_IN_USE")
    assert error(await log_in(server, "_irc_nobody")) == (403, "M_FORBIDDEN")
    assert error(await log_in(server, "")) == (400, "M_EXCLUSIVE")


@pytest_twisted.ensureDeferred
async def test_people_cannot_have_the_names_of_services(make: Make) -> None:
    server = make()
    for name in ("_irc_x", "_IRC_x", "_irc_bot", "other"):
        body = {"username": name, "password": "x", "auth": {"type": "m.login.dummy"}}
        assert error(await server.call("POST", "/register", body)) == (400, "M_EXCLUSIVE")
        query = {"username": name}
        assert error(await server.call("GET", "/register/available", query=query)) == (400, "M_EXCLUSIVE")
    await server.register("shared")


@pytest_twisted.ensureDeferred
async def test_rate_limits_are_as_the_registration_says(files: list[str], database_settings: PoolSettings) -> None:
    few = {"per_second": 0.001, "burst_count": 1}
    async with homeserver(database_settings, app_service_config_files=files, rc_registration=few) as server:
        for number in range(3):
            body = {**SERVICE, "username": f"_irc_{number}"}
            assert (await server.client.post(f"{C}/register", body, TOKEN))[0] == 200
        body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
        assert [(await server.client.post(f"{C}/register", body))[0] for _ in range(2)] == [200, 429]


@pytest_twisted.ensureDeferred
async def test_aliases_belong_to_services(files: list[str], database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, app_service_config_files=files) as server:
        alice = await server.client.register("alice")

        async def answer(method: str, path: str, body: Any, token: str) -> Any:
            code, told = await server.client.request(method, C + path, body, token)
            return (code, told.get("errcode")) if code != 200 else told

        room = (await answer("POST", "/createRoom", {}, TOKEN))["room_id"]
        own = (await answer("POST", "/createRoom", {}, alice))["room_id"]
        kept, free, foreign = (f"/directory/room/%23{name}:test" for name in ("_irc_x", "open", "a"))
        exclusive = (400, "M_EXCLUSIVE")
        assert await answer("PUT", kept, {"room_id": own}, alice) == exclusive
        assert await answer("POST", "/createRoom", {"room_alias_name": "_irc_y"}, alice) == exclusive
        assert await answer("PUT", foreign, {"room_id": room}, TOKEN) == exclusive
        assert await answer("PUT", kept, {"room_id": room}, TOKEN) == {}
        assert await answer("PUT", free, {"room_id": own}, alice) == {}
        assert await answer("DELETE", kept, None, alice) == exclusive
        assert await answer("DELETE", kept, None, TOKEN) == {}


@pytest_twisted.ensureDeferred
async def test_a_service_may_ask_any_process(files: list[str], database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", "client_reader", app_service_config_files=files) as servers:
        reader, sync = servers["client_reader"].client, servers["synchrotron"].client
        assert (await sync.get(f"{C}/sync", TOKEN))[0] == 200, "its own user is made by the main process"
        assert (await reader.post(f"{C}/register", {**SERVICE, "username": "_irc_ghost"}, TOKEN))[0] == 200
        assert (await sync.get(f"{C}/sync?user_id={GHOST}", TOKEN))[0] == 200
        await servers.main.hs.accounts.deactivation.deactivate(GHOST, False)
        await servers.caught_up()
        code, refused = await sync.get(f"{C}/sync?user_id={GHOST}", TOKEN)
        assert (code, refused["errcode"]) == (403, "M_USER_DEACTIVATED")


@pytest_twisted.ensureDeferred
async def test_a_registration_that_is_gone_is_good_for_nothing(make: Make, database: Database) -> None:
    server = make()
    await register(server, "_irc_ghost")
    assert (await whoami(server, user_id=GHOST)).code == 200
    assert error(await whoami(Server(database), user_id=GHOST)) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("text", ["{", "5", "id: x", "\x80"])
def test_a_file_that_is_no_registration_is_refused_at_the_start(database: Database, tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="app_service_config_files"):
        Server(database, app_service_config_files=[str(file)])
