"""Where browsers come back to from a CAS server, with a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.handlers.sso.cas import ID, CasProvider
from synapse.handlers.sso.proof import Proof
from synapse.handlers.sso.redirects import check_redirect_url
from synapse.handlers.sso.sessions import SsoSessions
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import Purpose, SsoRefused, ToLogIn, ToProve
from synapse.http.answers import Answer
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import SsoPages

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class CasTicket:
    """`/login/cas/ticket`."""

    def __init__(
        self,
        provider: CasProvider | None,
        sign_on: SignOn,
        sessions: SsoSessions,
        proof: Proof,
        browsers: Browsers,
        pages: SsoPages,
    ) -> None:
        self._provider = provider
        self._sign_on = sign_on
        self._sessions = sessions
        self._proof = proof
        self._browsers = browsers
        self._pages = pages

    @serves("login_cas_ticket")
    async def ticket(self, request: Request) -> Answer:
        return await self._pages.shown(self._ticket(request))

    async def _ticket(self, request: Request) -> Answer:
        if self._provider is None:
            raise SsoRefused("Nobody logs in to this server by CAS.", title="No single sign-on", code=404)
        ticket, purpose = request.required_arg("ticket"), _purpose(request)
        secret = self._browsers.secret(request)
        asked = await self._was_asked(self._provider.state_of(purpose), secret)
        if isinstance(purpose, ToProve) and not asked:
            await self._proof.check_address(purpose.ui_auth_session, request.client_ip)
        identity = await self._provider.identity_of(ticket, purpose)
        browser = self._browsers.of(request)
        step = await self._sign_on.arrive(identity, purpose, browser.secret, asked=asked)
        answer = await self._pages.step(step)
        answer.headers = (*answer.headers, *browser.headers)
        return answer

    async def _was_asked(self, state: str, secret: str | None) -> bool:
        try:
            await self._sessions.take_away(ID, state, secret)
        except SsoRefused:
            return False
        return True


def _purpose(request: Request) -> Purpose:
    session = request.arg("session")
    if session is not None:
        return ToProve(session)
    return ToLogIn(check_redirect_url(request.required_arg("redirectUrl")))
