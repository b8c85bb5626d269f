"""Accounts of those who come by single sign-on, whatever the provider, and however many processes there are."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers.sso.sign_on import LoggedIn
from synapse.handlers.sso.types import Departure, Purpose, RemoteIdentity, SsoRefused, ToLogIn, ToProve
from synapse.http.client import ClientAnswer, NotSent
from synapse.storage.database import Database, Transaction
from synapse.storage.external_ids import ExternalId
from tests.rest.accounts import Server
from tests.rest.sso import BASE

CLIENT = "https://client.test/"
PNG = b"\x89PNG\r\n\x1a\n"


class Idp:
    """A provider that is here."""

    id = "here"
    name = "Here"
    icon = brand = None
    allow_existing_users = False
    enable_registration = True
    posts_back = False

    async def begin(self, state: str, purpose: Purpose) -> Departure:
        return Departure(f"https://idp.test/?{state}", {"nonce": "x"})


class Pictures:
    """Takes the place of the client for requests to hosts that users name."""

    def __init__(self) -> None:
        self.kind, self.content, self.asked = "image/png", PNG, 0

    async def request(self, method: str, url: str, **_: Any) -> ClientAnswer:
        self.asked += 1
        if not url.startswith("https://pictures.test/"):
            raise NotSent("not there")
        return ClientAnswer(200, {"content-type": self.kind}, self.content)


def server_of(database: Database, pictures: Pictures | None = None, provider: Any = None, **options: Any) -> Server:
    server = Server(database, public_baseurl=BASE, **options)
    services: Any = server.sso
    services._outside_client = pictures or Pictures()
    server.sso.sign_on.providers["here"] = provider or Idp()
    return server


def idp(**what: Any) -> Any:
    """A provider that differs in something."""
    made: Any = Idp()
    for name, value in what.items():
        setattr(made, name, value)
    return made


def identity(subject: str = "1", localpart: str | None = "alice", **what: Any) -> RemoteIdentity:
    return RemoteIdentity(provider="here", subject=subject, localpart=localpart, **what)


async def arrive(server: Server, who: RemoteIdentity) -> str:
    step = await server.sso.sign_on.arrive(who, ToLogIn(CLIENT), "browser")
    assert isinstance(step, LoggedIn)
    return step.user_id


@pytest_twisted.ensureDeferred
async def test_who_comes_twice_at_once_gets_one_account(database: Database) -> None:
    servers = [server_of(database) for _ in range(4)]
    came = [Deferred.fromCoroutine(arrive(server, identity())) for server in servers * 2]
    assert set(await gatherResults(came)) == {"@alice:test"}
    count = await database.read("test", _count)
    assert count == 1


def _count(txn: Transaction) -> int:
    txn.execute("SELECT count(*) FROM users")
    return int(txn.one()[0])


@pytest_twisted.ensureDeferred
async def test_many_of_one_name_get_a_name_each(database: Database) -> None:
    servers = [server_of(database) for _ in range(4)]
    came = [Deferred.fromCoroutine(arrive(servers[number % 4], identity(str(number)))) for number in range(8)]
    assert len(set(await gatherResults(came))) == 8


@pytest_twisted.ensureDeferred
async def test_a_session_goes_on_in_another_process(database: Database) -> None:
    one, other = server_of(database), server_of(database)
    location = await one.sso.sign_on.depart("here", ToLogIn(CLIENT), "browser")
    state = location.partition("?")[2]
    with pytest.raises(SsoRefused):
        await other.sso.sessions.take_away("another", state, "another browser")
    away = await other.sso.sessions.take_away("here", state, "browser")
    assert (away.purpose, away.remembered) == (ToLogIn(CLIENT), {"nonce": "x"})
    for server in (one, other):
        with pytest.raises(SsoRefused):
            await server.sso.sessions.take_away("here", state, "browser")


@pytest_twisted.ensureDeferred
async def test_only_hashes_of_sessions_and_browsers_are_stored(database: Database) -> None:
    server = server_of(database)
    state = (await server.sso.sign_on.depart("here", ToLogIn(CLIENT), "browser")).partition("?")[2]
    kept = await database.read("test", lambda txn: (txn.execute("SELECT * FROM sso_sessions"), txn.rows())[1])
    text = str([bytes(value) if isinstance(value, memoryview) else value for value in kept[0]])
    assert len(kept) == 1
    assert state not in text
    assert "browser'" not in text


@pytest_twisted.ensureDeferred
async def test_pictures_and_addresses(database: Database) -> None:
    pictures = Pictures()
    server = server_of(database, pictures, sso={"update_profile_information": True})
    await server.accounts.contacts.store.add(await _bob(server), "email", "taken@x.test", 1, 1)
    emails = ("Alice@X.test", "taken@x.test", "no address")
    who = identity(picture="https://pictures.test/a.png", emails=emails, display_name="x" * 300)
    user_id = await arrive(server, who)
    contacts = await server.accounts.contacts.store.of_user(user_id)
    assert [(one.medium, one.address) for one in contacts] == [("email", "alice@x.test")]
    profile = (await server.call("GET", f"/profile/{user_id}")).json
    assert profile["displayname"] == "x" * 256
    assert profile["avatar_url"].startswith("mxc://test/")
    await arrive(server, who)  # the same picture is not uploaded again
    assert (await server.call("GET", f"/profile/{user_id}")).json["avatar_url"] == profile["avatar_url"]
    pictures.content += b"changed"
    await arrive(server, who)
    changed = (await server.call("GET", f"/profile/{user_id}")).json["avatar_url"]
    assert changed != profile["avatar_url"]
    for url, kind in (("https://gone.test/", "image/png"), ("https://pictures.test/", "text/html"), ("file:///x", "")):
        pictures.kind = kind
        await arrive(server, identity(picture=url))
    assert (await server.call("GET", f"/profile/{user_id}")).json["avatar_url"] == changed


async def _bob(server: Server) -> str:
    await server.register("bob")
    return "@bob:test"


@pytest_twisted.ensureDeferred
async def test_nobody_becomes_a_user_by_confirming(database: Database) -> None:
    server = server_of(database, provider=idp(allow_existing_users=True))
    token = await server.register("alice")
    asked = await server.call("DELETE", "/devices/DEVICE", {}, token)
    with pytest.raises(SsoRefused):
        await server.sso.sign_on.arrive(identity(), ToProve(asked.json["session"]), "browser")
    assert await server.sso.users.providers_of("@alice:test") == []
    assert await arrive(server, identity()) == "@alice:test"
    assert await server.sso.users.providers_of("@alice:test") == ["here"]


@pytest_twisted.ensureDeferred
async def test_deactivated_users_are_told_so_until_they_are_erased(database: Database) -> None:
    server = server_of(database)
    user_id = await arrive(server, identity())
    await server.accounts.deactivation.deactivate(user_id, erase=False)
    with pytest.raises(SsoRefused, match="deactivated"):
        await arrive(server, identity())
    await server.accounts.deactivation.deactivate(user_id, erase=True)
    assert await server.sso.users.owner(identity()) is None


@pytest_twisted.ensureDeferred
async def test_guests_and_others_accounts_are_nobodys(database: Database) -> None:
    """`allow_existing_users` is for accounts that people have."""
    server = server_of(database, provider=idp(allow_existing_users=True), allow_guest_access=True)
    guest = (await server.call("POST", "/register", {}, query={"kind": "guest"})).json["user_id"]
    assert await arrive(server, identity(localpart=guest[1:].partition(":")[0])) != guest
    store = server.sso.users._identities
    assert not await store.add(ExternalId("here", "1"), "@somebody:test")
    assert not await store.remove(ExternalId("here", "1"), "@somebody:test")
