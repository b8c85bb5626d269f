"""register_new_matrix_user, against a server that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from synapse.http.site import Site
from synapse.storage.database import Database
from synapse.synctl.new_user import main
from tests.rest.accounts import SECRET, Server


class Listening:
    """A server with a port of its own, and the command line."""

    def __init__(self, database: Database, directory: Path) -> None:
        from twisted.internet import reactor

        twisted: Any = reactor
        self.server = Server(database, enable_registration=None)
        site: Any = Site(self.server.driver.router, twisted, {"client"})
        self.port = twisted.listenTCP(0, site, interface="127.0.0.1")
        self.config = directory / "homeserver.yaml"
        self.write(f"registration_shared_secret: {SECRET}")

    def write(self, secret: str) -> None:
        number = self.port.getHost().port
        listener = f"{{type: http, port: {number}, bind_addresses: ['0.0.0.0'], resources: [{{names: [client]}}]}}"
        self.config.write_text(
            f"server_name: test\nlisteners: [{listener}]\ndatabase: {{data_directory: x}}\n{secret}\n"
        )

    async def run(self, *arguments: str) -> int:
        return int(await deferToThread(main, ["-c", str(self.config), *arguments]))

    async def is_admin(self, user_id: str) -> bool:
        user = await self.server.accounts.users.get(user_id)
        assert user is not None
        return user.admin


@pytest_twisted.async_yield_fixture
async def listening(database: Database, tmp_path: Path) -> AsyncIterator[Listening]:
    found = Listening(database, tmp_path)
    yield found
    await found.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_first_administrator(listening: Listening, capsys: pytest.CaptureFixture[str]) -> None:
    assert await listening.run("-u", "alice", "-p", "wönderland", "-a") == 0
    assert capsys.readouterr().out == "@alice:test is registered, as an administrator.\n"
    assert await listening.is_admin("@alice:test")
    login = await listening.server.login("alice", "wönderland")
    devices = await listening.server.call("GET", "/devices", user=login.json["access_token"])
    assert len(devices.json["devices"]) == 1  # the command left no session of its own


@pytest_twisted.ensureDeferred
async def test_what_is_not_given_is_asked_for(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "New user's name: ": "bob",
        "Make admin [no]: ": "",
        "Password: ": "s3cret",
        "Confirm password: ": "s3cret",
    }
    monkeypatch.setattr("builtins.input", answers.__getitem__)
    monkeypatch.setattr("getpass.getpass", answers.__getitem__)
    assert await listening.run() == 0
    assert not await listening.is_admin("@bob:test")
    assert (await listening.server.login("bob", "s3cret")).code == 200
    answers["Confirm password: "] = "another"
    assert await listening.run("-u", "carol") == 1
    assert await listening.server.accounts.users.get("@carol:test") is None


@pytest_twisted.ensureDeferred
async def test_a_password_and_a_secret_from_files(listening: Listening, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    listening.write(f"registration_shared_secret_path: {tmp_path / 'secret'}")
    assert (
        await listening.run("-u", "bot", "--password-file", str(tmp_path / "password"), "--no-admin", "-t", "bot") == 0
    )
    assert (await listening.server.login("bot", "from a file")).code == 200


@pytest_twisted.ensureDeferred
async def test_an_account_that_is_there(listening: Listening, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("-u", "alice", "--no-admin", "-p")
    assert await listening.run(*words, "first") == 0
    assert await listening.run(*words, "second") == 1
    assert "the server says: " in capsys.readouterr().err
    assert await listening.run(*words, "second", "--exists-ok") == 0
    assert (await listening.server.login("alice", "first")).code == 200


MISTAKES: dict[str, tuple[Callable[[Listening], Any], tuple[str, ...], str]] = {
    "no secret": (lambda given: given.write(""), (), "`registration_shared_secret` is not set"),
    "another secret": (lambda given: given.write("registration_shared_secret: wrong"), (), "The MAC is wrong"),
    "no server": (lambda given: None, ("http://127.0.0.1:1",), "cannot be reached"),
    "no URL": (lambda given: None, ("localhost",), "is that its URL?"),
    "no such file": (lambda given: given.config.unlink(), (), "does not exist"),
    "no password": (lambda given: None, ("--password-file", "/nowhere"), "/nowhere, which cannot be read"),
    "a bad name": (lambda given: None, ("-u", "A B"), "the server says: "),
    "no text": (lambda given: None, ("-u", "\udcff"), "UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest_twisted.ensureDeferred
async def test_mistakes_are_told(listening: Listening, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, arguments, expected = MISTAKES[mistake]
    make(listening)
    words = arguments if "--password-file" in arguments else ("-p", "x", *arguments)
    assert await listening.run("-u", "alice", "-a", *words) == 1
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert SECRET not in said
