"""The pages of single sign-on, and what each step shows. The templates are listed in docs/templates.md."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from synapse.api.errors import MatrixError
from synapse.handlers.sso.redirects import shown_url
from synapse.handlers.sso.sign_on import LoggedIn, NewUser, Step, in_words
from synapse.handlers.sso.types import IdentityProvider, SsoRefused
from synapse.http.answers import Answer, Headers, redirect
from synapse.http.pages import new_nonce, page

if TYPE_CHECKING:
    from synapse.storage.profiles import ProfileStore
    from synapse.util.templates import Templates

CONSENT_PATH = "/_synapse/client/new_user_consent"
DETAILS_PATH = "/_synapse/client/pick_username/account_details"


class SsoPages:
    """Renders them.

    :param base_url: under which browsers reach this server, without a slash at its end.
    """

    def __init__(self, templates: Templates, profiles: ProfileStore, server_name: str, base_url: str) -> None:
        self._templates = templates
        self._profiles = profiles
        self.server_name = server_name
        self.base_url = base_url

    async def shown(self, work: Awaitable[Answer]) -> Answer:
        """What the work answers; a page that says why it came to nothing."""
        try:
            return await work
        except SsoRefused as refused:
            return self.refusal(refused)
        except MatrixError as error:
            return self.refusal(in_words(error))

    def render(self, template: str, *, code: int = 200, headers: Headers = (), **values: Any) -> Answer:
        """A page. Every template is given the server's name and a nonce."""
        nonce = new_nonce()
        html = self._templates.render(template, nonce=nonce, server_name=self.server_name, **values)
        return page(html, nonce, code=code, headers=headers)

    def refusal(self, refused: SsoRefused) -> Answer:
        """The page of something that went wrong."""
        values: dict[str, Any] = {
            "error": refused.title,
            "error_description": refused.text,
            "user_id_to_verify": refused.text,
        }
        return self.render(refused.template, code=refused.code, **values)

    async def step(self, step: Step) -> Answer:
        """Where somebody goes on who came back from a provider, or has got an account."""
        if isinstance(step, NewUser):
            path = CONSENT_PATH if step.named else DETAILS_PATH
            query = urlencode({"session": step.session_id})
            return redirect(f"{self.base_url}{path}?{query}", 303, headers=_KEPT)
        if isinstance(step, LoggedIn):
            return redirect(step.url, headers=_KEPT) if step.trusted else await self._confirmation(step)
        return self.render("sso_auth_success.html", user_id=step.user_id)

    async def _confirmation(self, step: LoggedIn) -> Answer:
        profile = await self._profiles.get(step.user_id)
        return self.render(
            "sso_redirect_confirm.html",
            user_id=step.user_id,
            user_profile={
                "display_name": None if profile is None else profile.display_name,
                "avatar_url": None if profile is None else profile.avatar_url,
            },
            new_user=step.new_user,
            redirect_url=step.url,
            display_url=shown_url(step.redirect_url),
        )


# Where a redirect leads is for the one browser, and it may hold a token.
_KEPT: Headers = (("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"))


def shown_provider(provider: IdentityProvider) -> dict[str, str | None]:
    """A provider, as templates know it."""
    return {
        "idp_id": provider.id,
        "idp_name": provider.name,
        "idp_icon": provider.icon,
        "idp_brand": provider.brand,
    }
