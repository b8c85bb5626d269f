"""The prompt inside a process."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.conch.interfaces import IConchUser
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin

from synapse.app._manhole import manhole_factory
from synapse.config import Config, from_options
from synapse.config.generate import new_signing_key
from tests.app.processes import read_until
from tests.support.reactor import real_reactor


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "key").write_text(new_signing_key())
    return from_options(
        {
            "server_name": "example.org",
            "signing_key_path": str(tmp_path / "key"),
            "database": {"name": "embedded", "data_directory": str(tmp_path)},
            "manhole_password": "open sesame",
        }
    )


@pytest_twisted.ensureDeferred
async def test_only_the_password_opens_it(config: Config) -> None:
    portal = manhole_factory(config, {}).portal
    await portal.login(UsernamePassword(b"synapse", b"open sesame"), None, IConchUser)
    for user, password in ((b"synapse", b"synapse"), (b"synapse", b""), (b"matrix", b"open sesame")):
        with pytest.raises(UnauthorizedLogin):
            await portal.login(UsernamePassword(user, password), None, IConchUser)


@pytest_twisted.ensureDeferred
async def test_it_speaks_ssh(config: Config) -> None:
    port = real_reactor().listenTCP(0, manhole_factory(config, {}), interface="127.0.0.1")
    try:
        assert (await read_until(port.getHost().port, b"\n")).startswith(b"SSH-2.0-")
    finally:
        await port.stopListening()
