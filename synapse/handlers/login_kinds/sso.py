"""The flows by which clients learn that people can log in by an identity provider: nobody logs in by them here.

A client that takes one sends the browser to `/login/sso/redirect`, and logs in by the token that it comes back with.
Client-server API, "SSO client login/authentication".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes
from synapse.api.errors import unknown

if TYPE_CHECKING:
    from synapse.handlers.login_kinds import LoginProof
    from synapse.handlers.sso.types import IdentityProvider
    from synapse.http.request import Request


class SsoLogin:
    """m.login.sso.

    :param oauth_aware: whether clients that know OAuth 2.0 shall offer nothing but this.
    """

    kind: str = LoginTypes.SSO

    def __init__(self, providers: Iterable[IdentityProvider], *, oauth_aware: bool) -> None:
        self._flow: dict[str, Any] = {"type": self.kind}
        self._flow["identity_providers"] = [_shown(provider) for provider in providers]
        if oauth_aware:
            self._flow["oauth_aware_preferred"] = True

    def flow(self) -> dict[str, Any]:
        return self._flow

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 400."""
        raise unknown("Open /login/sso/redirect in a browser, and log in by the m.login.token that it comes back with.")


class CasLogin:
    """m.login.cas, the name of the same thing for clients of release r0.4.0 or older."""

    kind: str = "m.login.cas"

    def flow(self) -> dict[str, Any]:
        return {"type": self.kind}

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 400."""
        raise unknown("Open /login/cas/redirect in a browser, and log in by the m.login.token that it comes back with.")


def _shown(provider: IdentityProvider) -> dict[str, str]:
    told = {"id": provider.id, "name": provider.name, "icon": provider.icon, "brand": provider.brand}
    return {key: value for key, value in told.items() if value is not None}
