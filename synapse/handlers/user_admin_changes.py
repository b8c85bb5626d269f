"""Making and changing accounts as administrators do it: `PUT /_synapse/admin/v2/users/{user_id}`.

A change is checked as a whole before anything of it is done. It is not held to what users may do for themselves (fields
that they cannot change, the policy of passwords), but to what an account can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, UnsetType

from synapse.api.errors import Codes, MatrixError, forbidden, invalid_param, missing_param
from synapse.api.identifiers import localpart_of
from synapse.api.threepids import canonical
from synapse.handlers.passwords import check_acceptable
from synapse.handlers.profile import checked_value
from synapse.handlers.registration import USER_TYPES
from synapse.storage.external_ids import ExternalId
from synapse.sync.erased import CACHE as ERASED_USERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from synapse.handlers.deactivation import Deactivation
    from synapse.handlers.moderation import Moderation
    from synapse.handlers.profile import Profiles
    from synapse.handlers.registration import Registration
    from synapse.handlers.user_admin import UserAdmin
    from synapse.http.request import Requester
    from synapse.storage.external_ids import ExternalIdStore
    from synapse.storage.threepids import ThreepidStore
    from synapse.storage.user_admin import Described, UserAdminStore
    from synapse.util.clock import Clock

MAX_ADDRESSES: Final = 100
MAX_IDENTITIES: Final = 100
MAX_IDENTITY: Final = 1000  # characters of each part


class Address(msgspec.Struct, frozen=True):
    """An e-mail address or phone number that an account has."""

    medium: str
    address: str


class Identity(msgspec.Struct, frozen=True):
    """As whom an identity provider knows the user."""

    auth_provider: str
    external_id: str


class AccountChange(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `PUT /_synapse/admin/v2/users/{user_id}`. What is not there stays as it is."""

    password: str | None = None
    logout_devices: bool = True
    displayname: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    threepids: list[Address] | None = None
    external_ids: list[Identity] | None = None
    admin: bool | None = None
    deactivated: bool | None = None
    locked: bool | None = None
    user_type: str | UnsetType | None = UNSET


