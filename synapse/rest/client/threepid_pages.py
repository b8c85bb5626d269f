"""The pages behind the links in mails: an address is confirmed, and for a new password, a question comes before.

Programs that look at mails follow the links in them. For an address that does no harm; a password is another matter, so
there the link only leads to a form.
"""

from __future__ import annotations

from synapse.api.errors import MatrixError
from synapse.handlers.validations import ADD_THREEPID, PASSWORD_RESET, REGISTRATION, Validations
from synapse.http.answers import Answer, redirect
from synapse.http.forms import form_of
from synapse.http.pages import new_nonce, page
from synapse.http.server import Request, serves
from synapse.util.templates import Templates


class ThreepidPages:
    """`…/email/submit_token`."""

    def __init__(self, validations: Validations, templates: Templates, server_name: str) -> None:
        self._validations = validations
        self._templates = templates
        self._server_name = server_name

    @serves("registration_submit_email")
    async def registration(self, request: Request) -> Answer:
        return await self._submit(REGISTRATION, request.query)

    @serves("threepids_submit_email")
    async def add_threepid(self, request: Request) -> Answer:
        return await self._submit(ADD_THREEPID, request.query)

    @serves("password_ask_email")
    async def ask_password_reset(self, request: Request) -> Answer:
        """Looks at the token and asks; nothing is confirmed yet."""
        try:
            sid, client_secret, token = _parts(request.query)
            await self._validations.check(sid, client_secret, token, PASSWORD_RESET)
        except MatrixError as error:
            return self._failure(PASSWORD_RESET, error)
        return self._page(
            "password_reset_confirmation.html",
            sid=sid,
            client_secret=client_secret,
            token=token,
            server_name=self._server_name,
        )

    @serves("password_submit_email")
    async def password_reset(self, request: Request) -> Answer:
        try:
            return await self._submit(PASSWORD_RESET, form_of(request))
        except MatrixError as error:
            return self._failure(PASSWORD_RESET, error)

    async def _submit(self, purpose: str, values: dict[str, list[str]]) -> Answer:
        try:
            session = await self._validations.submit(*_parts(values), purpose)
        except MatrixError as error:
            return self._failure(purpose, error)
        if session.next_link is not None:
            return redirect(session.next_link, headers=(("Referrer-Policy", "no-referrer"),))
        return self._page(f"{purpose}_success.html")

    def _failure(self, purpose: str, error: MatrixError) -> Answer:
        return self._page(f"{purpose}_failure.html", code=error.code, failure_reason=error.message)

    def _page(self, template: str, *, code: int = 200, **values: str) -> Answer:
        nonce = new_nonce()
        return page(self._templates.render(template, nonce=nonce, **values), nonce, code=code)


def _parts(values: dict[str, list[str]]) -> tuple[str, str, str]:
    sid, client_secret, token = (values.get(name, [""])[0] for name in ("sid", "client_secret", "token"))
    return sid, client_secret, token
