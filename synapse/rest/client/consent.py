"""The pages of the policy: `/_matrix/consent`, for everybody to read, and for a user to agree."""

from __future__ import annotations

from typing import Final

from synapse.api.errors import MatrixError, missing_param, not_found
from synapse.handlers.consent import Consent
from synapse.http.forms import form_of
from synapse.http.pages import new_nonce, page
from synapse.http.server import Answer, Request, serves
from synapse.util.templates import Templates

_MAX_LANGUAGES: Final = 10


class ConsentPages:
    """Shows the policy, and notes who agrees.

    :param policies: the administrator's templates; `templates` are those of this server's own pages.
    """

    def __init__(self, consent: Consent, policies: Templates, templates: Templates) -> None:
        self._consent = consent
        self._policies = policies
        self._templates = templates

    @serves("consent_page")
    async def show(self, request: Request) -> Answer:
        try:
            user, version = request.arg("u"), request.arg("v")
            if user is None:
                return self._policy(request, version or self._consent.version, public_version=True)
            mac = request.required_arg("h")
            known = await self._consent.proven(user, mac)
            return self._policy(
                request,
                version or self._consent.version,
                user=user,
                userhmac=mac,
                has_consented=known.consent_version == self._consent.version,
            )
        except MatrixError as error:
            return self._notice("The page cannot be shown", error.message, error.code)

    @serves("consent_given")
    async def agree(self, request: Request) -> Answer:
        try:
            fields = form_of(request)
            user = await self._consent.proven(_field(fields, "u"), _field(fields, "h"))
            version = _field(fields, "v")
            self._consent.template(version, [])  # that there is such a version
            await self._consent.record(user.user_id, version)
        except MatrixError as error:
            return self._notice("That did not work", error.message, error.code)
        nonce = new_nonce()
        return page(self._policies.render("consent_success.html", nonce=nonce, version=version), nonce)

    def _policy(
        self,
        request: Request,
        version: str,
        *,
        user: str = "",
        userhmac: str = "",
        has_consented: bool = False,
        public_version: bool = False,
    ) -> Answer:
        nonce = new_nonce()
        html = self._policies.render(
            self._consent.template(version, _languages(request)),
            nonce=nonce,
            version=version,
            user=user,
            userhmac=userhmac,
            has_consented=has_consented,
            public_version=public_version,
        )
        return page(html, nonce)

    def _notice(self, title: str, text: str, code: int) -> Answer:
        nonce = new_nonce()
        html = self._templates.render("notice.html", nonce=nonce, title=title, text=text, is_error=True)
        return page(html, nonce, code=code)


class NoConsent:
    """Where there is no policy to agree to."""

    @serves("consent_page", "consent_given")
    async def missing(self, request: Request) -> Answer:
        raise not_found("This server has no policy to agree to.")


def _languages(request: Request) -> list[str]:
    """Those that the reader wants, the dearest first: that of the address, then those of the browser."""
    given = request.arg("lang")
    header = request.headers.get("accept-language", "").split(",")[:_MAX_LANGUAGES]
    accepted = [part.partition(";")[0].strip() for part in header]
    return [language for language in (given, *accepted) if language]


def _field(fields: dict[str, list[str]], name: str) -> str:
    values = fields.get(name)
    if not values or not values[0]:
        raise missing_param(name)
    return values[0]
