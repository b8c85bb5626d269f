"""Proving to have an e-mail address or phone number: sessions that begin with a message to it, and end with what was in
the message coming back.

    session = await validations.begin(purpose, medium, address, secret)  # the same for all that is the same
    await validations.send(session, attempt, deliver)    # one message for each attempt that the client counts
    await validations.submit(sid, secret, token)         # what the message said
    await validations.validated(sid, secret, purpose)    # whoever wants proof: what was proved, if it was
    await validations.use(sid)                           # a proof is used once

Whose address it may be, and who may ask for messages, is `synapse.handlers.threepid_tokens`' matter. Identity service
API, "Email associations", "Phone number associations", whose rules the client-server API takes over.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from synapse.api.errors import Codes, MatrixError, invalid_param
from synapse.api.identifiers import random_letters
from synapse.api.threepids import EMAIL
from synapse.storage.threepid_sessions import Wish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.storage.threepid_sessions import ThreepidSessionStore, ValidationSession
    from synapse.util.clock import Clock

REGISTRATION: Final = "registration"
PASSWORD_RESET: Final = "password_reset"
ADD_THREEPID: Final = "add_threepid"

PROOF_LIFETIME_MS: Final = 24 * 3600 * 1000
"""How long a validated session proves something: as long as the sessions of interactive authentication live."""

MAX_ATTEMPTS: Final = 5
"""How often a short code may be guessed before another has to be sent."""

CODE_DIGITS: Final = 6
CODE_LIFETIME_MS: Final = 15 * 60 * 1000

_OPAQUE: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}", re.ASCII)
_MAX_TOKEN: Final = 255


class Proven(NamedTuple):
    """An address, and when it was proved to be the client's; milliseconds since the epoch."""

    medium: str
    address: str
    validated_ts: int


class Remote(Protocol):
    """The identity server that sends messages in our place, with sessions of its own."""

    async def submit(self, remote_sid: str, client_secret: str, token: str) -> bool:
        """Whether the token is right. Raises 400 for what the server refuses."""

    async def validated(self, remote_sid: str, client_secret: str) -> bool:
        """Whether the address was validated."""


