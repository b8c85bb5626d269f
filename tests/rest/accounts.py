"""A server's account services over a real database, in one process, with a held clock and a stream that only counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from synapse.api.filters import Filter
from synapse.config.sections import RatelimitConfig, UserDirectoryConfig, VoipConfig
from synapse.handlers.account_data import AccountData
from synapse.handlers.auth import CACHE, Authenticator, Known
from synapse.handlers.device_changes import DeviceChanges
from synapse.handlers.devices import Devices
from synapse.handlers.filters import Filters
from synapse.handlers.key_changes import KeyChanges
from synapse.handlers.keys import Keys
from synapse.handlers.login import Login
from synapse.handlers.passwords import Passwords
from synapse.handlers.profile import Profiles
from synapse.handlers.push_rules import PushRules
from synapse.handlers.registration import Registration
from synapse.handlers.shared_secret import SharedSecret
from synapse.handlers.to_device import ToDevice
from synapse.handlers.turn import Turn
from synapse.handlers.ui_auth import UiAuth
from synapse.handlers.user_directory import UserDirectory
from synapse.handlers.user_ips import UserIps
from synapse.http.ratelimit import RateLimits
from synapse.push.evaluator import Program
from synapse.replication.calls import LocalMain
from synapse.rest.admin.register import AdminRegister
from synapse.rest.client.account_data import AccountDataEndpoints, FilterEndpoints
from synapse.rest.client.devices import DeviceEndpoints
from synapse.rest.client.discovery import AccountServices, Capabilities
from synapse.rest.client.keys import KeyEndpoints, ToDeviceEndpoints
from synapse.rest.client.profile import ProfileEndpoints
from synapse.rest.client.pushrules import PusherEndpoints, PushRuleEndpoints
from synapse.rest.client.sessions import Register, Sessions
from synapse.rest.client.user_directory import UserDirectoryEndpoints
from synapse.storage.access_tokens import AccessTokenStore
from synapse.storage.account_data import AccountDataStore
from synapse.storage.database import Database
from synapse.storage.devices import DeviceStore
from synapse.storage.filters import FilterStore
from synapse.storage.keys import KeyStore
from synapse.storage.past_state import PastStateStore
from synapse.storage.profiles import ProfileStore
from synapse.storage.push_rules import PushRuleStore
from synapse.storage.shared_rooms import SharedRoomStore
from synapse.storage.to_device import ToDeviceStore
from synapse.storage.ui_auth import UiAuthStore
from synapse.storage.user_directory import UserDirectoryStore
from synapse.storage.user_ips import Seen, UserIpStore
from synapse.storage.user_rooms import UserRoomStore
from synapse.storage.users import UserStore
from synapse.util.caches import Cache
from tests.rest.driver import Driver, Reply

T = TypeVar("T")
C = "/_matrix/client/v3"
SECRET = "the registration secret"
START = 1_700_000_000


class CountingStream:
    """Hands out positions and remembers whom it told of."""

    def __init__(self) -> None:
        self.position = 0
        self.told: list[Any] = []

    async def append(self, write: Callable[[int], Awaitable[T]], rows: Callable[[T], Iterable[Any]]) -> T:
        self.position += 1
        result = await write(self.position)
        self.told += rows(result)
        return result


class Server:
    """The services, and users with sessions."""

    def __init__(
        self,
        database: Database,
        *,
        enable_registration: bool = True,
        allow_guests: bool = False,
        secret: str | None = SECRET,
        directory: UserDirectoryConfig | None = None,
        voip: VoipConfig | None = None,
        limits: RatelimitConfig | None = None,
        tokens: Cache[str, Known] | None = None,
    ) -> None:
        self.database = database
        self.clock = Clock()
        self.clock.advance(START)
        self.main = LocalMain()
        self.streams = {name: CountingStream() for name in ("account_data", "push_rules", "to_device", "device_lists")}
        self.forgotten: list[tuple[str, str]] = []
        self.propagated: list[str] = []
        self.token_cache: Cache[str, Known] = tokens or Cache(CACHE, 100)
        self.programs: Cache[str, Program] = Cache("push_rules", 100)
        self.sightings = UserIps(self._record, self.clock)
        self.to_device_store = ToDeviceStore(database)
        self.driver = self._driver(enable_registration, allow_guests, secret, directory, voip or VoipConfig(), limits)

    def _driver(
        self,
        enable_registration: bool,
        allow_guests: bool,
        secret: str | None,
        directory: UserDirectoryConfig | None,
        voip: VoipConfig,
        limits: RatelimitConfig | None,
    ) -> Driver:
        db, clock, main, streams = self.database, self.clock, self.main, self.streams
        users, tokens, device_store, key_store = UserStore(db), AccessTokenStore(db), DeviceStore(db), KeyStore(db)
        self.authenticator = Authenticator(tokens, self.token_cache, self._invalidate, self.sightings, clock)
        passwords = Passwords("pepper", 4, deferToThread)
        rates = RateLimits(limits.by_name if limits else lambda _: None, clock)
        login = Login(users, tokens, self.authenticator, passwords, clock, "test", passwords_enabled=True, limits=rates)
        registration = Registration(
            users, passwords, main, clock, "test", enabled=enable_registration, guests=allow_guests
        )
        changes = DeviceChanges(key_store, streams["device_lists"], main, self._invalidate, clock)
        devices = Devices(device_store, key_store, self.authenticator, changes)
        ui_auth = UiAuth(UiAuthStore(db), clock, login.check_stage)
        self.push_rules = PushRules(PushRuleStore(db), self.programs, streams["push_rules"], main)
        to_device = ToDevice(self.to_device_store, streams["to_device"], main, clock, "test")
        account_data = AccountData(AccountDataStore(db), streams["account_data"], main)
        config = directory or UserDirectoryConfig(search_all_users=True)
        return Driver(
            Register(registration, ui_auth),
            Sessions(login, devices, tokens, self.authenticator),
            DeviceEndpoints(devices, ui_auth),
            ProfileEndpoints(Profiles(ProfileStore(db), "test", self._propagate)),
            AccountDataEndpoints(account_data),
            FilterEndpoints(Filters(FilterStore(db), Filter.parse)),
            PushRuleEndpoints(self.push_rules),
            PusherEndpoints(),
            KeyEndpoints(
                Keys(key_store, changes, clock, "test"),
                KeyChanges(UserRoomStore(db), PastStateStore(db), SharedRoomStore(db)),
            ),
            ToDeviceEndpoints(to_device),
            Capabilities("12"),
            AccountServices(Turn(voip, clock)),
            UserDirectoryEndpoints(UserDirectory(UserDirectoryStore(db), config, "test")),
            AdminRegister(registration, SharedSecret(secret, clock)),
            authenticator=self.authenticator,
        )

    async def _invalidate(self, name: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.forgotten.append((name, key))
            if name == CACHE:
                self.token_cache.invalidate(key)

    async def _propagate(self, user_id: str) -> None:
        self.propagated.append(user_id)

    async def _record(self, batch: list[Seen]) -> None:
        await UserIpStore(self.database).record(batch)

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