class AccountChanges:
    """In the main process.

    :param admin: what else administrators do, some of which is part of a change.
    """

    def __init__(
        self,
        admin: UserAdmin,
        store: UserAdminStore,
        threepids: ThreepidStore,
        external_ids: ExternalIdStore,
        registration: Registration,
        profiles: Profiles,
        deactivation: Deactivation,
        moderation: Moderation,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._admin = admin
        self._store = store
        self._threepids = threepids
        self._external_ids = external_ids
        self._registration = registration
        self._profiles = profiles
        self._deactivation = deactivation
        self._moderation = moderation
        self._invalidate = invalidate
        self._clock = clock

    async def put(self, admin: Requester, user_id: str, change: AccountChange) -> bool:
        """Makes or changes an account; whether it is new. Raises 400, 403."""
        described = await self._admin.described(user_id)
        self._check(admin, user_id, described, change)
        addresses, identities = await self._addresses(user_id, change), await self._identities(user_id, change)
        password_hash = None if change.password is None else await self._admin.password_hash(change.password)
        if described is None:
            await self._make(admin, user_id, password_hash, change)
        else:
            await self._change(admin, described, password_hash, change)
        if change.deactivated is not True:
            await self._set_profile(user_id, change)
            if addresses is not None:
                await self._set_addresses(user_id, addresses)
            if identities is not None:
                await self._set_identities(user_id, identities)
        return described is None

    def _check(self, admin: Requester, user_id: str, described: Described | None, change: AccountChange) -> None:
        if change.password is not None:
            check_acceptable(change.password)
        if isinstance(change.user_type, str) and change.user_type not in USER_TYPES:
            raise invalid_param(f"'user_type' must be null or one of {', '.join(sorted(USER_TYPES))}.")
        for name in ("displayname", "avatar_url"):
            if isinstance(value := getattr(change, name), str):
                checked_value(name, value)
        if user_id == admin.user_id and (change.admin is False or change.deactivated or change.locked):
            raise forbidden("Administrators can neither demote, deactivate nor lock themselves.")
        is_admin = change.admin if described is None or change.admin is not None else described.admin
        if change.locked and is_admin:
            raise forbidden("Administrators cannot be locked.")
        if change.deactivated and (change.password is not None or described is None):
            raise invalid_param("An account cannot be made or given a password and be deactivated at once.")
        if described is not None and described.deactivated and not change.deactivated:
            if change.deactivated is None and change.password is not None:
                raise invalid_param("The account is deactivated; say 'deactivated': false to take it into use again.")
            if change.deactivated is False and change.password is None:
                raise missing_param("password")
            if change.deactivated is None and change.locked not in (None, described.locked):
                raise invalid_param("The account is deactivated, so there is nothing to be locked or unlocked.")

    async def _addresses(self, user_id: str, change: AccountChange) -> set[tuple[str, str]] | None:
        """The addresses that the account is to have, as they are kept. Raises 400 where one is somebody else's."""
        if change.threepids is None:
            return None
        if len(change.threepids) > MAX_ADDRESSES:
            raise invalid_param(f"An account has at most {MAX_ADDRESSES} addresses.")
        wanted = {(one.medium, canonical(one.medium, one.address)) for one in change.threepids}
        for medium, address in wanted:
            if await self._threepids.owner(medium, address) not in (None, user_id):
                raise MatrixError(400, Codes.THREEPID_IN_USE, f"Another account has the address {address}.")
        return wanted

    async def _identities(self, user_id: str, change: AccountChange) -> set[ExternalId] | None:
        """The identities that the account is to have. Raises 400 where one is somebody else's."""
        if change.external_ids is None:
            return None
        if len(change.external_ids) > MAX_IDENTITIES:
            raise invalid_param(f"An account has at most {MAX_IDENTITIES} external identities.")
        wanted = {ExternalId(one.auth_provider, one.external_id) for one in change.external_ids}
        for identity in wanted:
            if not all(0 < len(part) <= MAX_IDENTITY for part in identity):
                raise invalid_param(f"'auth_provider' and 'external_id' have 1 to {MAX_IDENTITY} characters.")
            if await self._external_ids.owner(identity) not in (None, user_id):
                raise MatrixError(400, Codes.UNKNOWN, "Another account has one of the external identities.")
        return wanted

    async def _make(self, admin: Requester, user_id: str, password_hash: str | None, change: AccountChange) -> None:
        user_type = None if isinstance(change.user_type, UnsetType) else change.user_type
        rank, localpart = bool(change.admin), localpart_of(user_id)
        if localpart != localpart.lower():
            raise MatrixError(400, Codes.INVALID_USERNAME, "A user name is written in lower case.")
        await self._registration.register(localpart, password_hash, None, admin=rank, user_type=user_type)
        if change.locked:
            await self._moderation.mark(admin, user_id, "locked", True)

    async def _change(
        self, admin: Requester, described: Described, password_hash: str | None, change: AccountChange
    ) -> None:
        user_id = described.user_id
        if described.deactivated and change.deactivated is False:
            await self._store.reactivate(user_id, password_hash)
            await self._invalidate(ERASED_USERS, [user_id])
        elif password_hash is not None:
            await self._admin.set_password(user_id, password_hash, change.logout_devices)
        if change.admin is not None or not isinstance(change.user_type, UnsetType):
            user_type = None if isinstance(change.user_type, UnsetType) else change.user_type or ""
            await self._admin.set_rank(user_id, admin=change.admin, user_type=user_type)
        if change.locked is not None and change.locked != described.locked:
            await self._moderation.mark(admin, user_id, "locked", change.locked)
        if change.deactivated and not described.deactivated:
            await self._deactivation.deactivate(user_id, False)

    async def _set_profile(self, user_id: str, change: AccountChange) -> None:
        for name in ("displayname", "avatar_url"):
            value = getattr(change, name)
            if not isinstance(value, UnsetType):
                await self._profiles.set_field(user_id, name, {name: value or ""}, by_admin=True)

    async def _set_addresses(self, user_id: str, wanted: set[tuple[str, str]]) -> None:
        had = {(one.medium, one.address) for one in await self._threepids.of_user(user_id)}
        now = int(self._clock.seconds() * 1000)
        for medium, address in sorted(had - wanted):
            await self._threepids.remove(user_id, medium, address)
        for medium, address in sorted(wanted - had):
            await self._threepids.add(user_id, medium, address, now, now)

    async def _set_identities(self, user_id: str, wanted: set[ExternalId]) -> None:
        had = set(await self._external_ids.of_user(user_id))
        for identity in sorted(had - wanted):
            await self._external_ids.remove(identity, user_id)
        for identity in sorted(wanted - had):
            await self._external_ids.add(identity, user_id)
