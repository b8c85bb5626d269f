"""The services that say what accounts may do just now, and that tell users what this server wants of them.

A part of the composition root (`hs.conduct`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synapse.app._accounts import Accounts
    from synapse.app._rooms import Rooms
    from synapse.handlers.account_rules import AccountRules, Rule
    from synapse.handlers.account_validity import AccountValidity
    from synapse.handlers.consent import Consent
    from synapse.handlers.consent_notices import ConsentNotices
    from synapse.handlers.moderation import Moderation
    from synapse.handlers.notices_room import NoticesRooms
    from synapse.handlers.server_notices import ServerNotices
    from synapse.handlers.usage_upkeep import UsageUpkeep
    from synapse.handlers.whois import Whois
    from synapse.storage.active_users import ActiveUsersStore
    from synapse.storage.server_notices import ServerNoticesStore
    from synapse.storage.standing import StandingStore
    from synapse.storage.user_ips import Seen
    from synapse.util.repeating import Repeating
    from synapse.util.templates import Templates


MINUTE_SECONDS: Final = 60.0
CONSENT_SECONDS: Final = 5.0
VALIDITY_SECONDS: Final = 600.0


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def rooms(self) -> Rooms: ...

    async def invalidate(self, cache: str, keys: Iterable[str]) -> None:
        """Has every process forget keys of a cache, this one before it returns."""

    async def update_profile_in_rooms(self, user_id: str) -> None:
        """Writes a user's name and picture into their memberships."""


