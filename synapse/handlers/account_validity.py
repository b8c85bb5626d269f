"""Accounts that expire unless their users renew them, by a mail that comes in time.

When an account has expired, everything that needs a token is refused but for logging out and asking for the mail. When
it does is part of the `Standing`, so that asking costs nothing. Tokens of mails are stored hashed, and good once.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError, not_found
from synapse.api.identifiers import random_letters
from synapse.api.threepids import EMAIL
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse.config.conduct import AccountValidity as Options
    from synapse.handlers.account_rules import Applicant
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.mail import Mailer
    from synapse.http.request import Requester
    from synapse.storage.account_validity import AccountValidityStore
    from synapse.storage.profiles import ProfileStore
    from synapse.storage.threepids import ThreepidStore
    from synapse.storage.users import User, UserStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

EXPIRED: Final = "ORG_MATRIX_EXPIRED_ACCOUNT"
SEND_MAIL: Final = "account_validity_send_mail"
"""The endpoint that is left to those whose account has expired."""

PATH: Final = "/_matrix/client/unstable/account_validity/renew"
TEMPLATE: Final = "notice_expiry"
_AT_A_TIME: Final = 500
_MAX_TOKEN: Final = 64


class ValidityRule:
    """See `account_rules`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def check(self, requester: Requester, operation: str, params: Mapping[str, str]) -> None:
        """Raises 403 ORG_MATRIX_EXPIRED_ACCOUNT."""
        end = requester.standing.valid_until_ts
        if end is not None and end <= self._clock.seconds() * 1000 and operation != SEND_MAIL:
            raise MatrixError(403, EXPIRED, "This account has expired; the link in the mail about it renews it.")

    async def check_login(self, user: User) -> None:
        """Whoever's account has expired may log in, to ask for the mail."""

    async def check_registration(self, applicant: Applicant) -> None:
        """Nobody's account has expired yet."""


class AccountValidity:
    """In the main process: renews accounts, and tells users in time.

    :param period: for how long an account is valid, in milliseconds.
    :param base_url: where clients reach this server, without a slash at its end.
    """

    def __init__(
        self,
        options: Options,
        period: int,
        store: AccountValidityStore,
        users: UserStore,
        profiles: ProfileStore,
        threepids: ThreepidStore,
        mailer: Mailer,
        authenticator: Authenticator,
        clock: Clock,
        base_url: str,
    ) -> None:
        self._options = options
        self._period = period
        self._store = store
        self._users = users
        self._profiles = profiles
        self._threepids = threepids
        self._mailer = mailer
        self._authenticator = authenticator
        self._clock = clock
        self._base_url = base_url

    async def set(self, user_id: str, valid_until_ts: int | None, *, tell: bool) -> int:
        """Has an account end at that time (None: after the period, from now on); when that is.

        `tell`: whether the user is to be told before. Raises 404 M_NOT_FOUND.
        """
        changed = await self._store.set(user_id, self._next_end() if valid_until_ts is None else valid_until_ts)
        if changed is None:
            raise not_found("This server has no such user.")
        if not tell:
            await self._store.told(user_id, changed.valid_until_ts, _hash(_new_token()))
        await self._authenticator.forget(changed.tokens)
        return changed.valid_until_ts

    async def renew(self, token: str) -> int:
        """Renews the account of the mail with that token; when it ends. A second time nothing is changed.

        Raises 404 M_NOT_FOUND where the token is not known, or there has been another mail since.
        """
        known = len(token) <= _MAX_TOKEN and token.isascii()
        changed = await self._store.renew(_hash(token), self._now(), self._next_end()) if known else None
        if changed is None:
            raise not_found("This link is not known; perhaps there was a later mail.")
        await self._authenticator.forget(changed.tokens)
        return changed.valid_until_ts

    async def send_mail(self, user_id: str) -> None:
        """Sends the mail at the user's own wish.

        Raises 400 M_THREEPID_NOT_FOUND where there is no address to send it to, and what `Mailer.send` raises.
        """
        user = await self._users.get(user_id)
        end = None if user is None else user.valid_until_ts
        if not await self._tell(user_id, end or self._next_end()):
            raise MatrixError(400, Codes.THREEPID_NOT_FOUND, "There is no e-mail address with this account.")

    # -- once in a while -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Gives accounts an end that have none, and tells those who are to be told."""
        delta = self._options.startup_job_max_delta
        max_delta = self._period // 10 if delta is None else delta
        while (tokens := await self._store.begin(self._now(), self._period, max_delta, _AT_A_TIME)) is not None:
            await self._authenticator.forget(tokens)
        if self._options.renew_at is not None:
            await self._tell_all(self._now() + self._options.renew_at)

    async def _tell_all(self, before: int) -> None:
        for user_id, end in await self._store.to_tell(before, _AT_A_TIME):
            try:
                if not await self._tell(user_id, end):
                    logger.info("%s cannot be told that the account expires: there is no address", user_id)
            except MatrixError as error:
                if error.code >= 500:
                    raise  # the mail server is away: all others would fail as well
                log_failure(logger, error, "%s cannot be told that the account expires", user_id)
            await self._store.told(user_id, end, _hash(_new_token()))

    async def _tell(self, user_id: str, end: int) -> bool:
        """Sends the mail to all of the user's addresses; False where there are none."""
        addresses = [one.address for one in await self._threepids.of_user(user_id) if one.medium == EMAIL]
        if not addresses:
            return False
        token = _new_token()
        await self._store.offer(user_id, _hash(token))
        profile = await self._profiles.get(user_id)
        values = {
            "display_name": (profile.display_name if profile is not None else None) or user_id,
            "user_id": user_id,
            "expires": day_of(end),
            "link": f"{self._base_url}{PATH}?token={token}",
        }
        for address in addresses:
            await self._mailer.send(address, self._options.renew_email_subject, TEMPLATE, values)
        return True

    def _next_end(self) -> int:
        return self._now() + self._period

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def day_of(time: int) -> str:
    """A time (milliseconds) as people read it: 2026-11-25."""
    return datetime.fromtimestamp(time / 1000, UTC).date().isoformat()


def _new_token() -> str:
    return random_letters(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