class Validations:
    """Sessions of validation, in any process.

    :param lifetime: how long the token in a mail is good for, in milliseconds.
    """

    def __init__(self, store: ThreepidSessionStore, clock: Clock, lifetime: int, remote: Remote | None = None) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = lifetime
        self._remote = remote

    async def begin(
        self, purpose: str, medium: str, address: str, client_secret: str, next_link: str | None = None
    ) -> ValidationSession:
        """The session of that purpose, address (canonical) and secret. Raises 400 M_INVALID_PARAM."""
        wish = Wish(purpose, medium, address, _hash(checked_secret(client_secret)), next_link)
        now = self._now()
        return await self._store.begin(random_letters(24), wish, now, now + self._lifetime_of(medium))

    async def send(
        self, session: ValidationSession, send_attempt: int, deliver: Callable[[str], Awaitable[None]]
    ) -> bool:
        """Has a token delivered, unless it was for this attempt; whether it was now.

        Where `deliver` raises, the attempt may be made again.
        """
        if not await self._store.reserve(session.session_id, send_attempt):
            return False
        try:
            is_mail = session.medium == EMAIL
            token = random_letters(32) if is_mail else _code()
            expires = self._now() + self._lifetime_of(session.medium)
            await self._store.sent(session.session_id, _hash(token), expires, alone=not is_mail)
            await deliver(token)
        except BaseException:
            await self._store.release(session.session_id, send_attempt, session.last_send_attempt)
            raise
        return True

    async def send_elsewhere(
        self, session: ValidationSession, send_attempt: int, ask: Callable[[], Awaitable[str]]
    ) -> bool:
        """Like `send`, where an identity server makes the token; `ask` has it sent and gives the server's session."""
        if not await self._store.reserve(session.session_id, send_attempt):
            return False
        try:
            await self._store.sent_by(session.session_id, await ask(), self._now() + self._lifetime_of(session.medium))
        except BaseException:
            await self._store.release(session.session_id, send_attempt, session.last_send_attempt)
            raise
        return True

    async def check(self, session_id: str, client_secret: str, token: str, purpose: str | None) -> ValidationSession:
        """The session, if the token is one that was sent to the address. Changes nothing, so only for mails' tokens.

        Raises 400 M_INVALID_PARAM, M_TOKEN_INCORRECT, M_SESSION_EXPIRED.
        """
        session = await self._session(session_id, client_secret, purpose)
        if not token or len(token) > _MAX_TOKEN:
            raise _incorrect()
        if session is None:
            raise _expired()
        if session.medium == EMAIL and not _is_among(token, session.token_hashes):
            raise _incorrect()
        return session

    async def submit(
        self, session_id: str, client_secret: str, token: str, purpose: str | None = None
    ) -> ValidationSession:
        """What was sent has come back: the address is validated. Raises as `check` does."""
        session = await self.check(session_id, client_secret, token, purpose)
        if session.medium != EMAIL:
            if session.validated_ts is None and not await self._store.attempt(session_id, MAX_ATTEMPTS):
                sentence = "Too many wrong codes were sent; ask for another one."
                raise MatrixError(400, Codes.SESSION_EXPIRED, sentence)
            if not await self._is_right_code(session, client_secret, token):
                raise _incorrect()
        if session.validated_ts is None:
            now = self._now()
            await self._store.validate(session_id, now, now + PROOF_LIFETIME_MS)
        return session

    async def validated(self, session_id: str, client_secret: str, purpose: str | None = None) -> Proven | None:
        """What the session has proved, to whoever knows its secret; None where that is nothing (yet, or any more).

        :param purpose: what it must have been begun for; None where that does not matter.
        """
        session = await self._session(session_id, client_secret, purpose)
        if session is None:
            return None
        validated_ts = session.validated_ts
        if validated_ts is None and session.remote_sid is not None and self._remote is not None:
            # There may have been a link in the message, which the identity server then has heard of, and we have not.
            if not await self._remote.validated(session.remote_sid, client_secret):
                return None
            validated_ts = self._now()
            await self._store.validate(session_id, validated_ts, validated_ts + PROOF_LIFETIME_MS)
        return None if validated_ts is None else Proven(session.medium, session.address, validated_ts)

    async def use(self, session_id: str) -> bool:
        """Takes what the session proved as used up; False where it was already: then it proves nothing any more."""
        return _is_opaque(session_id) and await self._store.delete(session_id)

    async def forget_old(self) -> None:
        """Deletes what has expired."""
        await self._store.forget(self._now())

    async def _session(self, session_id: str, client_secret: str, purpose: str | None) -> ValidationSession | None:
        checked_secret(client_secret)
        session = await self._store.get(session_id) if _is_opaque(session_id) else None
        if session is None or session.expires_ts < self._now():
            return None
        if not compare_digest(session.client_secret_hash, _hash(client_secret)):
            return None
        return session if purpose is None or session.purpose == purpose else None

    async def _is_right_code(self, session: ValidationSession, client_secret: str, token: str) -> bool:
        if session.remote_sid is None:
            return _is_among(token, session.token_hashes)
        return self._remote is not None and await self._remote.submit(session.remote_sid, client_secret, token)

    def _lifetime_of(self, medium: str) -> int:
        return self._lifetime if medium == EMAIL else min(self._lifetime, CODE_LIFETIME_MS)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def checked_secret(client_secret: str) -> str:
    """Raises 400 M_INVALID_PARAM for what the specification does not allow as a client secret."""
    if not _is_opaque(client_secret):
        raise invalid_param("The 'client_secret' must be 1 to 255 of the characters 0-9 a-z A-Z . = _ -")
    return client_secret


def _is_opaque(text: str) -> bool:
    return _OPAQUE.fullmatch(text) is not None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _is_among(token: str, hashes: tuple[bytes, ...]) -> bool:
    given = _hash(token)
    return any(compare_digest(given, known) for known in hashes)


def _code() -> str:
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"


def _incorrect() -> MatrixError:
    return MatrixError(400, Codes.TOKEN_INCORRECT, "That is not what was sent to the address.")


def _expired() -> MatrixError:
    return MatrixError(400, Codes.SESSION_EXPIRED, "There is no such validation, or it has expired; begin again.")
