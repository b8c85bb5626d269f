"""Asking for a message to an address, so as to prove to have it: for registering, for resetting a password, for adding
the address to an account.

Who may ask, what must (not) have an account, and what the messages say is decided here; what they prove is
`synapse.handlers.validations`' matter. Client-server API, the operations `…/email/requestToken` and
`…/msisdn/requestToken`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec

from synapse.api.errors import Codes, MatrixError
from synapse.api.threepids import EMAIL, MSISDN, canonical_email, canonical_msisdn
from synapse.handlers.validations import ADD_THREEPID, PASSWORD_RESET, REGISTRATION, checked_secret
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.config.contacts import MailSubjects
    from synapse.handlers.mail import Mailer
    from synapse.handlers.threepid_rules import ThreepidRules
    from synapse.handlers.validations import Validations
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.threepid_sessions import ValidationSession
    from synapse.storage.threepids import ThreepidStore

logger = logging.getLogger(__name__)

LIMIT: Final = "rc_3pid_validation"
SUBMIT_MSISDN: Final = "/_matrix/client/unstable/add_threepid/msisdn/submit_token"
SUBMIT_EMAIL: Final = "/_matrix/client/unstable/{purpose}/email/submit_token"

_Attempt = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class EmailWish(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a mail. What it says of identity servers is ignored: the mail is ours."""

    client_secret: str
    email: str
    send_attempt: _Attempt
    next_link: str | None = None
    id_server: str | None = None
    id_access_token: str | None = None


