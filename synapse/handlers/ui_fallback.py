"""The fallback pages of interactive authentication: stages for clients that cannot show them themselves.

What a page is and what its form means is decided here; a stage is passed as by a request of the client, and the client
then asks again with the session alone. m.login.sso has pages of its own (`synapse.handlers.sso`). Client-server API,
"Fallback".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from synapse.api.constants import LoginTypes
from synapse.api.errors import MatrixError, invalid_param, not_found
from synapse.api.identifiers import random_letters
from synapse.handlers.threepid_tokens import EmailWish, MsisdnWish
from synapse.handlers.validations import PASSWORD_RESET, REGISTRATION

if TYPE_CHECKING:
    from synapse.handlers.threepid_tokens import ThreepidTokens
    from synapse.handlers.ui_auth import UiAuth
    from synapse.handlers.validations import Validations
    from synapse.http.request import Request
    from synapse.storage.ui_auth import UiAuthSession

Form = Mapping[str, str]

_CAPTCHA_HOSTS: Final = "https://www.gstatic.com https://www.google.com"
_PURPOSES: Final = {"register": REGISTRATION, "account_password": PASSWORD_RESET}


class View(NamedTuple):
    """A page to be shown. `script_sources` are those that it needs besides its own."""

    template: str
    values: dict[str, Any]
    code: int = 200
    script_sources: str = ""


class _Page(NamedTuple):
    template: str
    auth: Callable[[Form, UiAuthSession], dict[str, Any]]


DONE: Final = "auth_success.html"


class Fallbacks:
    """Shows pages and takes what their forms send.

    :param tokens: has messages sent to addresses.
    :param captcha_api: where it is asked whether a captcha was solved; its script is beside it.
    """

    def __init__(
        self, ui_auth: UiAuth, tokens: Callable[[], ThreepidTokens], validations: Validations, captcha_api: str
    ) -> None:
        self._ui_auth = ui_auth
        self._tokens = tokens
        self._validations = validations
        self._captcha_api = captcha_api

    async def show(self, kind: str, session_id: str) -> View:
        """The stage's page; of one that is passed, the page that says so. Raises 400 M_UNKNOWN, 404 M_NOT_FOUND."""
        session = await self._ui_auth.session(session_id)
        return View(DONE, {}) if kind in session.completed else self._shown(kind, session, {})

    async def submit(self, kind: str, form: Form, request: Request) -> View:
        """What comes of a form: the next page. Raises as `show` does."""
        session = await self._ui_auth.session(form.get("session", ""))
        if kind in session.completed:
            return View(DONE, {})
        page = _page(kind)
        try:
            if kind in (LoginTypes.EMAIL_IDENTITY, LoginTypes.MSISDN):
                step = await self._message(kind, session, form, request)
                if step is not None:
                    return step
            await self._ui_auth.attempt(session, kind, page.auth(form, session), request)
        except MatrixError as error:
            return self._shown(kind, session, form, error)
        return View(DONE, {})

    def _shown(
        self, kind: str, session: UiAuthSession, form: Form, error: MatrixError | None = None, **values: Any
    ) -> View:
        params = self._ui_auth.params_of(kind)
        common: dict[str, Any] = {
            "session": session.session_id,
            "error": None if error is None else error.message,
            "description": session.description,
            "user_id": session.user_id,
        }
        sources = ""
        if kind == LoginTypes.RECAPTCHA:
            parts = urlsplit(self._captcha_api)
            sources = f"{parts.scheme}://{parts.netloc} {_CAPTCHA_HOSTS}"
            script = self._captcha_api.removesuffix("/siteverify") + ".js"
            common |= {"sitekey": (params or {}).get("public_key"), "script": script}
        elif kind == LoginTypes.TERMS:
            common["policies"] = _named((params or {}).get("policies", {}))
        elif kind in (LoginTypes.EMAIL_IDENTITY, LoginTypes.MSISDN):
            common |= {name: form.get(name, "") for name in ("sid", "client_secret", "address", "country")}
        return View(_page(kind).template, {**common, **values}, 200 if error is None else error.code, sources)

    # -- addresses ---------------------------------------------------------------------------------------------------

    async def _message(self, kind: str, session: UiAuthSession, form: Form, request: Request) -> View | None:
        """Has a message sent, or takes the code back that was in it; the page to show, None for going on."""
        if form.get("sid"):
            if kind == LoginTypes.MSISDN:
                code = form.get("code", "").strip()
                await self._validations.submit(form["sid"], form.get("client_secret", ""), code)
            return None
        purpose = _PURPOSES.get(session.uri)
        if purpose is None:
            raise invalid_param("No address has to be proven for this.")
        secret, address = random_letters(32), form.get("address", "").strip()
        if kind == LoginTypes.EMAIL_IDENTITY:
            email = EmailWish(client_secret=secret, email=address, send_attempt=1)
            sent = await self._tokens().email(purpose, email, request.client_ip)
        else:
            country = form.get("country", "").strip().upper()
            number = MsisdnWish(client_secret=secret, country=country, phone_number=address, send_attempt=1)
            sent = await self._tokens().msisdn(purpose, number, request.client_ip)
        return self._shown(kind, session, {**form, "sid": sent.sid, "client_secret": secret})


def _named(policies: dict[str, Any]) -> list[dict[str, str]]:
    """Name and URL of each policy, in English where there is such a text."""
    found = []
    for policy in policies.values():
        texts = {language: text for language, text in policy.items() if language != "version"}
        text = texts.get("en") or next(iter(texts.values()), None)
        if text is not None:
            found.append(text)
    return found


def _page(kind: str) -> _Page:
    page = _PAGES.get(kind)
    if page is None:
        raise not_found(f"There is no page for the authentication type '{kind[:80]}'.")
    return page


def _password(form: Form, session: UiAuthSession) -> dict[str, Any]:
    if session.user_id is None:
        raise invalid_param("A password proves nothing here, as nobody is logged in.")
    identifier = {"type": "m.id.user", "user": session.user_id}
    return {"identifier": identifier, "password": form.get("password", "")}


def _terms(form: Form, session: UiAuthSession) -> dict[str, Any]:
    if form.get("accept") != "true":
        raise invalid_param("You can only go on if you accept this.")
    return {}


def _credentials(form: Form, session: UiAuthSession) -> dict[str, Any]:
    return {"threepid_creds": {"sid": form.get("sid", ""), "client_secret": form.get("client_secret", "")}}


_PAGES: Final = {
    LoginTypes.DUMMY: _Page("auth_dummy.html", lambda form, session: {}),
    LoginTypes.PASSWORD: _Page("auth_password.html", _password),
    LoginTypes.RECAPTCHA: _Page("recaptcha.html", lambda form, session: {"response": form.get("g-recaptcha-response")}),
    LoginTypes.TERMS: _Page("terms.html", _terms),
    LoginTypes.REGISTRATION_TOKEN: _Page(
        "registration_token.html", lambda form, session: {"token": form.get("token", "").strip()}
    ),
    LoginTypes.EMAIL_IDENTITY: _Page("auth_email.html", _credentials),
    LoginTypes.MSISDN: _Page("auth_msisdn.html", _credentials),
}
