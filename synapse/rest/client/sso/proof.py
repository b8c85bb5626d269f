"""The page on which a logged-in user confirms by single sign-on what a client is about to do.

Client-server API, "SSO during User-Interactive Authentication": what is to be confirmed is shown before the user goes
to the provider, and going there takes a click in the browser that it was shown in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.handlers.sso.proof import Proof
from synapse.handlers.sso.sessions import Asking, SsoSessions
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import SsoRefused, ToProve
from synapse.handlers.sso.users import SsoUsers
from synapse.http.answers import Answer, redirect
from synapse.http.forms import field_of, form_of
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import SsoPages, shown_provider

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class SsoProof:
    """`/auth/m.login.sso/fallback/web`."""

    def __init__(
        self,
        sign_on: SignOn,
        sessions: SsoSessions,
        users: SsoUsers,
        proof: Proof,
        browsers: Browsers,
        pages: SsoPages,
    ) -> None:
        self._sign_on = sign_on
        self._sessions = sessions
        self._users = users
        self._proof = proof
        self._browsers = browsers
        self._pages = pages

    @serves("sso_fallback")
    async def show(self, request: Request) -> Answer:
        return await self._pages.shown(self._show(request))

    @serves("sso_fallback_confirmed")
    async def confirm(self, request: Request) -> Answer:
        return await self._pages.shown(self._confirm(request))

    async def _show(self, request: Request) -> Answer:
        session = await self._proof.session(request.required_arg("session"))
        assert session.user_id is not None, "those without are refused"
        known = await self._users.providers_of(session.user_id)
        providers = [shown_provider(one) for one in self._sign_on.providers.values() if one.id in known]
        if not providers:
            raise SsoRefused(
                f"{session.user_id} has never logged in by single sign-on; please confirm in another way.",
                title="Confirming has failed",
                code=403,
            )
        browser = self._browsers.of(request)
        asking = await self._sessions.put(Asking(session.session_id), browser.secret)
        return self._pages.render(
            "sso_auth_confirm.html",
            headers=browser.headers,
            session=asking,
            user_id=session.user_id,
            description=session.description,
            providers=providers,
        )

    async def _confirm(self, request: Request) -> Answer:
        form = form_of(request)
        asking = await self._sessions.take(Asking, field_of(form, "session"), self._browsers.secret(request))
        provider = self._sign_on.provider(field_of(form, "idp") or "")
        browser = self._browsers.of(request, posted_back=provider.posts_back)
        location = await self._sign_on.depart(provider.id, ToProve(asking.ui_auth_session), browser.secret)
        return redirect(location, 303, headers=(*browser.headers, ("Cache-Control", "no-store")))
