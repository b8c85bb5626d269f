"""Where browsers come back to from a SAML identity provider, and what that provider is to know of this server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import not_found
from synapse.handlers.sso.redirects import check_redirect_url
from synapse.handlers.sso.saml import ID, SamlProvider
from synapse.handlers.sso.sessions import SsoSessions
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import SsoRefused, ToLogIn
from synapse.http.answers import Answer
from synapse.http.forms import field_of, form_of
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import SsoPages

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class SamlEndpoints:
    """`/_synapse/client/saml2`."""

    def __init__(
        self,
        provider: SamlProvider | None,
        sign_on: SignOn,
        sessions: SsoSessions,
        browsers: Browsers,
        pages: SsoPages,
    ) -> None:
        self._provider = provider
        self._sign_on = sign_on
        self._sessions = sessions
        self._browsers = browsers
        self._pages = pages

    @serves("saml2_metadata")
    async def metadata(self, request: Request) -> Answer:
        if self._provider is None:
            raise not_found("Nobody logs in to this server by SAML.")
        return Answer(200, await self._provider.metadata(), content_type="application/samlmetadata+xml")

    @serves("saml2_authn_response")
    async def response(self, request: Request) -> Answer:
        return await self._pages.shown(self._response(request))

    async def _response(self, request: Request) -> Answer:
        if self._provider is None:
            raise SsoRefused("Nobody logs in to this server by SAML.", title="No single sign-on", code=404)
        form = form_of(request)
        response, relay_state = field_of(form, "SAMLResponse"), field_of(form, "RelayState")
        if not response:
            raise SsoRefused("The identity provider has said nothing. Please begin again in your client.")
        secret = self._browsers.secret(request)
        try:
            away = await self._sessions.take_away(ID, relay_state, secret)
        except SsoRefused:
            if not self._provider.allow_unsolicited or relay_state is None:
                raise
            return await self._unsolicited(self._provider, response, relay_state, request)
        assert secret is not None, "the session is that browser's"
        identity = await self._provider.identity_of(response, away.remembered)
        return await self._pages.step(await self._sign_on.arrive(identity, away.purpose, secret))

    async def _unsolicited(self, provider: SamlProvider, response: str, url: str, request: Request) -> Answer:
        """What nobody asked for may log in to the client that the relay state names, once the user says so."""
        purpose = ToLogIn(check_redirect_url(url))
        identity = await provider.identity_of(response, None)
        browser = self._browsers.of(request)
        answer = await self._pages.step(await self._sign_on.arrive(identity, purpose, browser.secret, asked=False))
        answer.headers = (*answer.headers, *browser.headers)
        return answer
