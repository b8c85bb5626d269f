"""The files below /.well-known/matrix."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.config import ConfigError, from_options
from synapse.rest.client.versions import WellKnown
from tests.rest.accounts import OPTIONS, error
from tests.rest.driver import Driver, Reply


async def asked(name: str, **options: Any) -> Reply:
    config = from_options({**OPTIONS, **options})
    well_known = WellKnown(config.server.server_name, config.client_baseurl, config.discovery)
    return await Driver(well_known).call("GET", f"/.well-known/matrix/{name}")


@pytest_twisted.ensureDeferred
async def test_clients_find_the_server() -> None:
    assert (await asked("client")).json == {"m.homeserver": {"base_url": "https://test"}}
    told = await asked(
        "client",
        public_baseurl="https://matrix.test/",
        default_identity_server="https://id.test",
        extra_well_known_client_content={"org.example": {"a": [1]}, "m.homeserver": {"base_url": "https://wrong"}},
    )
    assert told.json == {
        "m.homeserver": {"base_url": "https://matrix.test"},
        "m.identity_server": {"base_url": "https://id.test"},
        "org.example": {"a": [1]},
    }


@pytest_twisted.ensureDeferred
async def test_servers_find_the_server() -> None:
    assert error(await asked("server")) == (404, "M_NOT_FOUND")
    assert (await asked("server", serve_server_wellknown=True)).json == {"m.server": "test:443"}
    for name in ("test:8448", "[::1]:8448"):
        assert (await asked("server", serve_server_wellknown=True, server_name=name)).json == {"m.server": name}
    assert (await asked("server", serve_server_wellknown=True, server_name="[::1]")).json == {"m.server": "[::1]:443"}


@pytest_twisted.ensureDeferred
async def test_people_find_help() -> None:
    assert error(await asked("support")) == (404, "M_NOT_FOUND")
    page = "https://test/help"
    assert (await asked("support", support_page=page)).json == {"support_page": page}
    contacts = [{"matrix_id": "@admin:far"}, {"email_address": "s@test", "role": "m.role.security"}]
    assert (await asked("support", support_page=page, support_contacts=contacts)).json == {
        "contacts": [
            {"matrix_id": "@admin:far", "role": "m.role.admin"},
            {"email_address": "s@test", "role": "m.role.security"},
        ],
        "support_page": page,
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("default_identity_server", "matrix.org"),
        ("support_page", "help"),
        ("support_contacts", [{}]),
        ("support_contacts", [{"matrix_id": "admin"}]),
    ],
)
def test_mistakes(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        from_options({**OPTIONS, option: value})


def test_what_public_baseurl_says_is_said_once() -> None:
    config = from_options({**OPTIONS, "extra_well_known_client_content": {"m.homeserver": {}}})
    assert "m.homeserver" in "".join(config.warnings)
