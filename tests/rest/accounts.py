"""A server's account services over a real database, in one process, with a held clock and streams that only count."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.task import Clock

from synapse.api.errors import not_found
from synapse.app._accounts import Accounts
from synapse.app._conduct import Conduct
from synapse.app._encryption import Encryption
from synapse.app._extras import Extras
from synapse.app._federation import Federation
from synapse.app._pushing import Pushing
from synapse.app._sessions import Sessions
from synapse.app._sso import SignOnServices
from synapse.config.root import from_options
from synapse.federation.errors import Unreachable
from synapse.handlers.edus.asking import TheirKeys
from synapse.handlers.new_sessions import DeviceRequest
from synapse.http.ratelimit import RateLimits
from synapse.replication.calls import LocalMain
from synapse.replication.notifier import Notifier
from synapse.rest.registry import ROWS
from synapse.storage.database import Database
from synapse.storage.remote_devices import RemoteDeviceStore
from synapse.storage.user_ips import Seen
from synapse.sync.ignored import IgnoredUsers
from synapse.util.caches import Cache, Caches
from tests.rest.driver import Driver, Reply

T = TypeVar("T")
C = "/_matrix/client/v3"
SECRET = "the registration secret"
START = 1_700_000_000

# The classes of endpoints that are the account services', by a name of each.
MOUNTED = (
    *(
        "register",
        "registration_token_validity",
        "ui_fallback",
        "login_page",
        "admin_registration_tokens",
        "login",
        "devices",
        "account_password",
        "login_get_token",
        "auth_metadata",
        "account_deactivate",
        "capabilities",
        "turn_server",
        "profile_get",
        "user_directory_search",
    ),
    *("admin_users", "admin_user_devices"),
    *("account_data_get", "filter_create", "push_rules", "pushers", "keys_upload", "send_to_device", "admin_register"),
    *("suspend_get", "whois", "consent_page", "account_validity_renew"),
    *("threepids", "threepids_email_token", "registration_submit_email", "admin_threepid_owner"),
    "admin_deactivate",
    *(
        "login_sso_redirect",
        "sso_account_details",
        "sso_fallback",
        "login_cas_ticket",
        "saml2_metadata",
        "oidc_callback",
        "oidc_backchannel_logout",
    ),
    *("key_backup_create", "room_keys_put", "openid_request_token", "openid_userinfo"),
    "dehydrated_device_put",
    *("keys_device_signing_upload", "admin_allow_cross_signing_replacement"),
)
_MEDIA = tempfile.TemporaryDirectory(prefix="synapse-media-")  # which goes with the tests' process
OPTIONS = {
    "server_name": "test",
    "database": {"data_directory": "unused"},
    "media_store_path": _MEDIA.name,
    "signing_key_path": str(Path(__file__).with_name("test.signing.key")),
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "registration_shared_secret": SECRET,
    "bcrypt_rounds": 4,
    "user_directory": {"search_all_users": True},
}


class CountingStream:
    """Hands out positions and remembers whom it told of."""

    def __init__(self, name: str, notifier: Notifier) -> None:
        self.name = name
        self.position = 0
        self.told: list[Any] = []
        self._notifier = notifier

    async def append(self, write: Callable[[int], Awaitable[T]], rows: Callable[[T], Iterable[Any]]) -> T:
        self.position = position = self.position + 1
        result = await write(position)
        told = list(rows(result))
        self.told += told
        self._notifier.on_advance(self.name, position, [(position, row) for row in told])
        return result


class NoOtherServers:
    """In place of the way to other servers, and of the rooms that are shared with them: there are none."""

    async def query_user_keys(self, destination: str, *_: Any, **__: Any) -> Any:
        raise Unreachable(destination, f"{destination} cannot be reached.")

    claim_user_keys = query_user_keys

    async def sharing(self, _user_ids: Collection[str]) -> set[str]:
        return set()


class Server:
    """The foundation that the account services need, the services, and a client's way to them.

    :param options: of the configuration; None takes one of `OPTIONS` away.
    :param limited: whether rate limits hold.
    :param reactor: with a held clock; one that connects, for servers that ask others.
    """

    def __init__(
        self, database: Database, *, limited: bool = False, reactor: Clock | None = None, **options: Any
    ) -> None:
        given = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
        self.config = from_options(given)
        self.database = database
        self.clock = self.reactor = Clock() if reactor is None else reactor
        self.clock.advance(START)
        self.is_main = True
        self.main = LocalMain()
        self.caches = Caches()
        self.notifier = Notifier(self.clock)
        self.ratelimits = RateLimits(self.config.ratelimiting.by_name if limited else lambda _: None, self.clock)
        self.streams: dict[str, CountingStream] = {}
        self.forgotten: list[tuple[str, str]] = []
        self.propagated: list[str] = []
        self.gone: list[str] = []
        self.accounts = Accounts(self)
        self.conduct = Conduct(self)
        self.encryption = Encryption(self)
        self.sessions = Sessions(self)
        self.sso = SignOnServices(self)
        self.extras = Extras(self)
        self.federation = Federation(self)
        nobody: Any = NoOtherServers()
        self.their_keys = TheirKeys(RemoteDeviceStore(database), lambda: nobody, lambda: nobody, self.main, self.clock)
        hs: Any = self
        self.pushing = Pushing(hs)
        owners = [row.make(hs) for row in ROWS if set(row.names) & set(MOUNTED)]
        self.driver = Driver(*owners, authenticator=self.accounts.authenticator)

    def stream_writer(self, name: str) -> CountingStream:
        return self.streams.setdefault(name, CountingStream(name, self.notifier))

    async def invalidate(self, cache: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.forgotten.append((cache, key))
            self.caches.invalidate(cache, key)

    async def report_sightings(self, batch: list[Seen]) -> None:
        raise AssertionError("this is the main process")

    async def profile_elsewhere(self, user_id: str) -> dict[str, Any]:
        raise not_found("There is no other server.")

    async def update_profile_in_rooms(self, user_id: str) -> None:
        self.propagated.append(user_id)

    async def user_registered(self, user_id: str) -> None:
        raise AssertionError("there are no rooms")

    async def ignorers(self, user_ids: Collection[str], sender: str) -> Collection[str]:
        return await IgnoredUsers(self.accounts.account_data_store, Cache("ignored", 10)).ignorers(user_ids, sender)

    async def user_deactivated(self, user_id: str) -> None:
        self.gone.append(user_id)

    async def call(self, method: str, path: str, body: Any = None, user: str | None = None, **kw: Any) -> Reply:
        """`path` without its prefix when it does not begin with an underscore; `user` is an access token."""
        full = path if path.startswith("/_") else C + path
        return await self.driver.call(method, full, body, user=user, **kw)

    async def register(self, name: str, password: str = "password", device: str = "DEVICE") -> str:
        """Registers a user and returns the access token."""
        body = {"username": name, "password": password, "device_id": device, "auth": {"type": "m.login.dummy"}}
        reply = await self.call("POST", "/register", body)
        assert reply.code == 200, reply
        return str(reply.json["access_token"])

    async def login(self, name: str, password: str = "password", **kw: Any) -> Reply:
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": password, **kw}
        return await self.call("POST", "/login", body)

    async def is_logged_in(self, token: str) -> bool:
        return (await self.call("GET", "/account/whoami", user=token)).code == 200


@pytest.fixture
def server(database: Database) -> Server:
    return Server(database)


def error(reply: Reply) -> tuple[int, str]:
    """Status and errcode; every error has a sentence."""
    assert isinstance(reply.json.get("error"), str), reply
    return reply.code, reply.errcode


async def admin_of(server: Server) -> str:
    """An access token of the administrator `boss`, who is made when first asked for."""
    accounts, device = server.accounts, DeviceRequest()
    if await accounts.users.get("@boss:test") is None:
        made = await accounts.registration.register("boss", None, device, admin=True)
    else:
        made = await server.sessions.new_sessions.begin("@boss:test", device, refresh=False)
    assert made.access_token is not None
    return made.access_token
