"""Where a client sends a browser for its user to log in, and the page to choose an identity provider on.

Client-server API, `GET /login/sso/redirect`, `GET /login/sso/redirect/{idpId}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from synapse.handlers.sso.redirects import check_redirect_url
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import SsoRefused, ToLogIn
from synapse.http.answers import Answer, redirect
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import SsoPages, shown_provider

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers

_REDIRECT = "/_matrix/client/v3/login/sso/redirect"
_PICK = "/_synapse/client/pick_idp"
_ACTIONS = ("login", "register")
_AGAIN = "org.matrix.synapse.canonical"


class SsoRedirect:
    """`/login/sso/redirect`, `/login/cas/redirect` and `pick_idp`."""

    def __init__(self, sign_on: SignOn, browsers: Browsers, pages: SsoPages) -> None:
        self._sign_on = sign_on
        self._browsers = browsers
        self._pages = pages

    @serves("login_sso_redirect")
    async def redirect(self, request: Request, idp_id: str) -> Answer:
        """`idp_id` is "" where the client leaves the choice to the user."""
        return await self._pages.shown(self._redirect(request, idp_id))

    @serves("login_cas_redirect")
    async def cas_redirect(self, request: Request) -> Answer:
        """The same for clients that know the flow m.login.cas, of release r0.4.0, alone."""
        return await self._pages.shown(self._redirect(request, "cas"))

    @serves("sso_pick_idp")
    async def pick(self, request: Request) -> Answer:
        """The page, and what its form leads to."""
        return await self._pages.shown(self._pick(request))

    async def _redirect(self, request: Request, idp_id: str) -> Answer:
        url = check_redirect_url(request.required_arg("redirectUrl"))
        action = request.choice_arg("action", _ACTIONS, _ACTIONS[0])
        providers = self._sign_on.providers
        if not providers:
            raise SsoRefused("This server has no single sign-on.", title="No single sign-on", code=404)
        elsewhere = self._elsewhere(request)
        if elsewhere is not None:
            return redirect(elsewhere)
        if not idp_id:
            if len(providers) > 1:
                return redirect(f"{self._pages.base_url}{_PICK}?{urlencode({'redirectUrl': url, 'action': action})}")
            (idp_id,) = providers
        browser = self._browsers.of(request, posted_back=self._sign_on.provider(idp_id).posts_back)
        location = await self._sign_on.depart(idp_id, ToLogIn(url, action == "register"), browser.secret)
        return redirect(location, headers=(*browser.headers, ("Cache-Control", "no-store")))

    def _elsewhere(self, request: Request) -> str | None:
        """The same under the server's public name, if the browser came by another: cookies belong to a name.

        Once, as a proxy may hide by which it came.
        """
        base = urlsplit(self._pages.base_url)
        host = request.headers.get("host", "")
        if not host or host.lower() == base.netloc.lower() or request.arg(_AGAIN) is not None:
            return None
        _, _, query = request.raw.target.partition("?")
        return f"{self._pages.base_url}{request.path}?{query}&{_AGAIN}=true"

    async def _pick(self, request: Request) -> Answer:
        url = check_redirect_url(request.required_arg("redirectUrl"))
        action = request.choice_arg("action", _ACTIONS, _ACTIONS[0])
        chosen = request.arg("idp")
        if chosen is not None:
            self._sign_on.provider(chosen)
            query = urlencode({"redirectUrl": url, "action": action})
            return redirect(f"{self._pages.base_url}{_REDIRECT}/{quote(chosen, safe='')}?{query}")
        providers = [shown_provider(provider) for provider in self._sign_on.providers.values()]
        return self._pages.render("sso_login_idp_picker.html", redirect_url=url, action=action, providers=providers)
