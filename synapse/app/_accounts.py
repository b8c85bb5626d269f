"""The account services of a process: users, sessions, devices, profiles, settings, keys, media, the user directory.

A part of the composition root (`hs.accounts`), with a module of its own because it is as long as the rest together.
What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from synapse.app._foundation import Base, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.app._conduct import Conduct
    from synapse.app._contacts import Contacts
    from synapse.app._proving import Proving
    from synapse.app._sessions import Sessions
    from synapse.app._sso import SignOnServices
    from synapse.handlers.account_data import AccountData
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.deactivation import Deactivation
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.devices import Devices
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.handlers.filters import Filters
    from synapse.handlers.frontend_proxy import FrontendProxy
    from synapse.handlers.guest_upgrade import GuestUpgrade
    from synapse.handlers.key_changes import KeyChanges
    from synapse.handlers.keys import Keys
    from synapse.handlers.media import Media
    from synapse.handlers.media_admin import MediaAdmin
    from synapse.handlers.media_upkeep import MediaUpkeep
    from synapse.handlers.password_change import PasswordChange
    from synapse.handlers.passwords import Passwords
    from synapse.handlers.positions import StreamWriter
    from synapse.handlers.profile import Profiles
    from synapse.handlers.push_rules import PushRules
    from synapse.handlers.registration import Registration
    from synapse.handlers.shared_secret import SharedSecret
    from synapse.handlers.turn import Turn
    from synapse.handlers.ui_auth import UiAuth
    from synapse.handlers.user_directory import DirectoryFollower, UserDirectory
    from synapse.handlers.user_ips import UserIps
    from synapse.http.ratelimit import RateLimits
    from synapse.media.filestore import FileStore
    from synapse.replication.streams import Rows
    from synapse.storage.access_tokens import AccessTokenStore
    from synapse.storage.account_data import AccountDataStore
    from synapse.storage.devices import DeviceStore
    from synapse.storage.media import MediaStore
    from synapse.storage.one_time_keys import OneTimeKeyStore
    from synapse.storage.profiles import ProfileStore
    from synapse.storage.push_rules import PushRuleStore
    from synapse.storage.to_device import ToDeviceStore
    from synapse.storage.user_directory import UserDirectoryStore
    from synapse.storage.user_ips import Seen, UserIpStore
    from synapse.storage.users import UserStore
    from synapse.sync.erased import ErasedUsers
    from synapse.sync.keys_left import KeysLeftCache
    from synapse.util.repeating import Repeating
    from synapse.util.templates import Templates

HOUR_SECONDS = 3600.0
HASHES_AT_ONCE = min(os.cpu_count() or 1, 4)  # of passwords: threads are there for other things, too


class Foundation(Base, Protocol):
    """What the account services stand on: the rest of the composition root."""

    @property
    def sessions(self) -> Sessions: ...

    @property
    def conduct(self) -> Conduct: ...

    @property
    def sso(self) -> SignOnServices: ...

    @property
    def ratelimits(self) -> RateLimits: ...

    @property
    def their_keys(self) -> TheirKeys:
        """Keys of other servers' users."""

    def stream_writer(self, name: str) -> StreamWriter:
        """The writing end of a stream; in a worker, one that refuses."""

    async def invalidate(self, cache: str, keys: Iterable[str | None]) -> None:
        """Has every process forget keys of a cache (None: all of it), this one before it returns."""

    async def report_sightings(self, batch: list[Seen]) -> None:
        """Hands sightings over to the main process; for workers."""

    async def update_profile_in_rooms(self, user_id: str) -> None:
        """Writes a user's name and picture into their memberships."""

    async def profile_elsewhere(self, user_id: str) -> dict[str, Any]:
        """The profile of another server's user."""

    async def user_registered(self, user_id: str) -> None:
        """Has a new user join the rooms that everybody is in."""

    async def user_deactivated(self, user_id: str) -> None:
        """Has the user leave all rooms, in the background, and seem offline."""