class Conduct:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name
        self._clock = hs.reactor

    # -- what accounts may do ----------------------------------------------------------------------------------------

    @cached_property
    def standing_store(self) -> StandingStore:
        from synapse.storage.standing import StandingStore

        return StandingStore(self._hs.database)

    @cached_property
    def rules(self) -> AccountRules:
        """Asked by the authenticator of every process."""
        from synapse.handlers.account_rules import AccountRules

        return AccountRules(list(self._configured_rules()), self.notices_rooms.of, self._reserved())

    def _configured_rules(self) -> Iterator[Rule]:
        if self._config.validity.account_validity.enabled:
            from synapse.handlers.account_validity import ValidityRule

            yield ValidityRule(self._clock)
        usage = self._config.usage
        if usage.hs_disabled or self._counts_users:
            from synapse.handlers.usage_limits import CACHE, CACHE_SIZE, UsageRule

            active = self._hs.caches.cache(CACHE, max(CACHE_SIZE, 2 * usage.max_mau_value))
            app_services = self._config.sightings.track_appservice_user_ips
            yield UsageRule(usage, self.active_users, active, self._clock, app_services=app_services)
        telling = self._config.telling
        if self.consent is not None and telling.user_consent is not None and telling.user_consent.block_events_error:
            from synapse.handlers.consent import ConsentRule

            yield ConsentRule(self.consent, telling.user_consent.block_events_error, self.notices_rooms.of)

    @property
    def _counts_users(self) -> bool:
        return self._config.usage.limit_usage_by_mau or self._config.usage.mau_stats_only

    def _reserved(self) -> frozenset[str]:
        """The user ids that are the server's own."""
        notices = self._config.telling.server_notices
        return frozenset() if notices is None else frozenset({f"@{notices.system_mxid_localpart}:{self._server_name}"})

    async def seen(self, batch: list[Seen]) -> None:
        """In the main process: takes what all processes have gathered of who was seen where."""
        await self._hs.accounts.user_ip_store.record(batch)
        user_ids = {seen.user_id for seen in batch}
        if self._counts_users:
            await self.usage_upkeep.seen(user_ids)
        if self.consent_notices is not None:
            self.consent_notices.seen(user_ids)

    @cached_property
    def moderation(self) -> Moderation:
        from synapse.handlers.moderation import Moderation

        accounts = self._hs.accounts
        return Moderation(self.standing_store, accounts.users, accounts.authenticator, self._server_name)

    @cached_property
    def whois(self) -> Whois:
        """In the main process, which hears of all sightings."""
        from synapse.handlers.whois import Whois

        accounts = self._hs.accounts
        return Whois(accounts.user_ip_store, accounts.sightings, accounts.users, self._server_name)

    @cached_property
    def validity(self) -> AccountValidity | None:
        """In the main process, where accounts expire."""
        from synapse.handlers.account_validity import AccountValidity
        from synapse.storage.account_validity import AccountValidityStore

        options, accounts = self._config.validity.account_validity, self._hs.accounts
        if not options.enabled or options.period is None:
            return None
        return AccountValidity(
            options,
            options.period,
            AccountValidityStore(self._hs.database),
            accounts.users,
            accounts.profile_store,
            accounts.contacts.store,
            accounts.contacts.mailer,
            accounts.authenticator,
            self._clock,
            self._config.client_baseurl,
        )

    # -- how many may use the server -----------------------------------------------------------------------------------

    @cached_property
    def active_users(self) -> ActiveUsersStore:
        from synapse.storage.active_users import ActiveUsersStore

        return ActiveUsersStore(self._hs.database)

    @cached_property
    def usage_upkeep(self) -> UsageUpkeep:
        """In the main process."""
        from synapse.handlers.usage_upkeep import UsageUpkeep

        usage, invalidate = self._config.usage, self._hs.invalidate
        notices = None if self._config.telling.server_notices is None else self.server_notices
        return UsageUpkeep(usage, self.active_users, notices, self.notices_store, invalidate, self._clock)

    # -- consent -----------------------------------------------------------------------------------------------------

    @cached_property
    def consent(self) -> Consent | None:
        """The policy that users are to agree to, if there is one."""
        from synapse.handlers.consent import Consent

        options, secret = self._config.telling.user_consent, self._config.telling.form_secret
        if options is None or secret is None:
            return None
        accounts = self._hs.accounts
        return Consent(
            options,
            secret,
            self.standing_store,
            accounts.users,
            lambda: accounts.authenticator,  # which asks the rules, which ask for consent
            self._clock,
            self._server_name,
            self._config.client_baseurl,
        )

    @cached_property
    def policies(self) -> Templates | None:
        """The texts of the policy."""
        from synapse.util.templates import Templates

        options = self._config.telling.user_consent
        custom = self._config.templates.custom_template_directory
        return None if options is None else Templates(options.template_dir, custom)

    @cached_property
    def consent_notices(self) -> ConsentNotices | None:
        """In the main process."""
        from synapse.handlers.consent_notices import ConsentNotices

        options, consent = self._config.telling.user_consent, self.consent
        if consent is None or options is None or options.server_notice_content is None:
            return None
        content, guests = options.server_notice_content, options.send_server_notice_to_guests
        return ConsentNotices(consent, content, self.server_notices, self.notices_store, guests=guests)

    # -- server notices ----------------------------------------------------------------------------------------------

    @cached_property
    def notices_store(self) -> ServerNoticesStore:
        from synapse.storage.server_notices import ServerNoticesStore

        return ServerNoticesStore(self._hs.database)

    @cached_property
    def notices_rooms(self) -> NoticesRooms:
        from synapse.handlers.notices_room import CACHE, CACHE_SIZE, NoticesRooms

        cache = self._hs.caches.cache(CACHE, CACHE_SIZE)
        return NoticesRooms(self.notices_store, cache, enabled=self._config.telling.server_notices is not None)

    @cached_property
    def server_notices(self) -> ServerNotices:
        """In the main process."""
        from synapse.handlers.server_notices import ServerNotices

        hs, accounts, rooms = self._hs, self._hs.accounts, self._hs.rooms
        return ServerNotices(
            self._config.telling.server_notices,
            self.notices_store,
            accounts.users,
            accounts.profile_store,
            hs.update_profile_in_rooms,
            rooms.room_creation,
            rooms.creation,
            rooms.memberships,
            accounts.account_data,
            hs.invalidate,
            self._clock,
            self._server_name,
            self._config.server.default_room_version,
        )

    # -- in the background -------------------------------------------------------------------------------------------

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        repeated = []
        if self._counts_users or self._config.telling.server_notices is not None:
            upkeep = self.usage_upkeep.run
            repeated.append(Repeating(self._clock, MINUTE_SECONDS, "Counting active users", upkeep))
        if self.consent_notices is not None:
            ask = self.consent_notices.run
            repeated.append(Repeating(self._clock, CONSENT_SECONDS, "Asking for consent to the policy", ask))
        if self.validity is not None:
            repeated.append(Repeating(self._clock, VALIDITY_SECONDS, "Looking who expires", self.validity.run))
        return repeated
