"""The kinds of login that there can be, a module each. Which of them a server offers is the composition root's matter.

A kind finds out who logs in, and nothing more: `synapse.handlers.new_sessions` makes the session, whichever the kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from synapse.http.request import Request
    from synapse.storage.access_tokens import ProviderSession


class LoginProof(NamedTuple):
    """Who logs in.

    `password_hash` is of the password that proved it, and must still be the user's when the session is made.
    `provider_session` is the one at an identity provider with which the session ends.
    """

    user_id: str
    password_hash: str | None = None
    provider_session: ProviderSession | None = None


class LoginKind(Protocol):
    """A value of `type` in `POST /login`."""

    @property
    def kind(self) -> str:
        """m.login.password, say."""

    def flow(self) -> dict[str, Any] | None:
        """The kind as `GET /login` tells it, its `type` included; None where it works without being offered."""

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """The user of this server who proves to be one by this body. Raises 400, 403 or 429."""