class MsisdnWish(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a text message, likewise."""

    client_secret: str
    country: str
    phone_number: str
    send_attempt: _Attempt
    next_link: str | None = None
    id_server: str | None = None
    id_access_token: str | None = None


class TokenSession(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: the session, and where the client sends a code to, where it has to."""

    sid: str
    submit_url: str | None = None


class Messenger(Protocol):
    """Writes to phone numbers."""

    async def send(
        self, validations: Validations, session: ValidationSession, client_secret: str, attempt: int
    ) -> None:
        """Has a code sent, once for each attempt. Raises 400 M_INVALID_PARAM, 503 M_UNKNOWN."""


class _Asked(NamedTuple):
    """What was asked for, in either medium."""

    purpose: str
    medium: str
    address: str
    client_secret: str
    attempt: int
    next_link: str | None
    client_ip: str


class ThreepidTokens:
    """Has messages sent that prove addresses.

    :param messenger: None where this server cannot write to phone numbers.
    :param checks: by purpose, raises 403 where nobody may have that just now.
    :param base_url: where clients reach this server, without a slash at its end.
    """

    def __init__(
        self,
        store: ThreepidStore,
        validations: Validations,
        mailer: Mailer,
        messenger: Messenger | None,
        rules: ThreepidRules,
        limits: RateLimits,
        subjects: MailSubjects,
        checks: Mapping[str, Callable[[], None]],
        base_url: str,
    ) -> None:
        self._store = store
        self._validations = validations
        self._mailer = mailer
        self._messenger = messenger
        self._rules = rules
        self._limits = limits
        self._subjects = subjects
        self._checks = checks
        self._base_url = base_url

    async def email(self, purpose: str, wish: EmailWish, client_ip: str) -> TokenSession:
        """Raises 400 (M_INVALID_PARAM, M_THREEPID_…), 403 (M_FORBIDDEN, M_THREEPID_DENIED), 429, 503 M_UNKNOWN."""
        self._check(purpose, EMAIL)
        asked = self._asked(purpose, EMAIL, canonical_email(wish.email), wish, client_ip)
        session, is_meant = await self._begin(asked)
        await self._send(self._send_mail(session, asked, is_meant))
        return TokenSession(session.session_id)

    async def msisdn(self, purpose: str, wish: MsisdnWish, client_ip: str) -> TokenSession:
        """Raises as `email` does."""
        self._check(purpose, MSISDN)
        number = canonical_msisdn(wish.phone_number, wish.country)
        asked = self._asked(purpose, MSISDN, number, wish, client_ip)
        session, is_meant = await self._begin(asked)
        if is_meant and self._messenger is not None:
            secret, attempt = asked.client_secret, asked.attempt
            await self._send(self._messenger.send(self._validations, session, secret, attempt))
        return TokenSession(session.session_id, self._base_url + SUBMIT_MSISDN)

    def _check(self, purpose: str, medium: str) -> None:
        self._checks[purpose]()
        if not self._mailer.is_enabled if medium == EMAIL else self._messenger is None:
            means = "mails" if medium == EMAIL else "text messages"
            raise MatrixError(400, Codes.THREEPID_MEDIUM_NOT_SUPPORTED, f"This server does not send {means}.")

    def _asked(self, purpose: str, medium: str, address: str, wish: EmailWish | MsisdnWish, client_ip: str) -> _Asked:
        secret, link = checked_secret(wish.client_secret), self._rules.checked_link(wish.next_link)
        return _Asked(purpose, medium, address, secret, wish.send_attempt, link, client_ip)

    async def _begin(self, asked: _Asked) -> tuple[ValidationSession, bool]:
        """The session, and whether what it proves can be of use: else, nobody is to know that."""
        self._limits.check(LIMIT, asked.client_ip)
        self._limits.check(LIMIT, f"{asked.medium} {asked.address}")
        if asked.purpose != PASSWORD_RESET:
            self._rules.check_allowed(asked.medium, asked.address)
        is_meant = await self._is_meant(asked)
        begun = await self._validations.begin(
            asked.purpose, asked.medium, asked.address, asked.client_secret, asked.next_link
        )
        return begun, is_meant

    async def _is_meant(self, asked: _Asked) -> bool:
        try:
            await self.check_use(asked.purpose, asked.medium, asked.address)
        except MatrixError:
            if not self._rules.discreet:
                raise
            return False
        return True

    async def check_use(self, purpose: str, medium: str, address: str) -> None:
        """Raises 400 M_THREEPID_IN_USE, M_THREEPID_NOT_FOUND for an address that is of no use for that purpose."""
        owner = await self._store.owner(medium, address)
        if purpose == PASSWORD_RESET and owner is None:
            raise MatrixError(400, Codes.THREEPID_NOT_FOUND, "No account on this server has that address.")
        if purpose in (REGISTRATION, ADD_THREEPID) and owner is not None:
            raise MatrixError(400, Codes.THREEPID_IN_USE, "An account on this server has that address already.")

    async def _send(self, sending: Awaitable[Any]) -> None:
        """Where nobody is to know who has an account, the answer does not wait: its time would tell."""
        if not self._rules.discreet:
            await sending
            return
        spawn(_in_background(sending))

    async def _send_mail(self, session: ValidationSession, asked: _Asked, is_meant: bool) -> None:
        if is_meant:
            await self._validations.send(session, asked.attempt, lambda token: self._prove(session, asked, token))
        elif asked.purpose != PASSWORD_RESET:
            # The token that comes along is of no use to anybody, as it is sent to nobody.
            await self._validations.send(session, asked.attempt, lambda _: self._warn(asked.address))

    async def _prove(self, session: ValidationSession, asked: _Asked, token: str) -> None:
        query = urlencode({"token": token, "client_secret": asked.client_secret, "sid": session.session_id})
        link = f"{self._base_url}{SUBMIT_EMAIL.format(purpose=asked.purpose)}?{query}"
        subjects = self._subjects
        subject = subjects.password_reset if asked.purpose == PASSWORD_RESET else subjects.email_validation
        await self._mailer.send(asked.address, subject, asked.purpose, {"link": link})

    async def _warn(self, address: str) -> None:
        await self._mailer.send(address, self._subjects.email_already_in_use, "already_in_use", {})


async def _in_background(sending: Awaitable[Any]) -> None:
    try:
        await sending
    except MatrixError as error:
        logger.warning("A message that proves an address was not sent: %s", error.message)
    except Exception as error:
        log_failure(logger, error, "A message that proves an address was not sent")
