"""Which user of this server somebody is whom a provider vouches for, and accounts for those who are none yet.

Whoever has logged in once is known by the provider's `subject`, whatever else changes there. Who has not is, where the
administrator says so, the owner of the account that has the localpart already; everybody else gets a new account.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError
from synapse.api.identifiers import map_to_localpart
from synapse.handlers.profile import MAX_DISPLAY_NAME
from synapse.handlers.registration import in_use
from synapse.handlers.sso.types import SsoRefused, account_deactivated
from synapse.storage.external_ids import ExternalId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.handlers.registration import Registration
    from synapse.handlers.sso.types import IdentityProvider, RemoteIdentity
    from synapse.storage.external_ids import ExternalIdStore
    from synapse.storage.users import UserStore

logger = logging.getLogger(__name__)

MAX_LOCALPART: Final = 200
_TRIES: Final = 1000
_AT_ONCE: Final = 25


class SsoUsers:
    """Finds and makes them."""

    def __init__(
        self, identities: ExternalIdStore, users: UserStore, registration: Registration, server_name: str
    ) -> None:
        self._identities = identities
        self._users = users
        self._registration = registration
        self._server_name = server_name

    async def find(self, identity: RemoteIdentity, provider: IdentityProvider) -> str | None:
        """The user; None for one who has no account yet. Raises `SsoRefused` for one who is deactivated."""
        user_id = await self._identities.owner(external_id(identity))
        if user_id is None:
            user_id = await self._existing(identity, provider)
        if user_id is None:
            return None
        user = await self._users.get(user_id)
        if user is None or user.deactivated:
            raise account_deactivated()
        return user_id

    async def owner(self, identity: RemoteIdentity) -> str | None:
        """The user who has logged in as this identity before."""
        return await self._identities.owner(external_id(identity))

    async def providers_of(self, user_id: str) -> list[str]:
        """The ids of the providers that have vouched for the user."""
        return list(dict.fromkeys(one.auth_provider for one in await self._identities.of_user(user_id)))

    async def _existing(self, identity: RemoteIdentity, provider: IdentityProvider) -> str | None:
        """The account that has the identity's localpart, which becomes that identity's for good."""
        localpart = identity.localpart if provider.allow_existing_users else identity.grandfathered_localpart
        if not localpart:
            return None
        user_id = f"@{localpart}:{self._server_name}"
        user = await self._users.get(user_id) if "\x00" not in user_id else None
        if user is None or user.is_guest or user.app_service_id is not None:
            return None
        if user.deactivated:
            raise account_deactivated()
        if not await self._identities.add(external_id(identity), user_id):
            return await self._identities.owner(external_id(identity))
        logger.info("%s is now who logs in by an identity of %s", user_id, identity.provider)
        return user_id

    async def free_name(self, wanted: str) -> str:
        """The name, or the first of it with a number that can be had. Raises `SsoRefused` where there is none."""
        for batch in _batches(wanted):
            taken = await self._users.exist([f"@{name}:{self._server_name}" for name in batch])
            for name in batch:
                if f"@{name}:{self._server_name}" in taken:
                    continue
                problem = await self._available(name)
                if problem is None:
                    return name
                if problem.errcode != Codes.USER_IN_USE:
                    raise SsoRefused(f"You would be called '{name}' on this server, which cannot be: {problem.message}")
        raise SsoRefused(f"No user name like '{wanted}' can be had on this server; please ask its administrator.")

    async def problem_with(self, name: str) -> MatrixError | None:
        """Why a name that a user has chosen cannot be had; None if it can."""
        return await self._available(name)

    async def create(self, identity: RemoteIdentity, localpart: str, display_name: str | None) -> str | None:
        """The user id of a new account; of the identity's own where one came about meanwhile.

        None if somebody else has got the name meanwhile. Raises `SsoRefused` if nobody can have it.
        """
        owner = await self.owner(identity)
        problem = await self._available(localpart) if owner is None else None
        if owner is not None or (problem is not None and problem.errcode == Codes.USER_IN_USE):
            return owner
        if problem is not None:
            raise SsoRefused(problem.message)
        user_id = f"@{localpart}:{self._server_name}"
        shown = None if display_name is None else display_name[:MAX_DISPLAY_NAME]
        return await self._registration.register_identity(user_id, external_id(identity), shown)

    async def _available(self, name: str) -> MatrixError | None:
        try:
            await self._registration.check_available(name)
        except MatrixError as problem:
            return problem
        # The registration may keep that from those of whom nothing is known.
        return in_use() if await self._users.exist([f"@{name}:{self._server_name}"]) else None


def external_id(identity: RemoteIdentity) -> ExternalId:
    """The identity as the database knows it."""
    return ExternalId(identity.provider, identity.subject)


def localpart_from(text: str) -> str:
    """What a provider calls a user, as a localpart: appendices, "Mapping from other character sets"."""
    return map_to_localpart(text.strip().replace("\x00", ""))[:MAX_LOCALPART]


def _batches(wanted: str) -> Iterator[list[str]]:
    """The name itself, then with numbers, a few at a time: most are found with the first."""
    yield [wanted]
    for first in range(1, _TRIES, _AT_ONCE):
        yield [f"{wanted}{number}" for number in range(first, first + _AT_ONCE)]
