"""Where browsers come back to from an OpenID Connect provider, with a code or with an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from synapse.api.errors import missing_param
from synapse.handlers.sso.oidc.logout import BackChannelLogout
from synapse.handlers.sso.oidc.provider import OidcProvider, refused_there
from synapse.handlers.sso.sessions import Away, SsoSessions
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import SsoRefused, session_gone
from synapse.http.answers import Answer
from synapse.http.forms import field_of, form_of
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import SsoPages

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class OidcLogout:
    """`/_synapse/client/oidc/backchannel_logout`, which providers ask themselves."""

    def __init__(self, logout: BackChannelLogout) -> None:
        self._logout = logout

    @serves("oidc_backchannel_logout")
    async def log_out(self, request: Request) -> Answer:
        token = field_of(form_of(request), "logout_token")
        if token is None:
            raise missing_param("logout_token")
        await self._logout.log_out(token)
        return Answer(200, b"", (("Cache-Control", "no-store"),), None)


class OidcCallback:
    """`/_synapse/client/oidc/callback`."""

    def __init__(
        self,
        providers: Iterable[OidcProvider],
        sign_on: SignOn,
        sessions: SsoSessions,
        browsers: Browsers,
        pages: SsoPages,
    ) -> None:
        self._providers = {provider.id: provider for provider in providers}
        self._sign_on = sign_on
        self._sessions = sessions
        self._browsers = browsers
        self._pages = pages

    @serves("oidc_callback")
    async def callback(self, request: Request) -> Answer:
        return await self._pages.shown(self._callback(request))

    async def _callback(self, request: Request) -> Answer:
        secret = self._browsers.secret(request)
        # Whatever the answer is, it is the one to this question; and nobody's words are shown whom we did not ask.
        away = await self._sessions.take(Away, request.arg("state"), secret)
        provider = self._providers.get(away.provider)
        if provider is None or secret is None:
            raise session_gone()
        error = request.arg("error")
        if error is not None:
            raise refused_there(error, request.arg("error_description"))
        code = request.arg("code")
        if not code:
            raise SsoRefused("The identity provider has sent you back without an answer. Please begin again.")
        identity = await provider.identity_of(code, away, request.arg("iss"))
        return await self._pages.step(await self._sign_on.arrive(identity, away.purpose, secret))
