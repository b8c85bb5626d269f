"""The pages on which somebody whom a provider vouches for makes out their new account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from synapse.api.errors import unknown
from synapse.handlers.consent import PATH
from synapse.handlers.sso.sessions import Joining
from synapse.handlers.sso.sign_on import SignOn
from synapse.handlers.sso.types import SsoRefused, session_gone
from synapse.http.answers import Answer
from synapse.http.forms import field_of, form_of
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import CONSENT_PATH, DETAILS_PATH, SsoPages, shown_provider

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class SsoJoining:
    """`/_synapse/client/pick_username/…` and `/_synapse/client/new_user_consent`."""

    def __init__(self, sign_on: SignOn, browsers: Browsers, pages: SsoPages) -> None:
        self._sign_on = sign_on
        self._browsers = browsers
        self._pages = pages

    @serves("sso_account_details")
    async def show(self, request: Request) -> Answer:
        return await self._pages.shown(self._show(request))

    @serves("sso_account_details_chosen")
    async def choose(self, request: Request) -> Answer:
        return await self._pages.shown(self._choose(request))

    @serves("sso_consent")
    async def show_terms(self, request: Request) -> Answer:
        return await self._pages.shown(self._show_terms(request))

    @serves("sso_consent_given")
    async def agree(self, request: Request) -> Answer:
        return await self._pages.shown(self._agree(request))

    @serves("sso_check_username")
    async def check(self, request: Request) -> dict[str, Any]:
        """For the page's script: whether a name can be had, and why not."""
        name = request.required_arg("username")
        try:
            await self._pages_session(request, request.arg("session"))
        except SsoRefused as refused:
            raise unknown(refused.text, refused.code) from None
        problem = await self._sign_on.name_problem(name)
        return {"available": True} if problem is None else {"available": False, "error": problem}

    async def _pages_session(self, request: Request, session_id: str | None) -> Joining:
        return await self._sign_on.joining(session_id, self._browsers.secret(request))

    async def _show(self, request: Request) -> Answer:
        session_id = request.arg("session", "")
        return self._form(await self._pages_session(request, session_id), session_id)

    def _form(self, joining: Joining, session_id: str, chosen: str | None = None, problem: str | None = None) -> Answer:
        identity = joining.identity
        provider = self._sign_on.provider(identity.provider)
        return self._pages.render(
            "sso_auth_account_details.html",
            code=200 if problem is None else 400,
            session=session_id,
            action=f"{self._pages.base_url}{DETAILS_PATH}?{urlencode({'session': session_id})}",
            idp=shown_provider(provider),
            user_attributes={
                "localpart": identity.localpart if chosen is None else chosen,
                "display_name": identity.display_name,
                "emails": identity.emails,
                "avatar_url": identity.picture,
            },
            problem=problem,
        )

    async def _choose(self, request: Request) -> Answer:
        form = form_of(request)
        session_id = field_of(form, "session") or ""
        joining = await self._pages_session(request, session_id)
        name = (field_of(form, "username") or "").strip().lower()
        problem = await self._sign_on.name_problem(name)
        if problem is not None:
            return self._form(joining, session_id, name, problem)
        identity = joining.identity
        wanted = set(form.get("use_email", ()))
        chosen = msgspec.structs.replace(
            joining,
            localpart=name,
            display_name=identity.display_name if field_of(form, "use_display_name") else None,
            picture=identity.picture if field_of(form, "use_avatar") else None,
            emails=tuple(email for email in identity.emails if email in wanted),
        )
        secret = self._browsers.secret(request)
        return await self._pages.step(await self._sign_on.finish_joining(chosen, session_id, secret))

    # -- the terms ---------------------------------------------------------------------------------------------------

    async def _show_terms(self, request: Request) -> Answer:
        session_id = request.arg("session", "")
        return self._terms(await self._named(request, session_id), session_id)

    async def _named(self, request: Request, session_id: str) -> Joining:
        joining = await self._pages_session(request, session_id)
        if joining.localpart is None or self._sign_on.terms is None:
            raise session_gone()
        return joining

    def _terms(self, joining: Joining, session_id: str, problem: str | None = None) -> Answer:
        assert self._sign_on.terms is not None, "checked before"
        version = self._sign_on.terms.version
        return self._pages.render(
            "sso_new_user_consent.html",
            code=200 if problem is None else 400,
            session=session_id,
            action=f"{self._pages.base_url}{CONSENT_PATH}?{urlencode({'session': session_id})}",
            user_id=f"@{joining.localpart}:{self._pages.server_name}",
            user_profile={"display_name": joining.display_name, "avatar_url": joining.picture},
            consent_version=version,
            terms_url=f"{self._pages.base_url}{PATH}?{urlencode({'v': version})}",
            problem=problem,
        )

    async def _agree(self, request: Request) -> Answer:
        form = form_of(request)
        session_id = field_of(form, "session") or ""
        joining = await self._named(request, session_id)
        assert self._sign_on.terms is not None, "checked before"
        if field_of(form, "accepted_version") != self._sign_on.terms.version:
            return self._terms(joining, session_id, "Without agreeing to the terms you cannot have an account here.")
        agreed = msgspec.structs.replace(joining, agreed=self._sign_on.terms.version)
        secret = self._browsers.secret(request)
        return await self._pages.step(await self._sign_on.finish_joining(agreed, session_id, secret))