class Accounts:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name
        self._clock = hs.reactor

    # -- stores ----------------------------------------------------------------------------------------------------

    @cached_property
    def users(self) -> UserStore:
        from synapse.storage.users import UserStore

        return UserStore(self._hs.database)

    @cached_property
    def erased_users(self) -> ErasedUsers:
        """Who had what they wrote erased with their account."""
        from synapse.sync.erased import CACHE, ErasedUsers

        return ErasedUsers(self.users, self._hs.caches.cache(CACHE, 10_000))

    @cached_property
    def tokens(self) -> AccessTokenStore:
        from synapse.storage.access_tokens import AccessTokenStore

        return AccessTokenStore(self._hs.database)

    @cached_property
    def device_store(self) -> DeviceStore:
        from synapse.storage.devices import DeviceStore

        return DeviceStore(self._hs.database)

    @cached_property
    def profile_store(self) -> ProfileStore:
        from synapse.storage.profiles import ProfileStore

        return ProfileStore(self._hs.database)

    @cached_property
    def account_data_store(self) -> AccountDataStore:
        from synapse.storage.account_data import AccountDataStore

        return AccountDataStore(self._hs.database)

    @cached_property
    def push_rule_store(self) -> PushRuleStore:
        from synapse.storage.push_rules import PushRuleStore

        return PushRuleStore(self._hs.database)

    @cached_property
    def one_time_key_store(self) -> OneTimeKeyStore:
        from synapse.storage.one_time_keys import OneTimeKeyStore

        return OneTimeKeyStore(self._hs.database)

    @cached_property
    def to_device_store(self) -> ToDeviceStore:
        from synapse.storage.to_device import ToDeviceStore

        return ToDeviceStore(self._hs.database)

    @cached_property
    def media_store(self) -> MediaStore:
        from synapse.storage.media import MediaStore

        return MediaStore(self._hs.database)

    @cached_property
    def user_directory_store(self) -> UserDirectoryStore:
        from synapse.storage.user_directory import UserDirectoryStore

        return UserDirectoryStore(self._hs.database)

    @cached_property
    def user_ip_store(self) -> UserIpStore:
        from synapse.storage.user_ips import UserIpStore

        return UserIpStore(self._hs.database)

    # -- sessions --------------------------------------------------------------------------------------------------

    @cached_property
    def sightings(self) -> UserIps:
        from synapse.handlers.user_ips import UserIps

        deliver = self._hs.conduct.seen if self._hs.is_main else self._hs.report_sightings
        app_services = self._config.sightings.track_appservice_user_ips
        return UserIps(deliver, self._clock, app_services=app_services)

    @cached_property
    def authenticator(self) -> Authenticator:
        from synapse.handlers.auth import CACHE, CACHE_SIZE, Authenticator

        cache = self._hs.caches.cache(CACHE, CACHE_SIZE)
        rules = self._hs.conduct.rules
        sessions, invalidate = self._hs.sessions, self._hs.invalidate
        identities, refresh = sessions.app_service_identities, sessions.refresh_tokens
        return Authenticator(
            self.tokens,
            identities,
            refresh,
            cache,
            invalidate,
            self.sightings,
            rules,
            self._clock,
            oauth=(lambda: self._hs.sso.oauth_tokens) if self._config.oauth.takes_tokens else None,
        )

    @cached_property
    def passwords(self) -> Passwords:
        from synapse.app._sessions import password_algorithm
        from synapse.handlers.passwords import Passwords

        pepper, algorithm = self._config.registration.password_config.pepper or "", password_algorithm(self._config)
        return Passwords(pepper, algorithm, HASHES_AT_ONCE, in_thread)

    @cached_property
    def registration(self) -> Registration:
        from synapse.handlers.registration import Registration, RegistrationOptions

        config, auto_join = self._config.registration, self._config.auto_joining
        return Registration(
            self.users,
            self._hs.sessions.new_sessions,
            self._hs.conduct.rules,
            self._hs.sessions.app_services,
            self._hs.main,
            self._clock,
            self._server_name,
            RegistrationOptions(
                enabled=config.enable_registration,
                guests=config.allow_guest_access,
                hides_taken=self._config.signing_up.inhibit_user_in_use_error,
                welcomes=bool(auto_join.auto_join_rooms),
                welcomes_guests=bool(auto_join.auto_join_rooms) and auto_join.auto_join_rooms_for_guests,
            ),
            self._hs.user_registered,
        )

    @cached_property
    def guest_upgrade(self) -> GuestUpgrade:
        from synapse.handlers.guest_upgrade import GuestUpgrade

        sessions, changes, main = self._hs.sessions.new_sessions, self.device_changes, self._hs.main
        users, registration = self.users, self.registration
        return GuestUpgrade(users, sessions, self.authenticator, changes, registration, main, self._clock)

    @cached_property
    def proving(self) -> Proving:
        from synapse.app._proving import Proving

        return Proving(self._hs, self)

    @property
    def ui_auth(self) -> UiAuth:
        return self.proving.ui_auth

    @cached_property
    def shared_secret(self) -> SharedSecret:
        from synapse.handlers.shared_secret import SharedSecret

        return SharedSecret(self._config.registration.registration_shared_secret, self._clock)

    @cached_property
    def contacts(self) -> Contacts:
        """E-mail addresses and phone numbers."""
        from synapse.app._contacts import Contacts

        return Contacts(self._hs, self)

    @cached_property
    def templates(self) -> Templates:
        """Of the pages and mails that people read."""
        from synapse.util.templates import Templates

        return Templates(self._config.templates.custom_template_directory)

    # -- devices and keys ------------------------------------------------------------------------------------------

    @cached_property
    def device_changes(self) -> DeviceChanges:
        from synapse.handlers.device_changes import DeviceChanges
        from synapse.storage.device_keys import DeviceKeyStore

        hs = self._hs
        stream, store = hs.stream_writer("device_lists"), DeviceKeyStore(hs.database)
        return DeviceChanges(store, stream, hs.main, hs.invalidate, self._clock)

    @cached_property
    def devices(self) -> Devices:
        from synapse.handlers.devices import Devices

        return Devices(self.device_store, self.authenticator, self.device_changes, self._clock)

    @cached_property
    def password_change(self) -> PasswordChange:
        from synapse.handlers.password_change import PasswordChange

        enabled = self._config.registration.password_config.for_proof
        contacts = self.contacts
        return PasswordChange(self.users, self.devices, contacts.store, contacts.validations, enabled=enabled)

    @cached_property
    def deactivation(self) -> Deactivation:
        """In the main process."""
        from synapse.handlers.deactivation import Deactivation
        from synapse.storage.deactivation import DeactivationStore

        hs = self._hs
        store, changes = DeactivationStore(hs.database), self.device_changes
        consequences = (hs.invalidate, hs.user_deactivated)
        return Deactivation(store, self.authenticator, changes, *consequences, self.contacts.bindings)

    @cached_property
    def keys(self) -> Keys:
        from synapse.handlers.keys import Keys

        store, others = self.one_time_key_store, self._hs.their_keys
        return Keys(store, self.keys_left, self.device_changes, others, self._clock, self._server_name)

    @cached_property
    def keys_left(self) -> KeysLeftCache:
        from synapse.sync.keys_left import CACHE, CACHE_SIZE, KeysLeftCache

        return KeysLeftCache(self.one_time_key_store, self._hs.caches.cache(CACHE, CACHE_SIZE))

    @cached_property
    def key_changes(self) -> KeyChanges:
        from synapse.handlers.key_changes import KeyChanges
        from synapse.storage.past_state import PastStateStore
        from synapse.storage.shared_rooms import SharedRoomStore
        from synapse.storage.user_rooms import UserRoomStore

        db = self._hs.database
        return KeyChanges(UserRoomStore(db), PastStateStore(db), SharedRoomStore(db))

    @cached_property
    def frontend_proxy(self) -> FrontendProxy | None:
        """The way to the main process, in a worker that stands in front of it."""
        from synapse.handlers.frontend_proxy import FrontendProxy
        from synapse.http.client import Address, ProcessClient

        uri = self._config.workers.worker_main_http_uri
        if uri is None or self._hs.is_main:
            return None
        return FrontendProxy(ProcessClient(self._hs.reactor, Address.parse(uri)))

    # -- profiles and settings -------------------------------------------------------------------------------------

    @cached_property
    def profiles(self) -> Profiles:
        from synapse.handlers.profile import Profiles

        config, fixed = self._config.profiles, self._config.registration.fixed_profile_fields
        hs = self._hs
        propagate, elsewhere = hs.update_profile_in_rooms, hs.profile_elsewhere
        return Profiles(self.profile_store, self._server_name, propagate, config, fixed, elsewhere)

    @cached_property
    def account_data(self) -> AccountData:
        from synapse.handlers.account_data import AccountData

        hs, rules = self._hs, self.push_rules
        stream = hs.stream_writer("account_data")
        return AccountData(self.account_data_store, stream, hs.main, hs.invalidate, rules.ruleset)

    @cached_property
    def push_rules(self) -> PushRules:
        from synapse.handlers.push_rules import CACHE, CACHE_SIZE, PushRules

        cache = self._hs.caches.cache(CACHE, CACHE_SIZE)

        def changed(_position: int, rows: Rows) -> None:
            for _, user_id in rows:
                cache.invalidate(user_id)

        self._hs.notifier.subscribe("push_rules", changed, lambda _: cache.clear())
        return PushRules(self.push_rule_store, cache, self._hs.stream_writer("push_rules"), self._hs.main)

    @cached_property
    def filters(self) -> Filters:
        from synapse.api.filters import Filter
        from synapse.handlers.filters import Filters
        from synapse.storage.filters import FilterStore

        return Filters(FilterStore(self._hs.database), Filter.parse)

    @cached_property
    def turn(self) -> Turn:
        from synapse.handlers.turn import Turn

        return Turn(self._config.voip, self._clock)

    # -- the user directory ------------------------------------------------------------------------------------------

    @cached_property
    def user_directory(self) -> UserDirectory:
        from synapse.handlers.user_directory import UserDirectory

        return UserDirectory(self.user_directory_store, self._config.user_directory, self._server_name)

    @cached_property
    def directory_follower(self) -> DirectoryFollower:
        """The duty `user_directory`."""
        from synapse.handlers.user_directory import DirectoryFollower

        notifier = self._hs.notifier
        follower = DirectoryFollower(
            self.user_directory_store, self._server_name, lambda: notifier.position("events"), self._clock
        )
        notifier.subscribe("events", lambda _, rows: follower.news(row for _, row in rows))
        return follower

    # -- media -------------------------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> FileStore:
        from synapse.media.filestore import FileStore

        return FileStore(self._config.media.media_store_path)

    @cached_property
    def media(self) -> Media:
        from synapse.handlers.media import Media

        limit = self._config.media.max_upload_size
        return Media(self.media_store, self.files, self._clock, in_thread, self._server_name, limit)

    @cached_property
    def media_admin(self) -> MediaAdmin:
        from synapse.handlers.media_admin import MediaAdmin

        return MediaAdmin(self.media_store, self.files, in_thread, self._server_name)

    @cached_property
    def media_upkeep(self) -> MediaUpkeep:
        """The duty `media_repository`."""
        from synapse.handlers.media_upkeep import MediaUpkeep

        return MediaUpkeep(self.media_store, self.files, in_thread, self._clock)

    # -- in the background -------------------------------------------------------------------------------------------

    @cached_property
    def background(self) -> list[Repeating]:
        """What every process does once in a while, to be started with it."""
        from synapse.handlers.user_ips import FLUSH_SECONDS
        from synapse.util.repeating import Repeating

        flush = Repeating(self._clock, FLUSH_SECONDS, "Writing who was seen where", self.sightings.flush)
        if not self._hs.is_main:
            return [flush]
        return [flush, Repeating(self._clock, HOUR_SECONDS, "Forgetting what is old", self._forget_old)]

    async def _forget_old(self) -> None:
        await self.user_ip_store.forget(int(self._clock.seconds() * 1000) - self._config.sightings.user_ips_max_age)
        await self.contacts.validations.forget_old()
        await self.tokens.forget_expired(int(self._clock.seconds() * 1000))
