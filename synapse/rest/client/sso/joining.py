"""The pages on which somebody whom a provider vouches for makes out their new account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from synapse.handlers.sso.sessions import Joining
from synapse.handlers.sso.sign_on import SignOn
from synapse.http.answers import Answer
from synapse.http.forms import field_of, form_of
from synapse.http.server import Request, serves
from synapse.rest.client.sso.pages import DETAILS_PATH, SsoPages, shown_provider

if TYPE_CHECKING:
    from synapse.rest.client.sso.browser import Browsers


class SsoJoining:
    """`/_synapse/client/pick_username/…`."""

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

    @serves("sso_check_username")
    async def check(self, request: Request) -> dict[str, Any]:
        """For the page's script: whether a name can be had, and why not."""
        name = request.required_arg("username")
        await self._pages_session(request, request.arg("session"))
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
