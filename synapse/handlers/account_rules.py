"""What an account may not do just now: because it is locked, suspended, or has yet to do what this server asks for.

    await rules.check(requester, operation, params)    # by the authenticator, for every request with a token
    await rules.check_login(user)                      # by whatever makes new sessions
    await rules.check_registration(user_id, applicant) # by whatever makes new accounts

`operation` is the name of an endpoint in the route table, `params` those of its path. A rule looks at the requester's
`Standing`, which is cached with the token in every process, and at what is in memory: a request of somebody who may do
what they ask for costs no statement. Whoever changes a standing has every process forget the user's tokens
(`synapse.handlers.moderation`).

Client-server API, "Account moderation".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from synapse.api.constants import EventTypes
from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.api.standing import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence, Set

    from synapse.http.request import Requester
    from synapse.storage.users import User


class Applicant(NamedTuple):
    """Who asks for an account, as far as that is known."""

    threepids: Collection[tuple[str, str]] | None = None  # addresses (medium, address) that are proved; None: not yet
    user_type: str | None = None
    app_service_id: str | None = None
    is_guest: bool = False


LOGGING_OUT: Final = frozenset({"logout", "logout_all"})
"""What is left to everybody, whatever else they may not do."""

SENDING: Final = frozenset({"room_send", "room_send_once"})
ENTERING: Final = frozenset({"join", "room_join"})
MAKING_EVENTS: Final = frozenset(
    {
        *SENDING,
        *ENTERING,
        *("knock", "room_invite", "room_kick", "room_ban", "room_unban"),
        *("room_create", "room_upgrade", "room_state_set"),
    }
)
"""What others would see in rooms, but for leaving and redacting."""

NOT_WHILE_SUSPENDED: Final = frozenset(
    {
        *MAKING_EVENTS,
        *("alias_set", "alias_delete", "room_visibility_set"),
        *("profile_field_set", "profile_field_delete"),
        *("media_upload", "media_create", "media_upload_to"),
        *("threepids_delete", "threepids_unbind"),
    }
)
"""What suspended users may not do: whatever others would see of them, but for leaving, and redacting what they said. To
log in and out, to read, to verify devices and keep keys, and to deactivate the account stay allowed."""


class Rule(Protocol):
    """A reason for which an account may not do something."""

    async def check(self, requester: Requester, operation: str, params: Mapping[str, str]) -> None:
        """Raises MatrixError."""

    async def check_login(self, user: User) -> None:
        """Raises MatrixError where the user may not begin another session."""

    async def check_registration(self, applicant: Applicant) -> None:
        """Raises MatrixError where they may not have an account."""


class AccountRules:
    """All rules, in their order.

    :param rules: those that this server's configuration asks for, besides locking and suspension.
    :param notices_room: the room in which this server tells a user something, if any: suspended users may join it.
    :param reserved: user ids that nobody can have.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        notices_room: Callable[[str], Awaitable[str | None]],
        reserved: Set[str] = frozenset(),
    ) -> None:
        self._rules = tuple(rules)
        self._reserved = reserved
        self._notices_room = notices_room

    async def check(self, requester: Requester, operation: str, params: Mapping[str, str]) -> None:
        """Raises 401 M_USER_LOCKED (`soft_logout`), 403 M_USER_SUSPENDED, and what the other rules raise."""
        if operation in LOGGING_OUT:
            return
        standing = requester.standing
        if standing.locked:
            raise locked()
        if standing.suspended and operation in NOT_WHILE_SUSPENDED:
            await self._check_suspended(requester.user_id, operation, params)
        for rule in self._rules:
            await rule.check(requester, operation, params)

    async def check_login(self, user: User) -> None:
        """Raises 401 M_USER_LOCKED, 403 M_FORBIDDEN, and what the other rules raise. Suspended users may log in."""
        if user.user_type == SYSTEM:
            raise forbidden("This user is the server's own: nobody can log in as it.")
        if user.locked:
            raise locked()
        for rule in self._rules:
            await rule.check_login(user)

    async def check_registration(self, user_id: str | None, applicant: Applicant) -> None:
        """Asked before an account is made, and before somebody is sent through stages of interactive authentication.

        `user_id` is None where the name is to be made up. Raises 400 M_USER_IN_USE, and what the rules raise.
        """
        if user_id in self._reserved:
            raise MatrixError(400, Codes.USER_IN_USE, "This user name is the server's own; please choose another.")
        for rule in self._rules:
            await rule.check_registration(applicant)

    async def _check_suspended(self, user_id: str, operation: str, params: Mapping[str, str]) -> None:
        if operation in SENDING and params.get("event_type") == EventTypes.REDACTION:
            return  # of own events: `EventCreation` knows which they are
        if operation in ENTERING:
            room = params.get("room_id", params.get("room_id_or_alias"))
            if room == await self._notices_room(user_id):
                return
        raise suspended()


def locked() -> MatrixError:
    """The device stays logged in, and may go on when the account is unlocked."""
    return MatrixError(401, Codes.USER_LOCKED, "This account has been locked.", soft_logout=True)


def suspended() -> MatrixError:
    return MatrixError(403, Codes.USER_SUSPENDED, "You cannot do this while your account is suspended.")
